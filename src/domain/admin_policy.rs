//! What an operator's caller may administer. Deny by default, and apart from what agents may do.

use std::collections::BTreeSet;

use super::access_policy::UnknownAction;
use super::key::TenantId;

/// What an operator's caller may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAction {
    /// Callers, their rights and their API keys. Whoever has it can make a caller that may do anything in the tenant.
    ManageCallers,
    /// Tenants.
    ManageTenants,
    /// Provider configurations.
    ManageProviders,
    /// Data keys: rotation, progress, retirement.
    ManageKeys,
    /// The audit trail, read and verified.
    ReadAudit,
    /// Revoking all of a user's or a tenant's credentials.
    BreakGlass,
}

impl AdminAction {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ManageCallers,
        Self::ManageTenants,
        Self::ManageProviders,
        Self::ManageKeys,
        Self::ReadAudit,
        Self::BreakGlass,
    ];

    /// As the configuration writes it, such as `manage_callers`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ManageCallers => "manage_callers",
            Self::ManageTenants => "manage_tenants",
            Self::ManageProviders => "manage_providers",
            Self::ManageKeys => "manage_keys",
            Self::ReadAudit => "read_audit",
            Self::BreakGlass => "break_glass",
        }
    }
}

impl std::str::FromStr for AdminAction {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| UnknownAction(Self::ALL.map(Self::name).join(", ")))
    }
}

/// What a caller may administer, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminRights {
    /// Nothing, for most callers.
    pub actions: BTreeSet<AdminAction>,
    /// Every tenant, not only the caller's own.
    pub all_tenants: bool,
}

impl AdminRights {
    /// Whether it may do anything at all.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether a caller of tenant `own` may do this to tenant `other`.
    #[must_use]
    pub fn may(&self, action: AdminAction, own: &TenantId, other: &TenantId) -> bool {
        self.actions.contains(&action) && (self.all_tenants || own == other)
    }

    /// Whether these are among `other`'s: nobody gives away a right that it does not have.
    #[must_use]
    pub fn are_within(&self, other: &Self) -> bool {
        self.actions.is_subset(&other.actions) && (!self.all_tenants || other.all_tenants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_tenants_things_take_a_right_of_their_own() {
        let (own, other) = (TenantId::new("own").unwrap(), TenantId::new("other").unwrap());
        let mut rights = AdminRights::default();
        assert!(!rights.any());
        assert!(AdminAction::ALL.iter().all(|action| !rights.may(*action, &own, &own)));
        rights.actions.insert(AdminAction::ReadAudit);
        assert!(rights.may(AdminAction::ReadAudit, &own, &own));
        assert!(!rights.may(AdminAction::ReadAudit, &own, &other));
        assert!(!rights.may(AdminAction::BreakGlass, &own, &own));
        rights.all_tenants = true;
        assert!(rights.may(AdminAction::ReadAudit, &own, &other));
        assert!(!rights.may(AdminAction::BreakGlass, &own, &other));
        let fewer = AdminRights { all_tenants: false, ..rights.clone() };
        assert!(fewer.are_within(&rights) && !rights.are_within(&fewer));
        assert!(!rights.are_within(&AdminRights { all_tenants: true, ..AdminRights::default() }));
        assert!(AdminAction::ALL.iter().all(|action| action.name().parse() == Ok(*action)));
        assert!(AdminAction::ALL.iter().all(|a| serde_json::to_value(a).unwrap() == a.name()));
    }
}
