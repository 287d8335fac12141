//! May this caller do this? Deny by default.

use std::collections::BTreeSet;

use super::key::{CallerId, ProviderId, TenantId, UserId};

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
    pub const ALL: [Self; 13] = [
        Self::GetCredential,
        Self::Refresh,
        Self::Revoke,
        Self::BeginOauth,
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
        };
        let user = |s: &str| UserId::new(s).unwrap();
        assert!(caller.may_act_for(&user("alice")) && caller.may_act_for(&user("team-a/bob")));
        assert!(!caller.may_act_for(&user("alice2")) && !caller.may_act_for(&user("team-b/bob")));
        caller.users = vec![UserRule::Prefix(String::new())];
        assert!(!caller.may_act_for(&user("alice")));
    }
}
