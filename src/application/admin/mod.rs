//! The use cases of operators, one file each. Each begins with [`Broker::administer`].

mod api_keys;
mod audit;
mod break_glass;
mod callers;
mod delete_user;
mod explain;
mod provider_configs;
mod tenants;
mod who_am_i;

use super::Broker;
use super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::TenantId;

pub use api_keys::{ApiKeyInput, CallerName};
pub use audit::AuditExport;
pub use break_glass::{BREAK_GLASS_BATCH, BrokenGlass};
pub use callers::{CallerSettings, CallerView, ConfiguredCaller, StoredView};
pub use delete_user::{DeleteUserInput, DeletedUser};
pub use explain::{ExplainInput, Explanation};
pub use provider_configs::{NewProviderConfig, ProviderConfigChange, ProviderConfigView};
pub use tenants::TenantChange;
pub use who_am_i::WhoAmI;

impl Broker {
    /// The tenant that a call is about, the principal's own if it names none, if the principal may do this to it. The answer
    /// does not depend on what exists.
    pub(super) fn administer(
        principal: &Principal,
        action: AdminAction,
        tenant: Option<TenantId>,
    ) -> Result<TenantId, BrokerError> {
        let tenant = tenant.unwrap_or_else(|| principal.tenant().clone());
        // A user's token says that the call is for that user; an operator's is for a tenant.
        let permitted =
            principal.user.is_none() && principal.caller.admin.may(action, principal.tenant(), &tenant);
        if permitted { Ok(tenant) } else { Err(BrokerError::PermissionDenied) }
    }
}
