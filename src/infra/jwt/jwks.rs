//! The keys of an issuer: a JWK Set (RFC 7517 section 5), or a SPIFFE bundle, which is one with keys of two kinds (SPIFFE
//! Trust Domain and Bundle section 4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::Issuer;
use crate::domain::jwt::SigningAlgorithm;

/// More keys than this are not looked at.
const MAX_KEYS: usize = 100;
/// Shorter RSA keys are broken in practice, and longer ones take too long to verify with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// Which keys of a set are for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uses {
    /// Those without `use`, or with `sig`.
    Signatures,
    /// Those with `jwt-svid`: the others of a bundle verify certificates.
    JwtSvids,
}

impl Uses {
    /// What a key has to say of itself to be one for tokens.
    pub(super) fn of(who: &Issuer) -> Self {
        match who {
            Issuer::Named { .. } => Self::Signatures,
            Issuer::TrustDomain(_) => Self::JwtSvids,
        }
    }
}

/// A key that tokens can be verified with.
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<SigningAlgorithm>,
    pub(super) material: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a set that are for tokens. Others are left out, as are those that can't be read (RFC 7517 section 5). `None`:
/// it is no set.
pub(super) fn parse(json: &[u8], uses: Uses) -> Option<Vec<Key>> {
    let document: Document = serde_json::from_slice(json).ok()?;
    let keys = document.keys.into_iter().take(MAX_KEYS);
    Some(keys.filter_map(|key| usable(serde_json::from_value(key).ok()?, uses)).collect())
}

fn usable(jwk: Jwk, uses: Uses) -> Option<Key> {
    let wanted = match uses {
        Uses::Signatures => matches!(jwk.purpose.as_deref(), None | Some("sig")),
        Uses::JwtSvids => jwk.purpose.as_deref() == Some("jwt-svid") && jwk.kid.is_some(),
    };
    let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !wanted || !verifies {
        return None;
    }
    let (mut algorithms, material) = material(&jwk)?;
    if let Some(name) = &jwk.alg {
        // A key is for one algorithm if it says so.
        algorithms.retain(|algorithm| algorithm.name() == name);
    }
    (!algorithms.is_empty()).then_some(Key { id: jwk.kid, algorithms, material })
}

/// The key, and what it could be used with.
fn material(jwk: &Jwk) -> Option<(Vec<SigningAlgorithm>, DecodingKey)> {
    use SigningAlgorithm as A;
    let bytes = |text: &Option<String>| Some(URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?.len());
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (algorithm, length) = if curve == "P-256" { (A::Es256, 32) } else { (A::Es384, 48) };
            let whole = bytes(&jwk.x)? == length && bytes(&jwk.y)? == length;
            let key = DecodingKey::from_ec_components(jwk.x.as_ref()?, jwk.y.as_ref()?).ok()?;
            whole.then_some((vec![algorithm], key))
        }
        ("OKP", Some("Ed25519")) => {
            let key = DecodingKey::from_ed_components(jwk.x.as_ref()?).ok()?;
            (bytes(&jwk.x)? == 32).then_some((vec![A::EdDsa], key))
        }
        ("RSA", None) => {
            let key = DecodingKey::from_rsa_components(jwk.n.as_ref()?, jwk.e.as_ref()?).ok()?;
            let all = vec![A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512];
            RSA_BYTES.contains(&bytes(&jwk.n)?).then_some((all, key))
        }
        // A symmetric key (`oct`) in a published set is a secret that everybody knows.
        _ => None,
    }
}

/// The keys that a token's header means: those of its `kid`; the only fitting one if it names none.
pub(super) fn meant<'k>(keys: &'k [Key], kid: Option<&str>, algorithm: SigningAlgorithm) -> Vec<&'k Key> {
    let fits = |key: &&Key| key.algorithms.contains(&algorithm);
    if kid.is_some() {
        return keys.iter().filter(|key| key.id.as_deref() == kid).filter(fits).collect();
    }
    let fitting: Vec<_> = keys.iter().filter(fits).collect();
    if fitting.len() == 1 { fitting } else { Vec::new() }
}
