//! Callers, keys and tenants of the database in memory.

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::access_policy::Identity;
use token_broker::domain::caller_store::{
    ApiKey, ApiKeyWrite, CallerStore, CallerWrite, Claim, FoundCaller, IdentityList, LAST_USED_GRAIN,
    MAX_API_KEYS, NewApiKey, StoredCaller, Tenant, TenantStore, TenantWrite,
};
use token_broker::domain::data_key::DataKeyPurpose;
use token_broker::domain::key::{ApiKeyId, CallerId, TenantId};
use token_broker::domain::ports::StoreError;

use super::memory_store::{MemoryStore, Tables};

impl Tables {
    fn stored_caller(&self, tenant: &TenantId, id: &CallerId) -> Option<&StoredCaller> {
        self.callers.iter().find(|caller| caller.tenant == *tenant && caller.id == *id)
    }

    fn taken(&self, new: &StoredCaller) -> Option<IdentityList> {
        let others = self.callers.iter();
        let others = others.filter(|other| (&other.tenant, &other.id) != (&new.tenant, &new.id));
        let mut taken = others.flat_map(|other| other.identities.intersection(&new.identities));
        taken.next().and_then(IdentityList::of)
    }

    fn add_key(&mut self, new: NewApiKey, most: u32) -> ApiKeyWrite {
        let (tenant, caller) = (&new.key.tenant, &new.key.caller);
        if self.stored_caller(tenant, caller).is_none() {
            return ApiKeyWrite::Unknown;
        }
        let own = self.api_keys.iter().map(|key| &key.key);
        let own = own.filter(|key| key.tenant == *tenant && key.caller == *caller);
        if own.filter(|key| key.is_good(new.key.created_at)).count() >= most as usize {
            return ApiKeyWrite::TooMany;
        }
        self.api_keys.push(new);
        ApiKeyWrite::Done
    }

    fn key_of(&mut self, tenant: &TenantId, caller: &CallerId, id: ApiKeyId) -> Option<&mut ApiKey> {
        let keys = self.api_keys.iter_mut().map(|key| &mut key.key);
        keys.into_iter().find(|key| key.id == id && key.tenant == *tenant && key.caller == *caller)
    }
}

#[async_trait]
impl CallerStore for MemoryStore {
    async fn find_caller(&self, identity: &Identity) -> Result<Option<FoundCaller>, StoreError> {
        Ok(self.read(|tables| match identity {
            Identity::ApiKey(hash) => {
                let key = tables.api_keys.iter().find(|key| key.hash == *hash)?.key.clone();
                let caller = tables.stored_caller(&key.tenant, &key.caller)?.clone();
                Some(FoundCaller { caller, key: Some(key) })
            }
            other => {
                let caller = tables.callers.iter().find(|caller| caller.identities.contains(other))?;
                Some(FoundCaller { caller: caller.clone(), key: None })
            }
        }))
    }

    async fn load_caller(
        &self,
        tenant: &TenantId,
        id: &CallerId,
    ) -> Result<Option<StoredCaller>, StoreError> {
        Ok(self.read(|tables| tables.stored_caller(tenant, id).cloned()))
    }

    async fn taken(&self, claims: &[Claim]) -> Result<Vec<Claim>, StoreError> {
        Ok(self.read(|tables| {
            let has = |claim: &&Claim| match claim {
                Claim::Id(tenant, id) => tables.stored_caller(tenant, id).is_some(),
                Claim::Identity(Identity::ApiKey(_)) => false,
                Claim::Identity(identity) => tables.callers.iter().any(|c| c.identities.contains(identity)),
            };
            claims.iter().filter(has).cloned().collect()
        }))
    }

    async fn list_callers(
        &self,
        tenant: &TenantId,
        after: Option<&CallerId>,
        limit: u32,
    ) -> Result<Vec<StoredCaller>, StoreError> {
        let mut page = self.read(|tables| tables.callers.clone());
        page.retain(|caller| caller.tenant == *tenant && after.is_none_or(|after| caller.id > *after));
        page.sort_by(|one, two| one.id.cmp(&two.id));
        page.truncate(limit as usize);
        Ok(page)
    }

