//! A JWT taken apart (RFC 7519, RFC 7515 section 7.1). Nothing here is verified yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::Problem;
use crate::domain::secret::SecretString;

/// A longer token is refused unread. Those of Kubernetes have about 1,200 bytes, of identity providers up to 4,000.
const MAX_TOKEN_BYTES: usize = 8 * 1_024;
/// A longer key id is refused.
const MAX_KID_BYTES: usize = 512;

/// What the header says (RFC 7515 section 4.1). `jku`, `jwk`, `x5u` and `x5c` are not even read: a key comes from the
/// issuer's configured place and never from the token.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    pub(super) typ: Option<String>,
    /// Extensions that must be understood: there are none that the broker does.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// The claims that count (RFC 7519 section 4.1). One that comes twice makes the token unreadable.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) aud: Option<Audience>,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) iat: Option<f64>,
}

/// One or several (section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// Whether one of these is meant.
    pub(super) fn is_one_of(&self, ours: &[String]) -> bool {
        match self {
            Self::One(audience) => ours.contains(audience),
            Self::Several(audiences) => audiences.iter().any(|audience| ours.contains(audience)),
        }
    }
}

/// A token in its parts.
pub(super) struct Parts<'t> {
    pub(super) header: Header,
    pub(super) claims: Claims,
    /// What is signed: header and claims as they stand in the token.
    pub(super) message: &'t str,
    pub(super) signature: &'t str,
}

/// Takes it apart.
pub(super) fn read(token: &SecretString) -> Result<Parts<'_>, Problem> {
    let token = token.expose_secret();
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Problem::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Problem::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Problem::Malformed)?;
    if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
        return Err(Problem::Malformed);
    }
    let header: Header = part(header)?;
    if header.crit {
        return Err(Problem::Critical);
    }
    if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(Problem::Malformed);
    }
    Ok(Parts { header, claims: part(claims)?, message, signature })
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Problem::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Problem::Malformed)
}

/// Whatever its value.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}
