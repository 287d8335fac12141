//! All issuers: whose token is it, and is it good?

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::issuer::KnownIssuer;
use super::keys::KeyTimes;
use super::token::{self, Claims};
use super::{Issuer, IssuerSettings, Problem};
use crate::domain::access_policy::Identity;
use crate::domain::key::UserId;
use crate::domain::ports::{Clock, TokenError, TokenVerifier, Verified};
use crate::domain::secret::SecretString;
use crate::domain::spiffe::SpiffeId;
use crate::infra::outbound::Http;

/// So many tokens are remembered. A signature takes about 100 µs; an agent calls many times with one token.
const REMEMBERED: u64 = 10_000;
/// For so long at most.
const REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);

/// What a token is presented as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Caller,
    User,
}

/// Verifies tokens. See the module.
pub struct JwtVerifier {
    clock: Arc<dyn Clock>,
    issuers: Vec<KnownIssuer>,
    by_url: HashMap<(Purpose, String), usize>,
    by_trust_domain: HashMap<String, usize>,
    /// By the token's hash: the tokens themselves are not kept.
    remembered: Cache<(Purpose, [u8; 32]), Arc<Remembered>>,
}

/// A token that was good.
struct Remembered {
    issuer: usize,
    subject: String,
    expires: i64,
    /// Of the keys that it was verified with.
    generation: u64,
}

impl JwtVerifier {
    /// Of two settings with one issuer and one purpose the latter counts; the configuration refuses them.
    #[must_use]
    pub fn new(settings: Vec<IssuerSettings>, times: KeyTimes, http: &Http, clock: &Arc<dyn Clock>) -> Self {
        let (mut by_url, mut by_trust_domain) = (HashMap::new(), HashMap::new());
        for (index, issuer) in settings.iter().enumerate() {
            match &issuer.who {
                Issuer::Named { url, .. } => {
                    let purposes = [(issuer.for_callers, Purpose::Caller), (issuer.for_users, Purpose::User)];
                    for (_, purpose) in purposes.into_iter().filter(|(wanted, _)| *wanted) {
                        by_url.insert((purpose, url.clone()), index);
                    }
                }
                Issuer::TrustDomain(domain) => {
                    by_trust_domain.insert(domain.as_str().to_owned(), index);
                }
            }
        }
        let known = |settings| KnownIssuer::new(settings, http.clone(), Arc::clone(clock), times);
        Self {
            clock: Arc::clone(clock),
            issuers: settings.into_iter().map(known).collect(),
            by_url,
            by_trust_domain,
            remembered: Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build(),
        }
    }

    /// Fetches all keys, so that the first caller does not wait for them.
    pub async fn warm_up(&self) {
        futures_util::future::join_all(self.issuers.iter().map(|issuer| issuer.keys.known())).await;
    }

    async fn verified(&self, token: &SecretString, purpose: Purpose) -> Result<Arc<Remembered>, Problem> {
        let hash = (purpose, hash(token));
        if let Some(known) = self.remembered.get(&hash) {
            let issuer = &self.issuers[known.issuer];
            let keys = issuer.keys.known().await.map_err(|_| Problem::NoKeys)?;
            if self.left(&known) == Duration::ZERO {
                return Err(Problem::Expired);
            }
            if keys.generation == known.generation {
                return Ok(known);
            }
        }
        let parts = token::read(token)?;
        let index = self.issuer_of(&parts.claims, purpose).ok_or(Problem::Issuer)?;
        let issuer = &self.issuers[index];
        let (said, algorithm) = issuer.settings.read(&parts.header, &parts.claims, self.clock.now())?;
        let keys = issuer.keys.known().await.map_err(|_| Problem::NoKeys)?;
        let generation = issuer.verify(&parts, algorithm, keys).await?;
        let good =
            Arc::new(Remembered { issuer: index, subject: said.subject, expires: said.expires, generation });
        self.remembered.insert(hash, Arc::clone(&good));
        Ok(good)
    }

    /// By `iss`; a workload's token need not have one, and is its trust domain's, which `sub` names.
    fn issuer_of(&self, claims: &Claims, purpose: Purpose) -> Option<usize> {
        let named = claims.iss.as_ref().and_then(|iss| self.by_url.get(&(purpose, iss.clone())));
        if named.is_some() || purpose == Purpose::User {
            return named.copied();
        }
        let id = SpiffeId::parse(claims.sub.as_deref()?).ok()?;
        self.by_trust_domain.get(id.trust_domain().as_str()).copied()
    }

    /// How long a token is good from now on.
    fn left(&self, token: &Remembered) -> Duration {
        let leeway = self.issuers[token.issuer].settings.leeway;
        let left = token.expires.saturating_sub(self.clock.now().as_second());
        if left >= 0 {
            Duration::from_secs(left.unsigned_abs()) + leeway
        } else {
            leeway.saturating_sub(Duration::from_secs(left.unsigned_abs()))
        }
    }
}

fn hash(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

/// Says why to the log, and whether it was the token to the caller.
fn told<T>(token_of: &'static str, result: Result<T, Problem>) -> Result<T, TokenError> {
    result.map_err(|problem| {
        tracing::info!(token_of, %problem, "a token was refused");
        if problem == Problem::NoKeys { TokenError::KeysUnavailable } else { TokenError::Refused }
    })
}

#[async_trait]
impl TokenVerifier for JwtVerifier {
    async fn caller(&self, token: &SecretString) -> Result<Verified<Identity>, TokenError> {
        let verified = self.verified(token, Purpose::Caller).await;
        let good = told("caller", verified)?;
        let subject = good.subject.clone();
        let who = match &self.issuers[good.issuer].settings.who {
            Issuer::Named { url, .. } => Identity::Subject { issuer: url.clone(), subject },
            Issuer::TrustDomain(_) => Identity::SpiffeId(subject),
        };
        Ok(Verified { who, valid_for: self.left(&good) })
    }

    async fn user(&self, token: &SecretString) -> Result<Verified<UserId>, TokenError> {
        let verified = self.verified(token, Purpose::User).await.and_then(|good| {
            let Issuer::Named { name, .. } = &self.issuers[good.issuer].settings.who else {
                return Err(Problem::Issuer);
            };
            // A name is a slug and has no bar, so no two issuers share a user, whatever their subjects are.
            let user = UserId::new(format!("{name}|{}", good.subject)).map_err(|_| Problem::Subject)?;
            Ok(Verified { who: user, valid_for: self.left(&good) })
        });
        told("user", verified)
    }

    fn remembers(&self, token: &SecretString) -> bool {
        self.remembered.contains_key(&(Purpose::Caller, hash(token)))
    }
}
