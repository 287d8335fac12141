//! Who calls: one `authorization: Bearer tb_…` metadata entry, and nothing else anywhere.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::domain::access_policy::Identity;
use crate::domain::secret::SecretString;

/// What the call presents, or `None` for whatever reason: no entry, several, another scheme, a malformed key. Callers learn
/// only that they are not known, so that a key can't be guessed in parts.
pub(super) fn identity(headers: &HeaderMap) -> Option<Identity> {
    let mut entries = headers.get_all(AUTHORIZATION).iter();
    // Of two entries, a proxy in between might have checked the other one.
    let (Some(entry), None) = (entries.next(), entries.next()) else { return None };
    let (scheme, key) = entry.to_str().ok()?.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| SecretString::from(key)).and_then(|key| Identity::of_api_key(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const KEY: &str = "tb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn presented(entries: &[&[u8]]) -> Option<Identity> {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(entry).unwrap());
        }
        identity(&headers)
    }

    #[test]
    fn one_well_formed_bearer_entry_is_taken() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(
                presented(&[format!("{scheme} {KEY}").as_bytes()]),
                Identity::of_api_key(&SecretString::from(KEY))
            );
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