    async fn insert_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        Ok(self.write(|tables| {
            if tables.stored_caller(&caller.tenant, &caller.id).is_some() {
                CallerWrite::Exists
            } else if let Some(list) = tables.taken(&caller) {
                CallerWrite::IdentityTaken(list)
            } else {
                tables.callers.push(StoredCaller { revision: 1, ..caller });
                CallerWrite::Done
            }
        }))
    }

    async fn update_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        Ok(self.write(|tables| {
            let Some(there) = tables.stored_caller(&caller.tenant, &caller.id) else {
                return CallerWrite::Unknown;
            };
            if there.revision != caller.revision {
                return CallerWrite::Changed;
            }
            if let Some(list) = tables.taken(&caller) {
                return CallerWrite::IdentityTaken(list);
            }
            let place = tables.callers.iter_mut().find(|c| c.tenant == caller.tenant && c.id == caller.id);
            if let Some(place) = place {
                let created_at = place.created_at;
                *place = StoredCaller { revision: caller.revision + 1, created_at, ..caller };
            }
            CallerWrite::Done
        }))
    }

    async fn delete_caller(&self, tenant: &TenantId, id: &CallerId) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let before = tables.callers.len();
            tables.callers.retain(|caller| caller.tenant != *tenant || caller.id != *id);
            tables.api_keys.retain(|key| key.key.tenant != *tenant || key.key.caller != *id);
            tables.callers.len() < before
        }))
    }

    async fn insert_api_key(&self, key: NewApiKey) -> Result<ApiKeyWrite, StoreError> {
        Ok(self.write(|tables| tables.add_key(key, MAX_API_KEYS)))
    }

    async fn list_api_keys(&self, tenant: &TenantId, caller: &CallerId) -> Result<Vec<ApiKey>, StoreError> {
        let mut keys: Vec<_> =
            self.read(|tables| tables.api_keys.iter().map(|key| key.key.clone()).collect());
        keys.retain(|key| key.tenant == *tenant && key.caller == *caller);
        keys.sort_by_key(|key| (std::cmp::Reverse(key.created_at), key.id));
        Ok(keys)
    }

    async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        old_ends_at: Timestamp,
        new: NewApiKey,
    ) -> Result<ApiKeyWrite, StoreError> {
        Ok(self.write(|tables| {
            let before = tables.clone();
            let now = new.key.created_at;
            let found = tables.key_of(&new.key.tenant, &new.key.caller, old).filter(|key| key.is_good(now));
            let Some(key) = found else { return ApiKeyWrite::Unknown };
            key.expires_at = Some(key.expires_at.map_or(old_ends_at, |end| end.min(old_ends_at)));
            let written = tables.add_key(new, MAX_API_KEYS + 1);
            if written != ApiKeyWrite::Done {
                *tables = before;
            }
            written
        }))
    }

    async fn revoke_api_key(
        &self,
        tenant: &TenantId,
        caller: &CallerId,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        Ok(self.write(|tables| {
            let key = tables.key_of(tenant, caller, id)?;
            key.revoked_at.get_or_insert(now);
            Some(key.clone())
        }))
    }

    async fn mark_api_key_used(&self, id: ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
        self.write(|tables| {
            let grain = jiff::SignedDuration::try_from(LAST_USED_GRAIN).unwrap();
            for key in tables.api_keys.iter_mut().map(|key| &mut key.key).filter(|key| key.id == id) {
                if key.last_used_at.is_none_or(|at| now.duration_since(at) >= grain) {
                    key.last_used_at = Some(now);
                }
            }
        });
        Ok(())
    }
}

#[async_trait]
impl TenantStore for MemoryStore {
    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
        Ok(self.read(|tables| tables.tenants.iter().find(|tenant| tenant.id == *id).cloned()))
    }

    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        let mut page = self.read(|tables| tables.tenants.clone());
        page.retain(|tenant| tenant.deleted_at.is_none() && after.is_none_or(|after| tenant.id > *after));
        page.sort_by(|one, two| one.id.cmp(&two.id));
        page.truncate(limit as usize);
        Ok(page)
    }

    async fn insert_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        Ok(self.write(|tables| {
            if tables.tenants.iter().any(|there| there.id == tenant.id) {
                return TenantWrite::Exists;
            }
            tables.tenants.push(tenant);
            TenantWrite::Done
        }))
    }

    async fn update_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        Ok(self.write(|tables| {
            let Some(place) =
                tables.tenants.iter_mut().find(|there| there.id == tenant.id && there.deleted_at.is_none())
            else {
                return TenantWrite::Unknown;
            };
            let created_at = place.created_at;
            *place = Tenant { created_at, ..tenant };
            let (id, deleted) = (place.id.clone(), place.deleted_at.is_some());
            if deleted {
                tables.callers.retain(|caller| caller.tenant != id);
                tables.api_keys.retain(|key| key.key.tenant != id);
                tables.data_keys.retain(|key| key.tenant != id || key.purpose != DataKeyPurpose::Encryption);
                tables.configs.retain(|config| config.tenant != id);
            }
            TenantWrite::Done
        }))
    }
}
