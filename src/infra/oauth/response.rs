//! Where the values of an answer stand. Real servers disagree about nearly all of RFC 6749 section 5.1.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::domain::key::MAX_TEXT_BYTES;
use crate::domain::provider::{AccountPointers, Provider, ResponseRules};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::secret::SecretString;
use crate::domain::token_set::{
    Excess, MAX_EXTRA_VALUE_BYTES, MAX_GRANTED_SCOPE_BYTES, MAX_GRANTED_SCOPES, MAX_LIFETIME,
    MAX_TOKEN_BYTES, MAX_TOKEN_TYPE_BYTES, ProviderAccount, TokenResponse,
};
use crate::infra::outbound::Answer;

/// The answer's body as JSON. A form, as GitHub sends to those who do not ask for JSON, becomes an object of strings; the
/// content type is believed only where it says "form", since JSON comes under many names. `None`: unreadable.
pub(super) fn document(answer: &Answer) -> Option<Value> {
    let body = answer.body.as_ref()?;
    let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if content_type.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        let text = std::str::from_utf8(body).ok()?;
        let pairs = form_urlencoded::parse(text.as_bytes()).into_owned();
        return Some(Value::Object(pairs.map(|(n, v)| (n, Value::String(v))).collect::<Map<_, _>>()));
    }
    // Nesting beyond 128 levels is an error of the parser, so a hostile document does not use up the stack.
    serde_json::from_slice(body).ok()
}

/// A success, if the document has an access token. Its values are within their limits, but for tokens, which can't be cut. `held`:
/// the scopes that the grant has had.
pub(super) fn token_response(
    provider: &Provider,
    document: &Value,
    held: &ScopeSet,
) -> Option<TokenResponse> {
    let rules = &provider.response;
    let access_token = secret(document, &rules.access_token)?;
    let refresh_token = secret(document, &rules.refresh_token);
    let (scopes, more_scopes) = scopes(first(document, &rules.scope), rules, held);
    let (extra, longer_extra) = extra(document, &rules.extra);
    let account = provider.identity.token_response.as_ref();
    let too_long = |token: &SecretString| token.expose_secret().len() > MAX_TOKEN_BYTES;
    let excess = if too_long(&access_token) || refresh_token.as_ref().is_some_and(too_long) {
        Some(Excess::Token)
    } else {
        (more_scopes || longer_extra).then_some(Excess::Values)
    };
    Some(TokenResponse {
        access_token,
        refresh_token,
        token_type: token_type(document),
        expires_in: lifetime(first(document, &rules.expires_in), rules),
        scopes,
        id_token: secret(document, &["/id_token"]),
        extra,
        account: account.map(|pointers| read_account(document, pointers)).unwrap_or_default(),
        excess,
    })
}

/// The first pointer that leads to a value.
fn first<'a>(document: &'a Value, pointers: &[impl AsRef<str>]) -> Option<&'a Value> {
    pointers.iter().filter_map(|pointer| document.pointer(pointer.as_ref())).find(|value| !value.is_null())
}

/// The first text that is not empty. Some servers send `"refresh_token": ""` for "none".
fn secret(document: &Value, pointers: &[impl AsRef<str>]) -> Option<SecretString> {
    let texts = pointers.iter().filter_map(|pointer| document.pointer(pointer.as_ref())?.as_str());
    texts.filter(|text| !text.is_empty()).map(SecretString::from).next()
}

/// RFC 6749 section 5.1: case-insensitive, so the usual one is given in the form that all APIs take.
fn token_type(document: &Value) -> String {
    match document.get("token_type").and_then(Value::as_str) {
        Some(kind)
            if !kind.is_empty()
                && kind.len() <= MAX_TOKEN_TYPE_BYTES
                && kind.bytes().all(|b| b.is_ascii_graphic())
                && !kind.eq_ignore_ascii_case("bearer") =>
        {
            kind.to_owned()
        }
        _ => "Bearer".to_owned(),
    }
}

