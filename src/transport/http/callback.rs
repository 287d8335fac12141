//! Reads what the browser brings from a provider. Nothing of it is trusted, and nothing of it is shown or logged: the
//! query string holds a code and a state.

use url::form_urlencoded;

use crate::application::types::AuthorizationAnswer;
use crate::domain::key::{ConfigId, ProviderId};
use crate::domain::secret::SecretString;

/// The path up to the provider's id.
pub(super) const PATH_PREFIX: &str = "/oauth/callback/";
/// The longest query string, in bytes. Codes of Microsoft reach two thousand.
const MAX_QUERY_BYTES: usize = 8 * 1024;

/// The parameters, or `None` if no provider would redirect so.
///
/// A parameter that comes twice is refused (RFC 6749 section 3.1): of two states, somebody added one. Empty ones count as
/// absent (same section). Parameters that the broker does not know are skipped (section 4.1.2), so a provider may send
/// `scope` or `session_state` or whatever comes next; `error_description` is one of them on purpose.
pub(crate) fn read(
    path: &str,
    query: Option<&str>,
) -> Option<(String, Option<ConfigId>, AuthorizationAnswer)> {
    let rest = path.strip_prefix(PATH_PREFIX)?;
    let (provider, configuration) = match rest.split_once('/') {
        None => (rest, None),
        Some((provider, id)) => (provider, Some(configuration(id)?)),
    };
    // A slug needs no percent-decoding, so what does is none.
    ProviderId::new(provider).ok()?;
    Some((provider.to_owned(), configuration, answer(query)?))
}

/// In the one form in which redirect URIs have it.
fn configuration(text: &str) -> Option<ConfigId> {
    ConfigId::parse(text).filter(|id| id.to_string() == text)
}

/// What an authorization endpoint sends, by the same rules.
pub(super) fn answer(query: Option<&str>) -> Option<AuthorizationAnswer> {
    let query = query.unwrap_or_default();
    if query.len() > MAX_QUERY_BYTES {
        return None;
    }
    let (mut state, mut code, mut error, mut iss) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let slot = match name.as_ref() {
            "state" => &mut state,
            "code" => &mut code,
            "error" => &mut error,
            "iss" => &mut iss,
            _ => continue,
        };
        if slot.is_some() || !is_text(&value) {
            return None;
        }
        *slot = Some(value.into_owned());
    }
    let given = |value: Option<String>| value.filter(|v| !v.is_empty());
    Some(AuthorizationAnswer {
        state: given(state).map(SecretString::new),
        code: given(code).map(SecretString::new),
        error: given(error),
        iss: given(iss),
    })
}

/// Neither a control character nor U+FFFD, which stands for bytes that are not UTF-8.
fn is_text(value: &str) -> bool {
    !value.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(query: &str) -> Option<[Option<String>; 4]> {
        let (_, _, input) = read("/oauth/callback/google", Some(query))?;
        let open = |secret: Option<SecretString>| secret.map(|s| s.expose_secret().to_owned());
        Some([open(input.state), open(input.code), input.error, input.iss])
    }

    #[test]
    fn the_known_parameters_are_read() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parts("state=s%2B1&code=4%2F0A&scope=a+b&iss=https%3A%2F%2Fidp.example&authuser=0"),
            Some([some("s+1"), some("4/0A"), None, some("https://idp.example")])
        );
        assert_eq!(
            parts("error=access_denied&error_description=%3Cscript%3E&state=s"),
            Some([some("s"), None, some("access_denied"), None])
        );
        assert_eq!(parts(""), Some([None, None, None, None]));
        assert_eq!(parts("state=&code="), Some([None, None, None, None]));
        assert_eq!(parts("scope=a&scope=b&state=s"), Some([some("s"), None, None, None]));
    }

    #[test]
    fn what_no_provider_sends_is_refused() {
        let long = format!("state=s&code={}", "x".repeat(MAX_QUERY_BYTES));
        for bad in [
            "state=a&state=a",
            "state=a&state=",
            "code=a&state=s&code=b",
            "error=a&error=b",
            "iss=a&iss=b",
            "state=a%00b",
            "code=%0d%0a",
            "state=%ff%fe",
            "code=%c3%28",
            "error=%1b[2J",
            &long,
        ] {
            assert_eq!(parts(bad), None, "{bad:.60}");
        }
    }

    #[test]
    fn the_provider_is_a_slug() {
        for bad in ["", "a/b", "..%2f", "%67oogle", "Google", "a%00", "<script>", &"a".repeat(65)] {
            assert!(read(&format!("{PATH_PREFIX}{bad}"), Some("state=s")).is_none(), "{bad}");
        }
        assert!(read(&format!("{PATH_PREFIX}github-app.2"), None).is_some());
    }

    #[test]
    fn a_tenants_own_app_has_its_id_in_the_path() {
        let id = "0190f0a8-0000-4000-8000-00000000002a";
        let (provider, configuration, _) = read(&format!("{PATH_PREFIX}google/{id}"), None).unwrap();
        assert_eq!((provider.as_str(), configuration.unwrap().to_string().as_str()), ("google", id));
        assert_eq!(read(&format!("{PATH_PREFIX}{id}"), None).unwrap().1, None);
        for bad in [
            "google/",
            "google//",
            "/0190f0a8-0000-4000-8000-00000000002a",
            "google/0190f0a8-0000-4000-8000-00000000002a/",
            "google/0190F0A8-0000-4000-8000-00000000002A",
            "google/0190f0a8000040008000000000000000002a",
            "google/{0190f0a8-0000-4000-8000-0000000000}",
            "google/%30190f0a8-0000-4000-8000-0000000002",
            "0190f0a8-0000-4000-8000-00000000002a/google",
        ] {
            assert!(read(&format!("{PATH_PREFIX}{bad}"), Some("state=s")).is_none(), "{bad}");
        }
    }
}
