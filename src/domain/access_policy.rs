//! May this caller do this? Deny by default: what no rule allows is refused.
//!
//! | file | says |
//! |---|---|
//! | `access_policy.rs` | who calls, and what can be done at all |
//! | `access_policy/rule.rs` | what a rule says |
//! | `access_policy/decision.rs` | which rule decides |

mod decision;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use decision::{Decision, Mismatch, Question, Reach, UserReach};
pub use rule::{Allowed, Prefix, Rule, RuleMistake, ScopeRule, UserRule};

use sha2::{Digest as _, Sha256};

use super::admin_policy::AdminRights;
use super::key::{CallerId, TenantId, UserId};
use super::secret::SecretString;

/// What a caller may be allowed to do, one per RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// GetCredential.
    GetCredential,
    /// Refresh.
    Refresh,
    /// Revoke.
    Revoke,
    /// BeginOAuth, and `begin_if_missing` of GetCredential.
    BeginOauth,
    /// CompleteOAuth.
    CompleteOauth,
    /// GetFlow.
    GetFlow,
    /// CancelFlow.
    CancelFlow,
    /// ListCredentials.
    ListCredentials,
    /// ImportCredential.
    ImportCredential,
    /// ListProviders.
    ListProviders,
    /// AcquireLease. It gives the token away, as GetCredential does.
    AcquireLease,
    /// RenewLease. So does this.
    RenewLease,
    /// ReleaseLease.
    ReleaseLease,
    /// WatchCredentials.
    WatchCredentials,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::GetCredential,
        Self::Refresh,
        Self::Revoke,
        Self::BeginOauth,
        Self::CompleteOauth,
        Self::GetFlow,
        Self::CancelFlow,
        Self::ListCredentials,
        Self::ImportCredential,
        Self::ListProviders,
        Self::AcquireLease,
        Self::RenewLease,
        Self::ReleaseLease,
        Self::WatchCredentials,
    ];
}

impl Action {
    /// As the configuration writes it, such as `get_credential`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GetCredential => "get_credential",
            Self::Refresh => "refresh",
            Self::Revoke => "revoke",
            Self::BeginOauth => "begin_oauth",
            Self::CompleteOauth => "complete_oauth",
            Self::GetFlow => "get_flow",
            Self::CancelFlow => "cancel_flow",
            Self::ListCredentials => "list_credentials",
            Self::ImportCredential => "import_credential",
            Self::ListProviders => "list_providers",
            Self::AcquireLease => "acquire_lease",
            Self::RenewLease => "renew_lease",
            Self::ReleaseLease => "release_lease",
            Self::WatchCredentials => "watch_credentials",
        }
    }

    /// Whether it is done for users, so that a rule's users count.
    #[must_use]
    pub fn is_about_users(self) -> bool {
        self != Self::ListProviders
    }
}

/// A text that names nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {0}")]
pub struct UnknownAction(pub(super) String);

impl std::str::FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| UnknownAction(Self::ALL.map(Self::name).join(", ")))
    }
}

/// What a caller has proved to be, before anybody knows which caller that is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// SHA-256 of an API key. Not shown: with it, and without the key, somebody could look for the key's owner.
    ApiKey([u8; 32]),
    /// The SPIFFE id of a verified certificate or JWT-SVID, as `spiffe://example.org/ns/agents`.
    SpiffeId(String),
    /// Issuer and subject of a verified JWT (RFC 7519 sections 4.1.1 and 4.1.2).
    Subject {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
}

/// What every API key begins with, so that secret scanners find a lost one.
pub const API_KEY_PREFIX: &str = "tb_";
/// The length of a key in bytes: the prefix, and 32 random bytes as base64url without padding.
pub const API_KEY_BYTES: usize = 46;

/// The hash of an API key as the configuration and the database hold it. A key has 256 random bits, so one SHA-256 is enough.
#[must_use]
pub fn hash_api_key(key: &SecretString) -> [u8; 32] {
    Sha256::digest(key.expose_secret().as_bytes()).into()
}

impl Identity {
    /// Of an API key. `None`: the text is none, whoever presents it.
    #[must_use]
    pub fn of_api_key(key: &SecretString) -> Option<Self> {
        let text = key.expose_secret();
        let well_formed = text.len() == API_KEY_BYTES
            && text.starts_with(API_KEY_PREFIX)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        well_formed.then(|| Self::ApiKey(hash_api_key(key)))
    }

    /// How it was proved, for logs and the audit trail.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ApiKey(_) => "api_key",
            Self::SpiffeId(_) => "spiffe",
            Self::Subject { .. } => "jwt",
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ApiKey(_) => f.write_str("ApiKey"),
            Self::SpiffeId(id) => f.debug_tuple("SpiffeId").field(id).finish(),
            Self::Subject { issuer, subject } => {
                f.debug_struct("Subject").field("issuer", issuer).field("subject", subject).finish()
            }
        }
    }
}

/// Who calls: an authenticated program, and the user whose own token came with the call, if one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The program.
    pub caller: Arc<Caller>,
    /// The user: the call can be for no other.
    pub user: Option<UserId>,
}

impl From<Caller> for Principal {
    /// Without a user's token.
    fn from(caller: Caller) -> Self {
        Self { caller: Arc::new(caller), user: None }
    }
}

impl Caller {
    /// One that may do this, and administer nothing.
    #[must_use]
    pub fn new(id: CallerId, tenant: TenantId, rules: Vec<Rule>) -> Self {
        Self { id, tenant, rules, admin: AdminRights::default(), suspension: None }
    }
}

impl Principal {
    /// What it belongs to.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.caller.tenant
    }

    /// The program's id.
    #[must_use]
    pub fn id(&self) -> &CallerId {
        &self.caller.id
    }
}

/// Why a caller that is known may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// It is disabled itself.
    Caller,
    /// Its tenant is disabled, or deleted.
    Tenant,
}

/// An authenticated program and its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For logs.
    pub id: CallerId,
    /// What it belongs to: nothing of another tenant exists for it.
    pub tenant: TenantId,
    /// What it may do. The first that allows a call decides.
    pub rules: Vec<Rule>,
    /// What it may administer.
    pub admin: AdminRights,
    /// Why it may do nothing of all that for now.
    pub suspension: Option<Suspension>,
}
