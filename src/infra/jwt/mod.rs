//! JWTs of callers and users: from OpenID issuers (a Kubernetes cluster is one) and SPIFFE trust domains.
//!
//! | file | does |
//! |---|---|
//! | `token.rs` | takes a token apart |
//! | `jwks.rs` | reads an issuer's keys |
//! | `fetch.rs` | gets them |
//! | `keys.rs` | keeps them |
//! | `issuer.rs` | an issuer, and what its tokens have to say |
//! | `verifier.rs` | all issuers: whose token is it, and is it good |
//! | `fuzz.rs` | the readers of both, for `fuzz/` |

mod fetch;
mod fuzz;
mod issuer;
mod jwks;
mod keys;
mod token;
mod verifier;

use std::time::Duration;

pub use fetch::{FetchProblem, KeyAccess, KeyLocation, check_file};
pub(crate) use fuzz::token as fuzz_token;
pub use keys::KeyTimes;
pub use verifier::JwtVerifier;

use crate::domain::jwt::SigningAlgorithm;
use crate::domain::spiffe::TrustDomain;

/// Somebody whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// Who.
    pub who: Issuer,
    /// The token has to name one of these.
    pub audiences: Vec<String>,
    /// The token has to be signed by one of these.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Its keys.
    pub keys: KeyAccess,
    /// How far the clocks may differ.
    pub leeway: Duration,
    /// A token that is good for longer is refused.
    pub max_lifetime: Duration,
    /// Its tokens tell callers.
    pub for_callers: bool,
    /// Its tokens tell users.
    pub for_users: bool,
}

/// Who made a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// An OpenID issuer.
    Named {
        /// Its name here, a slug: the first part of the ids of its users.
        name: String,
        /// `iss`, to the letter.
        url: String,
    },
    /// A SPIFFE trust domain: it is named by `sub`, and `iss` does not count.
    TrustDomain(TrustDomain),
}

impl Issuer {
    /// For logs and metrics.
    fn label(&self) -> &str {
        match self {
            Self::Named { name, .. } => name,
            Self::TrustDomain(domain) => domain.as_str(),
        }
    }
}

/// Why a token counts for nothing. Fixed words: nothing of the token is repeated. Only for the log: who presents it learns
/// only that it does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it is longer than any token")]
    TooLong,
    #[error("it is not a JWT, or a claim is of the wrong type or comes twice")]
    Malformed,
    #[error("it has critical extensions (`crit`)")]
    Critical,
    #[error("its `typ` is that of something else than a token for access")]
    Type,
    #[error(
        "its `iss` is no issuer that is configured for this, and its `sub` of no configured trust domain"
    )]
    Issuer,
    #[error("its `alg` is not allowed for its issuer")]
    Algorithm,
    #[error("its `aud` is missing or another's")]
    Audience,
    #[error("its `exp` is missing or over")]
    Expired,
    #[error("its `nbf` or `iat` is ahead")]
    NotYet,
    #[error("it is good for longer than max_lifetime")]
    Lifetime,
    #[error("its `sub` is missing, too long, or none that can be used here")]
    Subject,
    #[error("its issuer has no such key")]
    UnknownKey,
    #[error("its signature does not fit")]
    Signature,
    #[error("the keys of its issuer cannot be fetched, and none are known")]
    NoKeys,
}
