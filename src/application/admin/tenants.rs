//! Tenants: made, read, renamed, disabled, deleted.

use jiff::Timestamp;

use super::super::Broker;
use super::super::error::{BrokerError, NotFound, Precondition};
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::caller_store::{Tenant, TenantWrite};
use crate::domain::key::TenantId;

/// What to change of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantChange {
    /// For people.
    pub display_name: Option<String>,
    /// Whether its callers may do nothing.
    pub disabled: Option<bool>,
}

impl Broker {
    /// Makes a tenant.
    pub async fn create_tenant(
        &self,
        principal: &Principal,
        id: TenantId,
        display_name: String,
    ) -> Result<Tenant, BrokerError> {
        let id = Self::administer(principal, AdminAction::ManageTenants, Some(id))?;
        let tenant = Tenant { display_name, ..implied(id, self.ports.clock.now()) };
        match self.ports.tenants.insert_tenant(tenant.clone()).await? {
            TenantWrite::Done => Ok(tenant),
            TenantWrite::Exists | TenantWrite::Unknown => {
                Err(BrokerError::FailedPrecondition(Precondition::TenantExists))
            }
        }
    }

    /// One by id. One that is only named, in the configuration or by a caller, is there, too.
    pub async fn get_tenant(&self, principal: &Principal, id: TenantId) -> Result<Tenant, BrokerError> {
        let id = Self::administer(principal, AdminAction::ManageTenants, Some(id))?;
        self.existing_tenant(principal, &id).await
    }

    /// A page ordered by id, and whether there are more; for a principal of one tenant, that one.
    pub async fn list_tenants(
        &self,
        principal: &Principal,
        after: Option<TenantId>,
        page_size: u32,
    ) -> Result<(Vec<Tenant>, bool), BrokerError> {
        let own = Self::administer(principal, AdminAction::ManageTenants, None)?;
        if !principal.caller.admin.all_tenants {
            let own = self.existing_tenant(principal, &own).await?;
            return Ok((after.is_none().then_some(own).into_iter().collect(), false));
        }
        let limit = page_size.saturating_add(1);
        let mut page = self.ports.tenants.list_tenants(after.as_ref(), limit).await?;
        let behind = |id: &TenantId| after.as_ref().is_none_or(|after| id > after);
        let configured = self.settings.configured_callers.iter().map(|entry| &entry.caller.tenant);
        for id in configured.filter(|id| behind(id)) {
            // One with a row is on this page, or on a later one, or deleted.
            if page.iter().all(|tenant| tenant.id != *id)
                && self.ports.tenants.load_tenant(id).await?.is_none()
            {
                page.push(implied(id.clone(), Timestamp::UNIX_EPOCH));
            }
        }
        page.sort_by(|one, two| one.id.cmp(&two.id));
        let more = page.len() > page_size as usize;
        page.truncate(page_size as usize);
        Ok((page, more))
    }

    /// Renames, disables or enables a tenant.
    pub async fn update_tenant(
        &self,
        principal: &Principal,
        id: TenantId,
        change: TenantChange,
    ) -> Result<Tenant, BrokerError> {
        let id = Self::administer(principal, AdminAction::ManageTenants, Some(id))?;
        let there = self.existing_tenant(principal, &id).await?;
        let now = self.ports.clock.now();
        let tenant = Tenant {
            display_name: change.display_name.unwrap_or_else(|| there.display_name.clone()),
            disabled_at: match change.disabled {
                None => there.disabled_at,
                Some(false) => None,
                Some(true) => Some(there.disabled_at.unwrap_or(now)),
            },
            ..there
        };
        self.store_tenant(tenant).await
    }

    /// Deletes a tenant for good: its callers are gone, those of the configuration may do nothing, its id is never used
    /// again, and what its users connected can't be read any more: its data keys are deleted with it. Providers are not told.
    pub async fn delete_tenant(&self, principal: &Principal, id: TenantId) -> Result<Tenant, BrokerError> {
        let id = Self::administer(principal, AdminAction::ManageTenants, Some(id))?;
        let there = self.existing_tenant(principal, &id).await?;
        let deleted_at = Some(self.ports.clock.now());
        self.store_tenant(Tenant { deleted_at, ..there }).await
    }

    /// The tenant, if there is one.
    pub(super) async fn existing_tenant(
        &self,
        principal: &Principal,
        id: &TenantId,
    ) -> Result<Tenant, BrokerError> {
        let unknown = BrokerError::NotFound(NotFound::Tenant);
        if let Some(tenant) = self.ports.tenants.load_tenant(id).await? {
            return if tenant.deleted_at.is_none() { Ok(tenant) } else { Err(unknown) };
        }
        let named = id == principal.tenant()
            || self.settings.configured_callers.iter().any(|entry| entry.caller.tenant == *id)
            || !self.ports.callers.list_callers(id, None, 1).await?.is_empty();
        if named { Ok(implied(id.clone(), Timestamp::UNIX_EPOCH)) } else { Err(unknown) }
    }

    async fn store_tenant(&self, mut tenant: Tenant) -> Result<Tenant, BrokerError> {
        if tenant.created_at == Timestamp::UNIX_EPOCH {
            tenant.created_at = self.ports.clock.now();
            // Now something is to be said of it. Of two that say so at one time, both have said it.
            let first = Tenant { disabled_at: None, deleted_at: None, ..tenant.clone() };
            self.ports.tenants.insert_tenant(first).await?;
        }
        match self.ports.tenants.update_tenant(tenant.clone()).await? {
            TenantWrite::Done => Ok(tenant),
            TenantWrite::Exists | TenantWrite::Unknown => Err(BrokerError::NotFound(NotFound::Tenant)),
        }
    }
}

/// A tenant of which nothing else is known: made before anybody could say when.
fn implied(id: TenantId, now: Timestamp) -> Tenant {
    Tenant { id, display_name: String::new(), created_at: now, disabled_at: None, deleted_at: None }
}
