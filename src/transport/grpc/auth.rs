//! Who calls: one `authorization: Bearer tb_…` metadata entry, and nothing else anywhere.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::domain::access_policy::Caller;
use crate::domain::ports::CallerDirectory;
use crate::domain::secret::SecretString;

/// What every key begins with, so that secret scanners find keys in the wrong places.
const KEY_PREFIX: &str = "tb_";
/// The prefix and 256 bits in base64url.
const KEY_BYTES: usize = 46;

/// The caller, or `None` for whatever reason: no entry, several, another scheme, a malformed key, an unknown key. Callers
/// learn only that they are not known, so that a key can't be guessed in parts.
pub(super) fn caller(headers: &HeaderMap, callers: &dyn CallerDirectory) -> Option<Arc<Caller>> {
    callers.authenticate(&presented_key(headers)?)
}

fn presented_key(headers: &HeaderMap) -> Option<SecretString> {
    let mut entries = headers.get_all(AUTHORIZATION).iter();
    // Of two entries, a proxy in between might have checked the other one.
    let (Some(entry), None) = (entries.next(), entries.next()) else { return None };
    let (scheme, key) = entry.to_str().ok()?.split_once(' ')?;
    let well_formed = scheme.eq_ignore_ascii_case("bearer")
        && key.len() == KEY_BYTES
        && key.starts_with(KEY_PREFIX)
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    well_formed.then(|| SecretString::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const KEY: &str = "tb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn presented(entries: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(entry).unwrap());
        }
        presented_key(&headers).map(|key| key.expose_secret().to_owned())
    }

    #[test]
    fn one_well_formed_bearer_entry_is_taken() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(presented(&[format!("{scheme} {KEY}").as_bytes()]).as_deref(), Some(KEY));
        }
    }

    #[test]
    fn everything_else_is_nobody() {
        let good = format!("Bearer {KEY}");
        let single = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            "Bearer tb_".to_owned(),
            "Bearer tb_short".to_owned(),
            KEY.to_owned(),
            format!("Basic {KEY}"),
            format!("Bearer  {KEY}"),
            format!("Bearer\t{KEY}"),
            format!("Bearer {KEY} "),
            format!("Bearer {KEY}A"),
            format!("Bearer {}", &KEY[..45]),
            format!("Bearer TB_{}", &KEY[3..]),
            format!("Bearer {}=", &KEY[..45]),
            format!("Bearer {KEY},Bearer {KEY}"),
            format!("Bearer {}\u{e9}", &KEY[..44]),
        ];
        for entry in &single {
            assert_eq!(presented(&[entry.as_bytes()]), None, "{entry:?}");
        }
        let several: &[&[&[u8]]] = &[
            &[],
            &[b"Bearer \xff\xfe"],
            &[good.as_bytes(), good.as_bytes()],
            &[good.as_bytes(), b"Bearer x"],
        ];
        for entries in several {
            assert_eq!(presented(entries), None, "{entries:?}");
        }
    }
}
