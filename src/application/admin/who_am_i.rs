//! `WhoAmI`: what the broker knows about an operator's caller.

use super::super::Broker;
use super::super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminRights;
use crate::domain::key::{CallerId, TenantId};

/// See [`Broker::who_am_i`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoAmI {
    /// What it belongs to.
    pub tenant: TenantId,
    /// Its id.
    pub caller: CallerId,
    /// What it may administer.
    pub rights: AdminRights,
}

impl Broker {
    /// Who calls, for a caller with any admin right.
    pub fn who_am_i(&self, principal: &Principal) -> Result<WhoAmI, BrokerError> {
        let rights = principal.caller.admin.clone();
        if !rights.any() {
            return Err(BrokerError::PermissionDenied);
        }
        Ok(WhoAmI { tenant: principal.tenant().clone(), caller: principal.id().clone(), rights })
    }
}