/// The lifetime: a number or a string of one, whole or not. Zero and below: it has ended. Absent or no number: the
/// provider's default. At most [`MAX_LIFETIME`].
fn lifetime(value: Option<&Value>, rules: &ResponseRules) -> Option<Duration> {
    let number = value.and_then(|value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    });
    let given = number.map(|number| {
        // Exact for whole numbers below 2^53, which is far above the largest lifetime.
        #[expect(clippy::cast_precision_loss, reason = "a unit is 1 or 1,000")]
        let seconds = number.max(0.0) * rules.expires_in_unit_ms as f64 / 1_000.0;
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_LIFETIME)
    });
    given.or(rules.default_lifetime).map(|life| life.min(MAX_LIFETIME))
}

/// The granted scopes: a text with separators, or an array of texts. What is no scope is left out. Absent is not the same
/// as empty: RFC 6749 section 5.1 lets a server leave out what was granted as asked. Of more than the limits allow those that
/// the grant had before stay, then the first in order, whatever the order of the answer; the second value tells.
fn scopes(value: Option<&Value>, rules: &ResponseRules, held: &ScopeSet) -> (Option<ScopeSet>, bool) {
    let is_separator = |c: char| rules.scope_separators.contains(c);
    let texts = match value {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return (None, false);
        }
    };
    let parts = texts.into_iter().flat_map(|text| text.split(is_separator));
    let all: ScopeSet = parts.filter_map(|part| Scope::new(part.trim()).ok()).collect();
    let (had, new): (Vec<_>, Vec<_>) =
        all.iter().partition(|&scope| held.contains(rules.scope_aliases.get(scope).unwrap_or(scope)));
    let mut bytes = 0;
    let within = |scope: &&Scope| {
        bytes += scope.as_str().len();
        bytes <= MAX_GRANTED_SCOPE_BYTES
    };
    let kept: ScopeSet =
        had.into_iter().chain(new).take(MAX_GRANTED_SCOPES).take_while(within).cloned().collect();
    let more = kept != all;
    (Some(kept), more)
}

/// A text, or a number or truth value as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The further values. Half a value would be another one, so one that is too long is left out; the second value tells.
fn extra(document: &Value, pointers: &BTreeMap<String, String>) -> (BTreeMap<String, String>, bool) {
    let read = |(name, pointer): (&String, &String)| Some((name.clone(), text(document.pointer(pointer)?)?));
    let mut values: BTreeMap<String, String> = pointers.iter().filter_map(read).collect();
    let all = values.len();
    values.retain(|_, value| value.len() <= MAX_EXTRA_VALUE_BYTES);
    let longer = values.len() < all;
    (values, longer)
}

/// The account that a document tells.
pub(super) fn read_account(document: &Value, pointers: &AccountPointers) -> ProviderAccount {
    let at = |pointer: &String| document.pointer(pointer).and_then(text).filter(|found| !found.is_empty());
    ProviderAccount {
        subject: at(&pointers.subject).filter(|subject| is_subject(subject)),
        label: pointers.label.iter().find_map(|pointer| label(&at(pointer)?)),
    }
}

/// Whether a text can be the identifier of an account. OpenID Connect Core section 2 has at most 255 characters; what is
/// longer than any field of a request is not stored and sent with every list.
pub(super) fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT_BYTES
}

