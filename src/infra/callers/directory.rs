//! All callers: those of the configuration and those of the database, with the standing of their tenants.
//!
//! What the database says is believed for `authentication.cache_ttl`, at most five seconds: so soon a revoked key, a
//! changed rule or a disabled tenant is known on every replica. While the database does not answer, what was read within
//! that time goes on, and then nobody can say who calls: the error is "not available", never "not known". The configuration
//! says who its own callers are; of their tenants, the last known standing counts for as long as the outage lasts.
//!
//! That somebody is nobody is remembered, too, so that a client with a dead key does not ask the database at every call. A
//! flood of made-up keys pushes other made-up keys out of that memory, and no caller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::ConfiguredCallers;
use crate::domain::access_policy::{Caller, Identity, Suspension};
use crate::domain::caller_store::{ApiKey, CallerStore, FoundCaller, LAST_USED_GRAIN, TenantStore};
use crate::domain::key::TenantId;
use crate::domain::ports::{CallerDirectory, Clock, StoreError};
use crate::infra::cache::{Cache, Known};

/// How many callers of the database are remembered, twice.
const MOST_CALLERS: usize = 10_000;
/// How many strangers are, twice.
const MOST_STRANGERS: usize = 4_096;
/// How many tenants are, twice.
const MOST_TENANTS: usize = 10_000;

/// A caller of the database and what it came in with.
#[derive(Clone)]
struct Entry {
    caller: Arc<Caller>,
    key: Option<ApiKey>,
}

/// See the module.
pub struct Directory {
    configured: ConfiguredCallers,
    callers: Arc<dyn CallerStore>,
    tenants: Arc<dyn TenantStore>,
    clock: Arc<dyn Clock>,
    known: Cache<Identity, Entry>,
    strangers: Cache<Identity, ()>,
    enabled: Cache<TenantId, bool>,
}

impl Directory {
    /// `lifetime` is how long an answer of the database is believed.
    #[must_use]
    pub fn new(
        configured: ConfiguredCallers,
        callers: Arc<dyn CallerStore>,
        tenants: Arc<dyn TenantStore>,
        clock: Arc<dyn Clock>,
        lifetime: Duration,
    ) -> Self {
        Self {
            configured,
            callers,
            tenants,
            clock,
            known: Cache::new(MOST_CALLERS, lifetime),
            strangers: Cache::new(MOST_STRANGERS, lifetime),
            enabled: Cache::new(MOST_TENANTS, lifetime),
        }
    }

    /// Of the database.
    async fn stored(&self, identity: &Identity) -> Result<Option<Entry>, StoreError> {
        let now = self.clock.monotonic();
        let fallback = match self.known.get(identity, now) {
            Known::Fresh(entry) => return Ok(Some(entry)),
            Known::Aging(entry) => Some(entry),
            Known::Stale(_) | Known::Nothing => {
                if let Known::Fresh(()) | Known::Aging(()) = self.strangers.get(identity, now) {
                    return Ok(None);
                }
                None
            }
        };
        let found = match (self.callers.find_caller(identity).await, fallback) {
            (Ok(found), _) => found,
            (Err(error), None) => return Err(error),
            (Err(error), Some(entry)) => {
                tracing::warn!(%error, "a caller could not be read again");
                return Ok(Some(entry));
            }
        };
        let Some(found) = found else {
            self.known.remove(identity);
            self.strangers.insert(identity.clone(), (), now);
            return Ok(None);
        };
        self.note_use(&found);
        let entry = Entry { caller: Arc::new(caller(found.caller)), key: found.key };
        self.known.insert(identity.clone(), entry.clone(), now);
        Ok(Some(entry))
    }

    /// Nobody waits for it, and nothing depends on it.
    fn note_use(&self, found: &FoundCaller) {
        let Some(key) = &found.key else { return };
        let now = self.clock.now();
        let lately = key.last_used_at.is_some_and(|at| {
            Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < LAST_USED_GRAIN)
        });
        if lately || !key.is_good(now) {
            return;
        }
        let (callers, id) = (Arc::clone(&self.callers), key.id);
        tokio::spawn(async move {
            if let Err(error) = callers.mark_api_key_used(id, now).await {
                tracing::warn!(%error, "the use of an API key could not be noted");
            }
        });
    }

    async fn is_enabled(&self, tenant: &TenantId) -> Result<bool, StoreError> {
        let now = self.clock.monotonic();
        let last_known = match self.enabled.get(tenant, now) {
            Known::Fresh(enabled) => return Ok(enabled),
            Known::Aging(enabled) | Known::Stale(enabled) => Some(enabled),
            Known::Nothing => None,
        };
        match (self.tenants.load_tenant(tenant).await, last_known) {
            (Ok(found), _) => {
                let enabled = found.is_none_or(|tenant| tenant.is_enabled());
                self.enabled.insert(tenant.clone(), enabled, now);
                Ok(enabled)
            }
            (Err(error), Some(enabled)) => {
                tracing::warn!(%error, %tenant, "the standing of a tenant could not be read again");
                Ok(enabled)
            }
            (Err(error), None) => Err(error),
        }
    }
}

/// A caller as the use cases know it.
fn caller(stored: crate::domain::caller_store::StoredCaller) -> Caller {
    Caller {
        id: stored.id,
        tenant: stored.tenant,
        rules: stored.rules,
        admin: stored.admin,
        suspension: stored.disabled_at.map(|_| Suspension::Caller),
    }
}

fn is_good(key: Option<&ApiKey>, now: Timestamp) -> bool {
    key.is_none_or(|key| key.is_good(now))
}

#[async_trait]
impl CallerDirectory for Directory {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        let caller = match self.configured.caller(identity).await? {
            Some(caller) => caller,
            None => match self.stored(identity).await? {
                // By the clock at each call: what expires does not wait for the cache.
                Some(Entry { caller, key }) if is_good(key.as_ref(), self.clock.now()) => caller,
                Some(_) | None => return Ok(None),
            },
        };
        if self.is_enabled(&caller.tenant).await? {
            return Ok(Some(caller));
        }
        Ok(Some(Arc::new(Caller { suspension: Some(Suspension::Tenant), ..Caller::clone(&caller) })))
    }

    /// However long ago a caller was read: it is none of the strangers.
    fn remembers(&self, identity: &Identity) -> bool {
        self.configured.remembers(identity) || self.known.has(identity)
    }
}
