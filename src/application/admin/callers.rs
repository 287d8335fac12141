//! Callers of the database: made, read, changed, deleted. Those of the configuration are shown beside them, and changed in
//! the configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::Broker;
use super::super::error::{BrokerError, NotFound, Precondition};
use crate::domain::access_policy::{Caller, Identity, Principal, Rule};
use crate::domain::admin_policy::{AdminAction, AdminRights};
use crate::domain::caller_store::{CallerWrite, IdentityList, StoredCaller};
use crate::domain::key::{CallerId, TenantId};

/// What an operator decides about a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSettings {
    /// For people.
    pub description: String,
    /// What it may do.
    pub rules: Vec<Rule>,
    /// What it may administer.
    pub admin: AdminRights,
    /// What it proves to be beside its API keys.
    pub identities: BTreeSet<Identity>,
    /// Whether it may do nothing for now.
    pub disabled: bool,
}

/// A caller as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerView {
    /// What it belongs to.
    pub tenant: TenantId,
    /// Its id.
    pub id: CallerId,
    /// What was decided about it.
    pub settings: CallerSettings,
    /// `None`: it is in the configuration, and can't be changed from here.
    pub stored: Option<StoredView>,
}

/// What the database knows of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredView {
    /// Goes up with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl From<StoredCaller> for CallerView {
    fn from(caller: StoredCaller) -> Self {
        let StoredCaller { revision, created_at, updated_at, .. } = caller;
        Self {
            tenant: caller.tenant,
            id: caller.id,
            settings: CallerSettings {
                description: caller.description,
                rules: caller.rules,
                admin: caller.admin,
                identities: caller.identities,
                disabled: caller.disabled_at.is_some(),
            },
            stored: Some(StoredView { revision, created_at, updated_at }),
        }
    }
}

/// A caller of the configuration, and what it proves to be beside its API keys.
#[derive(Debug, Clone)]
pub struct ConfiguredCaller {
    /// Id, tenant and rights.
    pub caller: Arc<Caller>,
    /// SPIFFE ids, and subjects of issuers.
    pub identities: BTreeSet<Identity>,
}

impl From<&ConfiguredCaller> for CallerView {
    fn from(ConfiguredCaller { caller, identities }: &ConfiguredCaller) -> Self {
        Self {
            tenant: caller.tenant.clone(),
            id: caller.id.clone(),
            settings: CallerSettings {
                description: String::new(),
                rules: caller.rules.clone(),
                admin: caller.admin.clone(),
                identities: identities.clone(),
                disabled: false,
            },
            stored: None,
        }
    }
}