/// A name for people: on one line, and not too long for it. `None` if nothing is left.
pub(super) fn label(text: &str) -> Option<String> {
    let mut label: String = text.chars().filter(|c| !c.is_control()).collect();
    label.truncate(label.floor_char_boundary(MAX_TEXT_BYTES));
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(unit: u64, default: Option<Duration>) -> ResponseRules {
        ResponseRules {
            access_token: vec!["/access_token".to_owned()],
            refresh_token: vec!["/refresh_token".to_owned()],
            expires_in: vec!["/expires_in".to_owned()],
            scope: vec!["/scope".to_owned()],
            scope_separators: " ".to_owned(),
            expires_in_unit_ms: unit,
            default_lifetime: default,
            success_flag: None,
            error: "/error".to_owned(),
            extra: BTreeMap::new(),
            error_aliases: BTreeMap::new(),
            scope_aliases: BTreeMap::new(),
            scope_implies: BTreeMap::new(),
            scopes_never_listed: ScopeSet::default(),
        }
    }

    #[test]
    fn lifetimes_of_all_kinds() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let day = Some(Duration::from_hours(24));
        for (given, unit, default, expected) in [
            ("3600", 1_000, None, Some(Duration::from_hours(1))),
            ("\"3600\"", 1_000, None, Some(Duration::from_hours(1))),
            ("\" 3600 \"", 1_000, None, Some(Duration::from_hours(1))),
            ("3600000", 1, None, Some(Duration::from_hours(1))),
            ("1799.5", 1_000, None, Some(Duration::from_millis(1_799_500))),
            ("\"1799.5\"", 1_000, None, Some(Duration::from_millis(1_799_500))),
            ("0", 1_000, day, Some(Duration::ZERO)),
            ("\"0\"", 1_000, day, Some(Duration::ZERO)),
            ("-1", 1_000, day, Some(Duration::ZERO)),
            ("9223372036854775807", 1_000, None, Some(MAX_LIFETIME)),
            ("18446744073709551616", 1_000, None, Some(MAX_LIFETIME)),
            ("1e300", 1_000, None, Some(MAX_LIFETIME)),
            ("\"99999999999999999999\"", 1, None, Some(MAX_LIFETIME)),
            ("null", 1_000, None, None),
            ("null", 1_000, day, day),
            ("\"\"", 1_000, day, day),
            ("\"soon\"", 1_000, day, day),
            ("\"NaN\"", 1_000, day, day),
            ("\"inf\"", 1_000, None, None),
            ("true", 1_000, day, day),
            ("[3600]", 1_000, day, day),
            ("{}", 1_000, day, day),
        ] {
            assert_eq!(lifetime(Some(&json(given)), &rules(unit, default)), expected, "{given} x {unit} ms");
        }
        assert_eq!(lifetime(None, &rules(1_000, day)), day);
        assert_eq!(lifetime(None, &rules(1_000, None)), None);
    }

    #[test]
    fn an_account_fits_its_fields() {
        let pointers = AccountPointers {
            subject: "/id".to_owned(),
            label: vec!["/email".to_owned(), "/name".to_owned()],
        };
        let read = |document: Value| read_account(&document, &pointers);
        let long = "é".repeat(200);
        let account = read(serde_json::json!({ "id": "x".repeat(257), "email": "\n\r\u{85}", "name": long }));
        assert_eq!(account.subject, None);
        assert_eq!(account.label.as_deref(), Some(&*"é".repeat(128)));
        let account = read(serde_json::json!({ "id": 42, "email": "alice\n\u{1b}[2J@example.com" }));
        assert_eq!(account.subject.as_deref(), Some("42"));
        assert_eq!(account.label.as_deref(), Some("alice[2J@example.com"));
    }

    proptest! {
        #[test]
        fn no_number_breaks_a_lifetime(number in any::<f64>(), whole in any::<i64>()) {
            for text in [number.to_string(), whole.to_string()] {
                let life = lifetime(Some(&Value::String(text)), &rules(1_000, None));
                prop_assert!(life.is_none_or(|life| life <= MAX_LIFETIME));
            }
        }

        #[test]
        fn no_bytes_break_the_reader(body in proptest::collection::vec(any::<u8>(), 0..256), form in any::<bool>()) {
            let mut headers = http::HeaderMap::new();
            if form {
                let kind = http::HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(header::CONTENT_TYPE, kind);
            }
            let _ = document(&Answer { status: http::StatusCode::OK, headers, body: Some(body.into()) });
        }
    }
}
