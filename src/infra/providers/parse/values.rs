//! What several sections have in common: durations, pointers, scopes, parameters.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::reader::{At, Report, Section};
use crate::domain::scope::{Scope, ScopeSet};

/// `90s`, `10m`, `12h`, `30d`.
pub(super) fn duration(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
) -> Option<At<Duration>> {
    let text = section.text(report, key)?;
    let value = report.make(&text, |text| parse_duration(text))?;
    Some(At { value, span: text.span, path: text.path })
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "must be a whole number with s, m, h or d, such as \"90s\" or \"30d\"";
    let Some((number, unit)) = text.split_at_checked(text.len().saturating_sub(1)) else { return Err(FORM) };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(FORM),
    };
    // `parse` alone would take a sign.
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    let number: u32 = number.parse().map_err(|_| "is too long")?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// A JSON pointer (RFC 6901) to a value inside the answer.
pub(super) fn pointer(report: &mut Report<'_>, text: &At<String>) -> Option<String> {
    let mut escapes = text.value.match_indices('~');
    let escapes_ok = escapes.all(|(at, _)| matches!(text.value.as_bytes().get(at + 1), Some(b'0' | b'1')));
    if text.value.starts_with('/') && escapes_ok {
        return Some(text.value.clone());
    }
    report.at(text, "must be a JSON pointer such as \"/access_token\" (RFC 6901)");
    None
}

/// One pointer or several; without any, the default.
pub(super) fn pointers(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: &[&str],
) -> Vec<String> {
    if !section.has(key) {
        return default.iter().map(|&pointer| pointer.to_owned()).collect();
    }
    let texts = section.text_or_texts(report, key).unwrap_or_default();
    texts.iter().filter_map(|text| pointer(report, text)).collect()
}

/// A scope token.
pub(super) fn scope(report: &mut Report<'_>, text: &At<String>) -> Option<Scope> {
    report.make(text, |text| Scope::new(text.as_str()))
}

/// A set of scope tokens.
pub(super) fn scopes(report: &mut Report<'_>, texts: &[At<String>]) -> ScopeSet {
    texts.iter().filter_map(|text| scope(report, text)).collect()
}

/// Request parameters; the protocol's own are refused.
pub(super) fn params(
    report: &mut Report<'_>,
    section: &mut Section<'_, '_>,
    key: &'static str,
    reserved: &[&str],
) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    for (name, value) in section.text_map(report, key) {
        match name.value.as_str() {
            "response_type" | "grant_type" | "username" | "password" => report.at(
                &name,
                "only the authorization code grant is used; implicit and password grants are refused \
                 (RFC 9700 sections 2.1.2 and 2.4)",
            ),
            "response_mode" => report.at(&name, "can't be changed: the callback reads the query only"),
            word if reserved.contains(&word) => {
                report.at(&name, "is set by the broker and can't be fixed here");
            }
            "" => report.at(&name, "must have a name"),
            _ => {
                params.insert(name.value, value.value);
            }
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_hours(720)));
        for bad in ["", "s", "10", "+1s", "1.5h", "1 h", "10 minutes", "1é", "99999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
