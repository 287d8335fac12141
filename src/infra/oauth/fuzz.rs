//! The readers of what providers send, for `fuzz/`.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{classify, discovery, identity, response};
use crate::domain::flow::RecordedEndpoints;
use crate::domain::provider::Provider;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;
use crate::domain::token_set::{MAX_EXTRA_VALUE_BYTES, MAX_GRANTED_SCOPES, MAX_LIFETIME};
use crate::infra::outbound::{Answer, Guard, Reach, is_allowed};

/// The issuer of the documents in the corpus.
const ISSUER: &str = "https://issuer.example";

/// Status, content type and body as the first byte says, to a provider's rules.
pub(crate) fn token_answer(provider: &Provider, data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let status = [200, 400, 401, 403, 429, 500, 302, 503][usize::from(kind & 7)];
    let mut headers = HeaderMap::new();
    if kind & 8 != 0 {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, form);
    }
    if let Some(Ok(value)) = body.split(|byte| *byte == b'\n').next().map(HeaderValue::from_bytes) {
        headers.insert(header::RETRY_AFTER, value);
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let answer = Answer { status, headers, body: Some(Zeroizing::new(body.to_vec())) };
    if let Ok(answer) = classify::token_answer(provider, &answer, &ScopeSet::default(), Timestamp::UNIX_EPOCH)
    {
        assert!(!answer.access_token.is_empty(), "a success has a token");
        assert!(answer.expires_in.is_none_or(|life| life <= MAX_LIFETIME), "lifetimes are bounded");
        assert!(
            answer.scopes.is_none_or(|scopes| scopes.iter().count() <= MAX_GRANTED_SCOPES),
            "so are scopes"
        );
        assert!(
            answer.extra.values().all(|value| value.len() <= MAX_EXTRA_VALUE_BYTES),
            "and further values"
        );
        assert!(answer.token_type.bytes().all(|byte| byte.is_ascii_graphic()), "a token type fits a header");
    }
}

/// An issuer's metadata: whatever it says, it does not lead into this network.
pub(crate) fn metadata(data: &[u8]) {
    static AT: LazyLock<Option<Url>> = LazyLock::new(|| Url::parse(ISSUER).ok());
    let (Some(issuer), Ok(metadata)) = (AT.as_ref(), serde_json::from_slice::<Value>(data)) else { return };
    let guard = Guard::default();
    let admits = |url: &Url| {
        is_allowed(url) && guard.admits_url(url, Reach::by_origin(std::slice::from_ref(issuer), url))
    };
    let Ok(found) = discovery::read(ISSUER, &metadata, admits) else { return };
    for endpoints in [&found.usual, &found.by_certificate] {
        let all = [Some(&endpoints.authorization), Some(&endpoints.token)];
        let rest = [endpoints.revocation.as_ref(), endpoints.userinfo.as_ref()];
        for url in all.into_iter().chain(rest).flatten() {
            assert_eq!(url.scheme(), "https", "secrets go by TLS");
            assert!(
                !matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")),
                "not to this machine"
            );
        }
    }
}

/// An ID token. It passes only with the issuer, the client and the nonce of the flow.
pub(crate) fn id_token(provider: &Provider, endpoints: &RecordedEndpoints, data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let document = serde_json::json!({ "access_token": "at" });
    let Some(mut answer) = response::token_response(provider, &document, &ScopeSet::default()) else {
        return;
    };
    answer.id_token = Some(SecretString::from(token));
    let nonce = SecretString::from("the-nonce");
    if let Ok(account) = identity::told(provider, endpoints, &answer, &nonce, Timestamp::UNIX_EPOCH) {
        assert!(account.subject.is_some_and(|subject| response::is_subject(&subject)), "it says who");
    }
}