impl Broker {
    /// Makes a caller. It has no key yet.
    pub async fn create_caller(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        id: CallerId,
        settings: CallerSettings,
    ) -> Result<CallerView, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, tenant)?;
        outranks(principal, &settings.admin)?;
        self.existing_tenant(principal, &tenant).await?;
        if self.configured_caller(&tenant, &id).is_some() {
            return Err(BrokerError::FailedPrecondition(Precondition::CallerExists));
        }
        self.refuse_configured(&settings.identities)?;
        let now = self.ports.clock.now();
        let caller = StoredCaller {
            tenant,
            id,
            description: settings.description,
            rules: settings.rules,
            admin: settings.admin,
            identities: settings.identities,
            disabled_at: settings.disabled.then_some(now),
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        written(self.ports.callers.insert_caller(caller.clone()).await?)?;
        Ok(caller.into())
    }

    /// One by id.
    pub async fn get_caller(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        id: CallerId,
    ) -> Result<CallerView, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, tenant)?;
        if let Some(entry) = self.configured_entry(&tenant, &id) {
            return Ok(entry.into());
        }
        Ok(self.stored_caller(&tenant, &id).await?.into())
    }

    /// A page ordered by id, and whether there are more.
    pub async fn list_callers(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        after: Option<CallerId>,
        page_size: u32,
    ) -> Result<(Vec<CallerView>, bool), BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, tenant)?;
        let limit = page_size.saturating_add(1);
        let stored = self.ports.callers.list_callers(&tenant, after.as_ref(), limit).await?;
        let configured = self.settings.configured_callers.iter();
        let configured = configured.filter(|ConfiguredCaller { caller, .. }| {
            caller.tenant == tenant && after.as_ref().is_none_or(|after| caller.id > *after)
        });
        let mut page: Vec<CallerView> = configured.map(CallerView::from).collect();
        page.extend(stored.into_iter().map(CallerView::from));
        page.sort_by(|one, two| one.id.cmp(&two.id));
        let more = page.len() > page_size as usize;
        page.truncate(page_size as usize);
        Ok((page, more))
    }

    /// Replaces what was decided about a caller, if it is still of this revision.
    pub async fn update_caller(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        id: CallerId,
        revision: u64,
        settings: CallerSettings,
    ) -> Result<CallerView, BrokerError> {
        let there = self.changeable_caller(principal, tenant, &id).await?;
        outranks(principal, &settings.admin)?;
        self.refuse_configured(&settings.identities)?;
        let now = self.ports.clock.now();
        let caller = StoredCaller {
            description: settings.description,
            rules: settings.rules,
            admin: settings.admin,
            identities: settings.identities,
            disabled_at: settings.disabled.then(|| there.disabled_at.unwrap_or(now)),
            revision,
            updated_at: now,
            ..there
        };
        written(self.ports.callers.update_caller(caller.clone()).await?)?;
        Ok(StoredCaller { revision: revision.saturating_add(1), ..caller }.into())
    }

    /// Deletes a caller with its keys.
    pub async fn delete_caller(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        id: CallerId,
    ) -> Result<(), BrokerError> {
        let there = self.changeable_caller(principal, tenant, &id).await?;
        if self.ports.callers.delete_caller(&there.tenant, &id).await? {
            Ok(())
        } else {
            Err(BrokerError::NotFound(NotFound::Caller))
        }
    }

    /// A caller of the database that the principal may change. Whoever changes a caller, or gives it a key, can be that
    /// caller: so it must not administer more than the principal does.
    pub(super) async fn changeable_caller(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        id: &CallerId,
    ) -> Result<StoredCaller, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, tenant)?;
        if self.configured_caller(&tenant, id).is_some() {
            return Err(BrokerError::FailedPrecondition(Precondition::CallerConfigured));
        }
        let caller = self.stored_caller(&tenant, id).await?;
        outranks(principal, &caller.admin)?;
        Ok(caller)
    }

    pub(super) fn configured_caller(&self, tenant: &TenantId, id: &CallerId) -> Option<&Caller> {
        self.configured_entry(tenant, id).map(|entry| &*entry.caller)
    }

    fn configured_entry(&self, tenant: &TenantId, id: &CallerId) -> Option<&ConfiguredCaller> {
        let mut configured = self.settings.configured_callers.iter();
        configured.find(|entry| entry.caller.tenant == *tenant && entry.caller.id == *id)
    }

    /// An identity is one caller's, here and in the configuration: of two, the configuration's would come in, and whoever
    /// changes the other one would change nothing.
    fn refuse_configured(&self, identities: &BTreeSet<Identity>) -> Result<(), BrokerError> {
        let configured = self.settings.configured_callers.iter();
        let mut taken = configured.flat_map(|entry| entry.identities.intersection(identities));
        match taken.next().and_then(IdentityList::of) {
            Some(list) => Err(BrokerError::IdentityTaken(list)),
            None => Ok(()),
        }
    }

    pub(super) async fn stored_caller(
        &self,
        tenant: &TenantId,
        id: &CallerId,
    ) -> Result<StoredCaller, BrokerError> {
        let found = self.ports.callers.load_caller(tenant, id).await?;
        found.ok_or(BrokerError::NotFound(NotFound::Caller))
    }
}

/// Nobody gives away, or comes by, a right to administer that it does not have.
fn outranks(principal: &Principal, rights: &AdminRights) -> Result<(), BrokerError> {
    if rights.are_within(&principal.caller.admin) { Ok(()) } else { Err(BrokerError::PermissionDenied) }
}

fn written(write: CallerWrite) -> Result<(), BrokerError> {
    let precondition = match write {
        CallerWrite::IdentityTaken(list) => return Err(BrokerError::IdentityTaken(list)),
        CallerWrite::Done => return Ok(()),
        CallerWrite::Unknown => return Err(BrokerError::NotFound(NotFound::Caller)),
        CallerWrite::Exists => Precondition::CallerExists,
        CallerWrite::Changed => Precondition::CallerChanged,
    };
    Err(BrokerError::FailedPrecondition(precondition))
}
