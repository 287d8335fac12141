//! What a call presents:
//!
//! - `authorization: Bearer …` with an API key (`tb_…`) or a JWT names the caller;
//! - a client certificate names the caller of a call without that entry. With both, the entry counts, and a certificate that
//!   is another caller's makes the call nobody's: who mixes up two identities should hear of it, and not act as either;
//! - `tokenbroker-user-token` holds the JWT of the user whom the call is for.
//!
//! Nothing else anywhere. What is presented and no good is never passed over for something else that is.

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::domain::access_policy::{API_KEY_PREFIX, Identity};
use crate::domain::secret::SecretString;

/// The metadata entry with a user's token.
const USER_TOKEN: HeaderName = HeaderName::from_static("tokenbroker-user-token");

/// What the `authorization` entry holds.
pub(super) enum Authorization {
    /// There is none.
    Absent,
    /// An API key, as its hash.
    Key(Identity),
    /// Something that may be a JWT.
    Token(SecretString),
    /// Several entries, another scheme, a malformed key.
    Useless,
}

/// Reads it. Callers learn only that they are not known, so that a key can't be guessed in parts.
pub(super) fn authorization(headers: &HeaderMap) -> Authorization {
    let entry = match only(headers, &AUTHORIZATION) {
        Entry::Absent => return Authorization::Absent,
        Entry::One(entry) => entry,
        Entry::Several => return Authorization::Useless,
    };
    let Some((scheme, value)) = entry.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Authorization::Useless;
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Authorization::Useless;
    }
    let value = SecretString::from(value);
    if value.expose_secret().starts_with(API_KEY_PREFIX) {
        Identity::of_api_key(&value).map_or(Authorization::Useless, Authorization::Key)
    } else if value.expose_secret().contains('.') {
        Authorization::Token(value)
    } else {
        Authorization::Useless
    }
}

/// What the user's entry holds.
pub(super) enum UserEntry {
    /// There is none.
    Absent,
    /// Something that may be a JWT.
    Token(SecretString),
    /// Several entries, or one that is no text.
    Useless,
}

/// Reads it.
pub(super) fn user_token(headers: &HeaderMap) -> UserEntry {
    match only(headers, &USER_TOKEN) {
        Entry::Absent => UserEntry::Absent,
        Entry::One(entry) => match entry.to_str() {
            Ok(text) => UserEntry::Token(SecretString::from(text)),
            Err(_) => UserEntry::Useless,
        },
        Entry::Several => UserEntry::Useless,
    }
}

enum Entry<'h> {
    Absent,
    One(&'h HeaderValue),
    /// A proxy in between might have checked the other one.
    Several,
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Entry<'h> {
    let mut entries = headers.get_all(name).iter();
    match (entries.next(), entries.next()) {
        (None, _) => Entry::Absent,
        (Some(entry), None) => Entry::One(entry),
        (Some(_), Some(_)) => Entry::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "tb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn presented(entries: &[&[u8]]) -> Authorization {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(entry).unwrap());
        }
        authorization(&headers)
    }

    #[test]
    fn one_well_formed_bearer_entry_is_taken() {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let Authorization::Key(identity) = presented(&[format!("{scheme} {KEY}").as_bytes()]) else {
                panic!("{scheme}")
            };
            assert_eq!(Some(identity), Identity::of_api_key(&SecretString::from(KEY)));
            let token = presented(&[format!("{scheme} a.b.c").as_bytes()]);
            assert!(matches!(token, Authorization::Token(token) if token.expose_secret() == "a.b.c"));
        }
        assert!(matches!(presented(&[]), Authorization::Absent));
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
            "Basic a.b.c".to_owned(),
            "Bearer tb_a.b.c".to_owned(),
        ];
        for entry in &single {
            assert!(matches!(presented(&[entry.as_bytes()]), Authorization::Useless), "{entry:?}");
        }
        let several: &[&[&[u8]]] = &[
            &[b"Bearer \xff\xfe"],
            &[good.as_bytes(), good.as_bytes()],
            &[good.as_bytes(), b"Bearer x"],
            &[b"Bearer a.b.c", b"Bearer a.b.c"],
        ];
        for entries in several {
            assert!(matches!(presented(entries), Authorization::Useless), "{entries:?}");
        }
    }

    #[test]
    fn a_users_token_is_one_entry() {
        let read = |entries: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for entry in entries {
                headers.append(USER_TOKEN, HeaderValue::from_bytes(entry).unwrap());
            }
            user_token(&headers)
        };
        assert!(matches!(read(&[]), UserEntry::Absent));
        assert!(matches!(read(&[b"a.b.c"]), UserEntry::Token(_)));
        // Also what is empty was presented.
        assert!(matches!(read(&[b""]), UserEntry::Token(_)));
        assert!(matches!(read(&[b"a.b.c", b"a.b.c"]), UserEntry::Useless));
        assert!(matches!(read(&[b"\xff"]), UserEntry::Useless));
    }
}
