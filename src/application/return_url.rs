//! Which pages a user may be sent on to: an allow-list of origins with path prefixes (RFC 9700 section 4.11.1).

use url::Url;

use super::error::Violation;
use crate::domain::key::FlowId;
use crate::domain::secret::SecretString;

/// The URL, if it lies under one of the allowed ones.
///
/// Only the normal form is taken: a text that the parser would change (other case, default port, dots, backslashes, white
/// space, raw Unicode) is read in one way here and perhaps in another by a browser.
pub(super) fn check(allowed: &[Url], text: &str) -> Result<Url, Violation> {
    let refuse = |why: &str| Err(Violation::new("options.return_url", why));
    let Ok(url) = Url::parse(text) else {
        return refuse("The return URL must be an absolute URL.");
    };
    if url.as_str() != text {
        return refuse("The return URL must be in its normal form, as a browser's address bar shows it.");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return refuse("The return URL must have neither user information nor a fragment.");
    }
    let path = url.path().to_ascii_lowercase();
    if ["%2f", "%5c", "%2e", "%00", "//"].iter().any(|trick| path.contains(trick)) {
        return refuse("The return URL's path must not contain encoded or doubled separators or dots.");
    }
    if allowed.iter().any(|base| lies_under(&url, base)) {
        return Ok(url);
    }
    refuse(
        "The return URL is not allowed: its origin and path must lie under one of the configured return URLs.",
    )
}

/// The names of the parameters that [`with_completion`] adds.
const FLOW_ID: &str = "flow_id";
const COMPLETION_CODE: &str = "completion_code";

/// Refuses a URL that has one of the parameters already: which of two would the application read?
pub(super) fn check_room(url: &Url) -> Result<(), Violation> {
    if url.query_pairs().any(|(name, _)| name == FLOW_ID || name == COMPLETION_CODE) {
        let why = "With the binding `app` the return URL must not have the parameters `flow_id` and `completion_code`: \
                   the broker adds them.";
        return Err(Violation::new("options.return_url", why));
    }
    Ok(())
}

/// The URL with the browser's half of the proof.
pub(super) fn with_completion(url: &Url, flow: FlowId, completion_code: &SecretString) -> SecretString {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair(FLOW_ID, &flow.to_string())
        .append_pair(COMPLETION_CODE, completion_code.expose_secret());
    SecretString::new(url.into())
}

fn lies_under(url: &Url, base: &Url) -> bool {
    let same_origin = url.scheme() == base.scheme() && url.host() == base.host() && url.port() == base.port();
    let prefix = base.path().strip_suffix('/').unwrap_or(base.path());
    let under = url.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    same_origin && under
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_under_an_allowed_one_pass() {
        let allowed = [
            Url::parse("https://app.example.com/chat").unwrap(),
            Url::parse("http://localhost:3000/").unwrap(),
        ];
        for good in [
            "https://app.example.com/chat",
            "https://app.example.com/chat/42?x=1",
            "http://localhost:3000/",
            "http://localhost:3000/anything",
        ] {
            assert_eq!(check(&allowed, good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/chat",
            "//app.example.com/chat",
            "//evil.example",
            "javascript:alert(1)",
            "http://app.example.com/chat",
            "https://app.example.com/",
            "https://app.example.com/chatter",
            "https://app.example.com/CHAT",
            "https://APP.example.com/chat",
            "https://app.example.com:443/chat",
            "https://app.example.com:8443/chat",
            "https://app.example.com.evil.example/chat",
            "https://evil.example/https://app.example.com/chat",
            "https://app.example.com@evil.example/chat",
            "https://user@app.example.com/chat",
            "https://user:pw@app.example.com/chat",
            "https://app.example.com/chat#fragment",
            "https://app.example.com/chat/../admin",
            "https://app.example.com/chat/%2e%2e/admin",
            "https://app.example.com/chat%2f..",
            "https://app.example.com/chat//evil",
            "https://app.example.com\\chat",
            "https:app.example.com/chat",
            " https://app.example.com/chat",
            "https://app.example.com/chat\n",
            "https://app.example.com/chat/\u{e9}",
        ] {
            assert!(check(&allowed, bad).is_err(), "{bad:?}");
        }
        assert!(check(&[], "https://app.example.com/chat").is_err(), "nothing is allowed by default");
    }
}
