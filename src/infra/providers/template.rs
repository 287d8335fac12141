//! URLs with `{variables}`.

use std::collections::BTreeMap;

use url::Url;

use super::definition::{Variable, VariableKind};
use crate::domain::loopback::is_loopback;

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 2_048;
/// The longest value of a variable, in bytes: that of a host name.
const MAX_VALUE_BYTES: usize = 253;

/// A URL in which `{name}` stands for a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    text: String,
    variables: Vec<String>,
}

impl UrlTemplate {
    /// Reads a template. Its braces must match and be around names.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let mut variables = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if rest.as_bytes()[at] == b'}' {
                return Err("has a '}' without a '{'");
            }
            let Some(length) = rest[at..].find('}') else {
                return Err("has a '{' without a '}'");
            };
            let name = &rest[at + 1..at + length];
            if !is_variable_name(name) {
                return Err("has a variable whose name is not of a-z, 0-9 and '_' with a letter in front");
            }
            variables.push(name.to_owned());
            rest = &rest[at + length + 1..];
        }
        Ok(Self { text: text.to_owned(), variables })
    }

    /// The names in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(String::as_str)
    }

    /// Whether this variable is the beginning of the URL.
    pub(super) fn begins_with(&self, name: &str) -> bool {
        self.text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|r| r.starts_with('}'))
    }

    /// With the values put in. A name without a value stays as it is.
    pub(super) fn fill(&self, values: &BTreeMap<String, String>) -> String {
        self.variables.iter().fold(self.text.clone(), |text, name| match values.get(name) {
            Some(value) => text.replace(&format!("{{{name}}}"), value),
            None => text,
        })
    }
}

/// Whether a text may name a variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A URL that the broker may send secrets to: https, or http to loopback; no user information, no fragment.
pub(super) fn check_url(text: &str) -> Result<Url, &'static str> {
    if text.len() > MAX_URL_BYTES {
        return Err("must be at most 2048 bytes long");
    }
    // The parser would drop or encode some of these, and read a backslash as a slash.
    if text.bytes().any(|b| b <= b' ' || b == b'\\' || b == 0x7f) {
        return Err("must not contain white space, control characters or '\\'");
    }
    // `https:///host` would be read as `https://host`.
    if text.contains(":///") {
        return Err("must have a host");
    }
    let Ok(url) = Url::parse(text) else {
        return Err("must be a complete URL such as \"https://auth.example.com/token\"");
    };
    if url.host().is_none() {
        return Err("must have a host");
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        _ => return Err("must begin with https:// (http:// only for loopback)"),
    }
    if !url.username().is_empty() || url.password().is_some() || authority_has_at(text) {
        return Err("must not contain user information");
    }
    if url.fragment().is_some() {
        return Err("must not contain a fragment (RFC 6749 sections 3.1 and 3.2)");
    }
    Ok(url)
}

/// `https://@host` parses without a user name, and is as suspicious.
fn authority_has_at(text: &str) -> bool {
    let after = text.split_once("://").map_or(text, |(_, rest)| rest);
    after.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// An issuer: a URL without query (OpenID Connect Discovery section 3, RFC 8414 section 2).
pub(super) fn check_issuer(text: &str) -> Result<Url, &'static str> {
    let url = check_url(text)?;
    if url.query().is_some() {
        return Err("must not contain a query (RFC 8414 section 2)");
    }
    Ok(url)
}

/// Whether a value is of the variable's kind.
pub(super) fn check_value(kind: VariableKind, value: &str) -> Result<(), &'static str> {
    match kind {
        VariableKind::Label => {
            if is_dotted_name(value) {
                Ok(())
            } else {
                Err(
                    "must consist of letters, digits, '-', '_' and single '.', with a letter or digit at both ends",
                )
            }
        }
        VariableKind::Host => {
            let (name, port) = match value.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (value, None),
            };
            let port_ok =
                port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
            if is_dotted_name(name) && port_ok {
                Ok(())
            } else {
                Err("must be a host name, with a port if need be, such as \"gitlab.example.com\"")
            }
        }
        VariableKind::Url => check_issuer(value).map(|_| ()),
    }
}

fn is_dotted_name(value: &str) -> bool {
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    value.len() <= MAX_VALUE_BYTES
        && outer(value.chars().next())
        && outer(value.chars().next_back())
        && !value.contains("..")
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Values to check templates with before there are real ones.
pub(super) fn sample_values(variables: &BTreeMap<String, Variable>) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|(name, variable)| {
            let sample = match variable.kind {
                VariableKind::Label => "sample",
                VariableKind::Host => "sample.example",
                VariableKind::Url => "https://sample.example",
            };
            (name.clone(), sample.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_could_send_secrets_astray_are_refused() {
        for bad in [
            "",
            "auth.example.com/token",
            "ftp://example.com/",
            "http://example.com/",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "https://user@example.com/",
            "https://user:pw@example.com/",
            "https://@example.com/",
            "https://example.com/#x",
            "https://example.com/ x",
            "https://example.com\\@evil.example/",
            "https:///",
            "https:///example.com/",
            "https://exa\tmple.com/",
        ] {
            assert!(check_url(bad).is_err(), "{bad:?}");
        }
        for good in [
            "https://example.com/token",
            "https://example.com/token?api-version=1",
            "http://127.0.0.1:8080/token",
            "http://[::1]:8080/",
            "http://localhost/",
        ] {
            assert!(check_url(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn values_can_not_leave_their_place_in_the_url() {
        for bad in ["", "a/b", "a@b", "a?b", "a#b", "..", "a..b", ".a", "a.", "a b", "ä", "a:1", "{x}", "%2f"]
        {
            assert!(check_value(VariableKind::Label, bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a:b", "a:99999", "a:1:2", "a/b", "user@a", "a:", "a:+1"] {
            assert!(check_value(VariableKind::Host, bad).is_err(), "{bad:?}");
        }
        for good in ["acme", "common", "6babcaad-604b-40ac-a9d7-9fd97c0b779f", "acme.my"] {
            assert!(check_value(VariableKind::Label, good).is_ok(), "{good:?}");
        }
        assert!(check_value(VariableKind::Host, "gitlab.example.com:8443").is_ok());
        assert!(check_value(VariableKind::Url, "https://id.example.com/").is_ok());
        assert!(check_value(VariableKind::Url, "https://id.example.com/?x").is_err());
        assert!(check_value(VariableKind::Url, "http://id.example.com").is_err());
    }
}
