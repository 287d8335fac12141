//! May this caller do this? Deny by default.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::admin_policy::AdminRights;
use super::key::{CallerId, ProviderId, TenantId, UserId};
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

/// Which providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderRule {
    /// Every one.
    Any,
    /// These.
    Only(BTreeSet<ProviderId>),
}

/// Which users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRule {
    /// Every one.
    Any,
    /// This one.
    Exact(UserId),
    /// Those whose id begins so; never empty.
    Prefix(String),
}

/// What a caller has proved to be, before anybody knows which caller that is.
#[derive(Clone, PartialEq, Eq, Hash)]
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

impl Identity {
    /// Of an API key. `None`: the text is none, whoever presents it.
    #[must_use]
    pub fn of_api_key(key: &SecretString) -> Option<Self> {
        let text = key.expose_secret();
        let well_formed = text.len() == API_KEY_BYTES
            && text.starts_with(API_KEY_PREFIX)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        well_formed.then(|| Self::ApiKey(Sha256::digest(text.as_bytes()).into()))
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

    /// Whether it may do this at all.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        self.caller.may(action)
    }

    /// Whether it may use this provider.
    #[must_use]
    pub fn may_use(&self, provider: &ProviderId) -> bool {
        self.caller.may_use(provider)
    }

    /// Whether it may act for this user.
    #[must_use]
    pub fn may_act_for(&self, user: &UserId) -> bool {
        self.user.as_ref().is_none_or(|own| own == user) && self.caller.may_act_for(user)
    }

    /// Whether it may act for every user.
    #[must_use]
    pub fn may_act_for_all(&self) -> bool {
        self.user.is_none() && self.caller.may_act_for_all()
    }
}

/// An authenticated program and its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For logs.
    pub id: CallerId,
    /// What it belongs to: nothing of another tenant exists for it.
    pub tenant: TenantId,
    /// What it may do.
    pub actions: BTreeSet<Action>,
    /// At which providers.
    pub providers: ProviderRule,
    /// For which users: any of these rules.
    pub users: Vec<UserRule>,
    /// What it may administer.
    pub admin: AdminRights,
}

impl Caller {
    /// Whether it may do this at all.
    #[must_use]
    pub fn may(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    /// Whether it may use this provider.
    #[must_use]
    pub fn may_use(&self, provider: &ProviderId) -> bool {
        match &self.providers {
            ProviderRule::Any => true,
            ProviderRule::Only(set) => set.contains(provider),
        }
    }

    /// Whether it may act for this user.
    #[must_use]
    pub fn may_act_for(&self, user: &UserId) -> bool {
        self.users.iter().any(|rule| match rule {
            UserRule::Any => true,
            UserRule::Exact(id) => id == user,
            UserRule::Prefix(prefix) => !prefix.is_empty() && user.as_str().starts_with(prefix.as_str()),
        })
    }

    /// Whether it may act for every user.
    #[must_use]
    pub fn may_act_for_all(&self) -> bool {
        self.users.contains(&UserRule::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_without_rules_may_nothing() {
        let caller = Caller {
            id: CallerId::new("c").unwrap(),
            tenant: TenantId::new("t").unwrap(),
            actions: BTreeSet::new(),
            providers: ProviderRule::Only(BTreeSet::new()),
            users: vec![],
            admin: AdminRights::default(),
        };
        assert!(Action::ALL.iter().all(|a| !caller.may(*a)));
        assert!(!caller.may_use(&ProviderId::new("google").unwrap()));
        assert!(!caller.may_act_for(&UserId::new("alice").unwrap()) && !caller.may_act_for_all());
    }

    #[test]
    fn user_rules_match_exactly_or_by_prefix() {
        let mut caller = Caller {
            id: CallerId::new("c").unwrap(),
            tenant: TenantId::new("t").unwrap(),
            actions: BTreeSet::new(),
            providers: ProviderRule::Any,
            users: vec![
                UserRule::Exact(UserId::new("alice").unwrap()),
                UserRule::Prefix("team-a/".to_owned()),
            ],
            admin: AdminRights::default(),
        };
        let user = |s: &str| UserId::new(s).unwrap();
        assert!(caller.may_act_for(&user("alice")) && caller.may_act_for(&user("team-a/bob")));
        assert!(!caller.may_act_for(&user("alice2")) && !caller.may_act_for(&user("team-b/bob")));
        caller.users = vec![UserRule::Prefix(String::new())];
        assert!(!caller.may_act_for(&user("alice")));
    }
}
