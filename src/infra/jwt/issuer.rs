//! An issuer, and what its tokens have to say (RFC 7519 section 4.1, RFC 8725 section 3, the SPIFFE JWT-SVID standard).

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use jsonwebtoken::crypto::verify;

use super::jwks::{self, Key, Uses};
use super::keys::{KeySet, KeyTimes, Keys};
use super::token::{Claims, Header, Parts};
use super::{Issuer, IssuerSettings, Problem};
use crate::domain::jwt::SigningAlgorithm;
use crate::domain::ports::Clock;
use crate::domain::spiffe::SpiffeId;
use crate::infra::outbound::Http;

/// The longest subject, in bytes. OpenID Connect Core section 2 allows 255.
const MAX_SUBJECT_BYTES: usize = 255;
/// An id of a workload is longer than a subject may be (SPIFFE-ID section 2.3).
const MAX_SPIFFE_SUBJECT_BYTES: usize = 2_048;

/// With its keys.
pub(super) struct KnownIssuer {
    pub(super) settings: IssuerSettings,
    pub(super) keys: Arc<Keys>,
}

/// What the claims say. Times are seconds of the epoch.
pub(super) struct Said {
    pub(super) subject: String,
    pub(super) expires: i64,
}

impl KnownIssuer {
    pub(super) fn new(settings: IssuerSettings, http: Http, clock: Arc<dyn Clock>, times: KeyTimes) -> Self {
        let uses = Uses::of(&settings.who);
        let label = settings.who.label().to_owned();
        let keys = Keys::new(label, settings.keys.clone(), uses, http, clock, times);
        Self { settings, keys }
    }

    /// Whether one of the keys made the signature. Answers the generation of the keys.
    pub(super) async fn verify(
        &self,
        parts: &Parts<'_>,
        algorithm: SigningAlgorithm,
        known: Arc<KeySet>,
    ) -> Result<u64, Problem> {
        let problem = match signed(parts, algorithm, &known.keys) {
            Ok(()) => return Ok(known.generation),
            Err(problem) => problem,
        };
        // The issuer may have another key since, also under the same id or under none.
        let generation = known.generation;
        let newer = self.keys.sought(known).await;
        if newer.generation == generation {
            return Err(problem);
        }
        signed(parts, algorithm, &newer.keys).map(|()| newer.generation)
    }
}

impl IssuerSettings {
    /// Everything that needs no key. First, so that a token that is none of this issuer's sets off nothing.
    pub(super) fn read(
        &self,
        header: &Header,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<(Said, SigningAlgorithm), Problem> {
        let algorithm = SigningAlgorithm::from_name(&header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(Problem::Algorithm)?;
        self.check_type(header.typ.as_deref())?;
        if !claims.aud.as_ref().is_some_and(|aud| aud.is_one_of(&self.audiences)) {
            return Err(Problem::Audience);
        }
        let expires = self.check_times(claims, now.as_second())?;
        Ok((Said { subject: self.subject(claims)?, expires }, algorithm))
    }

    /// A JWT that is signed for something else (a logout, an event) is no token (RFC 8725 section 3.11).
    fn check_type(&self, typ: Option<&str>) -> Result<(), Problem> {
        let allowed: &[&str] = match self.who {
            Issuer::Named { .. } => &["JWT", "at+jwt", "application/jwt", "application/at+jwt"],
            // JWT-SVID section 2.3.
            Issuer::TrustDomain(_) => &["JWT", "JOSE"],
        };
        let fine = typ.is_none_or(|typ| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(typ)));
        if fine { Ok(()) } else { Err(Problem::Type) }
    }

    /// Answers `exp`.
    fn check_times(&self, claims: &Claims, now: i64) -> Result<i64, Problem> {
        let leeway = seconds(self.leeway.as_secs_f64());
        let expires = seconds(claims.exp.ok_or(Problem::Expired)?);
        if expires.saturating_add(leeway) <= now {
            return Err(Problem::Expired);
        }
        let begins = [claims.nbf, claims.iat].map(|time| time.map(seconds));
        if begins.iter().flatten().any(|begin| begin.saturating_sub(leeway) > now) {
            return Err(Problem::NotYet);
        }
        // From when it was issued; from now if it does not say.
        let begin = begins[1].unwrap_or(now);
        if expires.saturating_sub(begin) > seconds(self.max_lifetime.as_secs_f64()) {
            return Err(Problem::Lifetime);
        }
        Ok(expires)
    }

    fn subject(&self, claims: &Claims) -> Result<String, Problem> {
        let subject = claims.sub.as_deref().ok_or(Problem::Subject)?;
        let (fine, max) = match &self.who {
            Issuer::Named { .. } => (true, MAX_SUBJECT_BYTES),
            Issuer::TrustDomain(domain) => {
                let id = SpiffeId::parse(subject).map_err(|_| Problem::Subject)?;
                (id.trust_domain() == domain, MAX_SPIFFE_SUBJECT_BYTES)
            }
        };
        let shown = (1..=max).contains(&subject.len()) && !subject.chars().any(char::is_control);
        if fine && shown { Ok(subject.to_owned()) } else { Err(Problem::Subject) }
    }
}

/// Whether one of these keys made the signature.
pub(super) fn signed(parts: &Parts<'_>, algorithm: SigningAlgorithm, keys: &[Key]) -> Result<(), Problem> {
    let keys = jwks::meant(keys, parts.header.kid.as_deref(), algorithm);
    if keys.is_empty() {
        return Err(Problem::UnknownKey);
    }
    let message = parts.message.as_bytes();
    let fits = keys
        .iter()
        .any(|key| verify(parts.signature, message, &key.material, library_name(algorithm)).unwrap_or(false));
    if fits { Ok(()) } else { Err(Problem::Signature) }
}

/// A `NumericDate` (RFC 7519 section 2), whole or not.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the cast saturates, and such times are far away all the same"
)]
fn seconds(number: f64) -> i64 {
    number.floor() as i64
}

fn library_name(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Es384 => Algorithm::ES384,
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Rs384 => Algorithm::RS384,
        SigningAlgorithm::Rs512 => Algorithm::RS512,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Ps384 => Algorithm::PS384,
        SigningAlgorithm::Ps512 => Algorithm::PS512,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
