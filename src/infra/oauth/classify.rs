//! What a token answer means for the token that was presented: the table of the refresh protocol.
//!
//! | answer | failure |
//! |---|---|
//! | 2xx with an access token | none |
//! | 2xx or 4xx with `invalid_grant` | `InvalidGrant` |
//! | 2xx or 4xx with `invalid_client`, `unauthorized_client`; 401 without a code | `ClientRejected` |
//! | 429; `slow_down` | `RateLimited` |
//! | `server_error`, `temporarily_unavailable`; 5xx, 3xx, 408; an unreadable 2xx; of a refresh, too long a token | `Ambiguous` |
//! | any other code, any other 4xx | `Refused` |

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use super::response::{document, token_response};
use crate::domain::ports::ProviderFailure;
use crate::domain::provider::{Provider, ResponseRules};
use crate::domain::scope::ScopeSet;
use crate::domain::token_set::TokenResponse;
use crate::infra::outbound::Answer;

/// The longest time that a provider's `Retry-After` is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Reads the answer of a token endpoint about a grant that has had these scopes.
pub(super) fn token_answer(
    provider: &Provider,
    answer: &Answer,
    held: &ScopeSet,
    now: Timestamp,
) -> Result<TokenResponse, ProviderFailure> {
    if let Some(failure) = by_status(answer, now) {
        return Err(failure);
    }
    let document = document(answer);
    if !answer.status.is_success() {
        return Err(refusal(provider, answer, document.as_ref(), now));
    }
    // A success that can't be read may have rotated the refresh token.
    let document = document.ok_or(ProviderFailure::Ambiguous)?;
    let flag = success_flag(&provider.response, &document);
    if flag == Flag::Success
        && let Some(response) = token_response(provider, &document, held)
    {
        // An access token counts as success even beside an error: an exchange that succeeded is never thrown away.
        return Ok(response);
    }
    match (error_code(&provider.response, &document), flag) {
        (Some(code), _) => Err(by_code(&code, answer, now)),
        (None, Flag::Failure) => Err(ProviderFailure::Refused),
        (None, Flag::Success | Flag::Unclear) => Err(ProviderFailure::Ambiguous),
    }
}

/// What the status alone says, whatever the body.
pub(super) fn by_status(answer: &Answer, now: Timestamp) -> Option<ProviderFailure> {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => {
            Some(ProviderFailure::RateLimited { retry_after: retry_after(&answer.headers, now) })
        }
        StatusCode::REQUEST_TIMEOUT => Some(ProviderFailure::Ambiguous),
        // Redirects are not followed, and what the server did before it sent one is unknown.
        status if !status.is_success() && !status.is_client_error() => Some(ProviderFailure::Ambiguous),
        _ => None,
    }
}

/// A 4xx.
fn refusal(
    provider: &Provider,
    answer: &Answer,
    document: Option<&Value>,
    now: Timestamp,
) -> ProviderFailure {
    if let Some(code) = document.and_then(|document| error_code(&provider.response, document)) {
        return by_code(&code, answer, now);
    }
    // RFC 6749 section 5.2 has 401 for failed client authentication only. If the body was lost on the way, it may have
    // held another code.
    if answer.status == StatusCode::UNAUTHORIZED && answer.body.is_some() {
        ProviderFailure::ClientRejected
    } else {
        ProviderFailure::Refused
    }
}

/// What a standard error code says.
pub(super) fn by_code(code: &str, answer: &Answer, now: Timestamp) -> ProviderFailure {
    match code {
        "invalid_grant" => ProviderFailure::InvalidGrant,
        "invalid_client" | "unauthorized_client" => ProviderFailure::ClientRejected,
        "slow_down" => ProviderFailure::RateLimited { retry_after: retry_after(&answer.headers, now) },
        "server_error" | "temporarily_unavailable" => ProviderFailure::Ambiguous,
        _ => ProviderFailure::Refused,
    }
}

/// Whether the answer calls itself a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    /// It does, or this provider has no flag.
    Success,
    /// It says that it is none.
    Failure,
    /// The flag is missing, or no truth value.
    Unclear,
}

/// The provider's own flag, such as Slack's `ok`.
pub(super) fn success_flag(rules: &ResponseRules, document: &Value) -> Flag {
    match rules.success_flag.as_ref().map(|pointer| document.pointer(pointer)) {
        None | Some(Some(Value::Bool(true))) => Flag::Success,
        Some(Some(Value::Bool(false))) => Flag::Failure,
        Some(_) => Flag::Unclear,
    }
}

/// The error code in standard words; `None` if there is none.
pub(super) fn error_code(rules: &ResponseRules, document: &Value) -> Option<String> {
    let word = match document.pointer(&rules.error)? {
        Value::String(word) if !word.is_empty() => word.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(rules.error_aliases.get(&word).cloned().unwrap_or(word))
}

/// RFC 9110 section 10.2.3: seconds, or a date. At most a day; `None` if it is neither.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(read("120"), seconds(120));
        assert_eq!(read(" 0 "), seconds(0));
        assert_eq!(read("86401"), seconds(86_400));
        assert_eq!(read("99999999999999999999999"), seconds(86_400));
        assert_eq!(read("Thu, 01 Jan 2026 00:01:30 GMT"), seconds(90));
        assert_eq!(read("Wed, 31 Dec 2025 23:00:00 GMT"), seconds(0));
        assert_eq!(read("Fri, 01 Jan 2027 00:00:00 GMT"), seconds(86_400));
        for bad in ["", "soon", "-5", "1.5", "Thu, 32 Jan 2026 00:00:00 GMT"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
