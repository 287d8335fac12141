//! Who calls, by what the database says: how soon it is believed, and what holds while the database does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::access_policy::{Caller, Identity, Rule, Suspension};
use token_broker::domain::admin_policy::AdminRights;
use token_broker::domain::caller_store::{
    ApiKey, ApiKeyWrite, CallerStore, CallerWrite, Claim, FoundCaller, NewApiKey, StoredCaller, Tenant,
    TenantStore, TenantWrite,
};
use token_broker::domain::key::{ApiKeyId, CallerId, TenantId};
use token_broker::domain::ports::{CallerDirectory as _, Clock as _, StoreError};
use token_broker::infra::callers::{ConfiguredCallers, Directory};

use crate::fakes::MemoryStore;
use crate::support::clock::ManualClock;

const TTL: Duration = Duration::from_secs(5);

/// The database, which can be switched off, and which counts what it is asked.
#[derive(Default)]
struct Database {
    rows: MemoryStore,
    down: AtomicBool,
    asked: AtomicU32,
}

impl Database {
    fn pass(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl CallerStore for Database {
    async fn find_caller(&self, identity: &Identity) -> Result<Option<FoundCaller>, StoreError> {
        self.pass()?;
        self.rows.find_caller(identity).await
    }

    async fn load_caller(&self, t: &TenantId, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        self.rows.load_caller(t, id).await
    }

    async fn taken(&self, claims: &[Claim]) -> Result<Vec<Claim>, StoreError> {
        self.rows.taken(claims).await
    }

    async fn list_callers(
        &self,
        tenant: &TenantId,
        after: Option<&CallerId>,
        limit: u32,
    ) -> Result<Vec<StoredCaller>, StoreError> {
        self.rows.list_callers(tenant, after, limit).await
    }

    async fn insert_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        self.rows.insert_caller(caller).await
    }

    async fn update_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError> {
        self.rows.update_caller(caller).await
    }

    async fn delete_caller(&self, tenant: &TenantId, id: &CallerId) -> Result<bool, StoreError> {
        self.rows.delete_caller(tenant, id).await
    }

    async fn insert_api_key(&self, key: NewApiKey) -> Result<ApiKeyWrite, StoreError> {
        self.rows.insert_api_key(key).await
    }

    async fn list_api_keys(&self, tenant: &TenantId, caller: &CallerId) -> Result<Vec<ApiKey>, StoreError> {
        self.rows.list_api_keys(tenant, caller).await
    }

    async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        old_ends_at: Timestamp,
        new: NewApiKey,
    ) -> Result<ApiKeyWrite, StoreError> {
        self.rows.rotate_api_key(old, old_ends_at, new).await
    }

    async fn revoke_api_key(
        &self,
        tenant: &TenantId,
        caller: &CallerId,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError> {
        self.rows.revoke_api_key(tenant, caller, id, now).await
    }

    async fn mark_api_key_used(&self, id: ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
        self.rows.mark_api_key_used(id, now).await
    }
}

#[async_trait]
impl TenantStore for Database {
    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
        self.pass()?;
        self.rows.load_tenant(id).await
    }

    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        self.rows.list_tenants(after, limit).await
    }

    async fn insert_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        self.rows.insert_tenant(tenant).await
    }

    async fn update_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        self.rows.update_tenant(tenant).await
    }
}

struct Stage {
    database: Arc<Database>,
    clock: Arc<ManualClock>,
    caller: StoredCaller,
}

const STORED: Identity = Identity::ApiKey([1; 32]);
const CONFIGURED: Identity = Identity::ApiKey([2; 32]);
const STRANGER: Identity = Identity::ApiKey([3; 32]);

fn tenant_id() -> TenantId {
    TenantId::new("acme").unwrap()
}

impl Stage {
    async fn new() -> Self {
        let (database, clock) = (Arc::new(Database::default()), Arc::new(ManualClock::new()));
        let caller = StoredCaller {
            tenant: tenant_id(),
            id: CallerId::new("stored").unwrap(),
            description: String::new(),
            rules: vec![Rule::everything()],
            admin: AdminRights::default(),
            identities: [Identity::SpiffeId("spiffe://example.org/a".to_owned())].into(),
            disabled_at: None,
            revision: 1,
            created_at: clock.now(),
            updated_at: clock.now(),
        };
        database.insert_caller(caller.clone()).await.unwrap();
        let stage = Self { database, clock, caller };
        stage.add_key([1; 32], None).await;
        stage
    }

    async fn add_key(&self, hash: [u8; 32], expires_at: Option<Timestamp>) {
        let key = ApiKey {
            id: ApiKeyId::from_bytes([hash[0]; 16]),
            tenant: self.caller.tenant.clone(),
            caller: self.caller.id.clone(),
            label: String::new(),
            created_at: self.clock.now(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        self.database.insert_api_key(NewApiKey { key, hash }).await.unwrap();
    }

    /// A replica's.
    fn directory(&self) -> Directory {
        let id = CallerId::new("configured").unwrap();
        let configured =
            ConfiguredCallers::new([(Caller::new(id, tenant_id(), vec![]), vec![Identity::ApiKey([2; 32])])]);
        let store = self.database.clone();
        Directory::new(configured, store.clone(), store, self.clock.clone(), TTL)
    }

    fn asked(&self) -> u32 {
        self.database.asked.swap(0, Ordering::SeqCst)
    }
}

async fn who(directory: &Directory, identity: &Identity) -> Option<String> {
    directory.caller(identity).await.unwrap().map(|caller| caller.id.to_string())
}

#[tokio::test]
async fn a_revoked_key_is_refused_on_every_replica_within_the_bound() {
    let stage = Stage::new().await;
    let replicas = [stage.directory(), stage.directory()];
    for replica in &replicas {
        assert_eq!(who(replica, &STORED).await.as_deref(), Some("stored"));
    }
    stage.clock.advance(Duration::from_secs(1));
    let id = ApiKeyId::from_bytes([1; 16]);
    stage
        .database
        .revoke_api_key(&stage.caller.tenant, &stage.caller.id, id, stage.clock.now())
        .await
        .unwrap();
    for replica in &replicas {
        // Within the bound it may be taken; behind it never.
        assert_eq!(who(replica, &STORED).await.as_deref(), Some("stored"));
    }
    stage.clock.advance(Duration::from_secs(4));
    for replica in &replicas {
        assert_eq!(who(replica, &STORED).await, None);
    }
    // Another identity of the same caller is as good as before.
    let spiffe = Identity::SpiffeId("spiffe://example.org/a".to_owned());
    assert_eq!(who(&replicas[0], &spiffe).await.as_deref(), Some("stored"));
}

#[tokio::test]
async fn a_new_key_works_within_the_bound_although_it_was_tried_before() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    assert_eq!(who(&directory, &STRANGER).await, None);
    stage.asked();
    for _ in 0..100 {
        assert_eq!(who(&directory, &STRANGER).await, None);
    }
    assert_eq!(stage.asked(), 0, "that it is nobody's is remembered");
    stage.add_key([3; 32], None).await;
    stage.clock.advance(TTL);
    assert_eq!(who(&directory, &STRANGER).await.as_deref(), Some("stored"));
}

#[tokio::test]
async fn expiry_is_to_the_moment() {
    let stage = Stage::new().await;
    let end = stage.clock.now() + jiff::SignedDuration::from_secs(2);
    stage.add_key([3; 32], Some(end)).await;
    let directory = stage.directory();
    stage.clock.advance(Duration::from_millis(1_999));
    assert_eq!(who(&directory, &STRANGER).await.as_deref(), Some("stored"));
    stage.clock.advance(Duration::from_millis(1));
    assert_eq!(who(&directory, &STRANGER).await, None);
}

#[tokio::test]
async fn an_outage_is_never_not_known() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    for identity in [&STORED, &CONFIGURED] {
        assert!(who(&directory, identity).await.is_some());
    }
    stage.database.down.store(true, Ordering::SeqCst);
    stage.clock.advance(Duration::from_millis(4_999));
    // Also the look that renews, halfway, fails, and is not held against the caller.
    for _ in 0..3 {
        assert_eq!(who(&directory, &STORED).await.as_deref(), Some("stored"));
    }
    assert!(matches!(directory.caller(&STRANGER).await, Err(StoreError::Unavailable(_))));
    stage.clock.advance(Duration::from_millis(1));
    assert!(matches!(directory.caller(&STORED).await, Err(StoreError::Unavailable(_))));
    // The configuration knows its own callers for as long as it lasts.
    stage.clock.advance(Duration::from_secs(3600));
    assert_eq!(who(&directory, &CONFIGURED).await.as_deref(), Some("configured"));
    // A replica that has never asked does not know how the tenant stands.
    assert!(matches!(stage.directory().caller(&CONFIGURED).await, Err(StoreError::Unavailable(_))));
    stage.database.down.store(false, Ordering::SeqCst);
    assert_eq!(who(&directory, &STORED).await.as_deref(), Some("stored"));
}

#[tokio::test]
async fn who_is_disabled_is_known_and_suspended() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    let suspension =
        async |identity: &Identity| directory.caller(identity).await.unwrap().unwrap().suspension;
    for identity in [&STORED, &CONFIGURED] {
        assert_eq!(suspension(identity).await, None);
    }
    let now = stage.clock.now();
    let disabled = StoredCaller { disabled_at: Some(now), ..stage.caller.clone() };
    stage.database.update_caller(disabled).await.unwrap();
    stage.clock.advance(TTL);
    assert_eq!(suspension(&STORED).await, Some(Suspension::Caller));
    assert_eq!(suspension(&CONFIGURED).await, None);
    let tenant = Tenant {
        id: tenant_id(),
        display_name: String::new(),
        created_at: now,
        disabled_at: Some(now),
        deleted_at: None,
    };
    stage.database.insert_tenant(tenant.clone()).await.unwrap();
    stage.clock.advance(TTL);
    for identity in [&STORED, &CONFIGURED] {
        assert_eq!(suspension(identity).await, Some(Suspension::Tenant));
    }
    // An outage enables nobody.
    stage.database.down.store(true, Ordering::SeqCst);
    stage.clock.advance(TTL * 10);
    assert_eq!(suspension(&CONFIGURED).await, Some(Suspension::Tenant));
    stage.database.down.store(false, Ordering::SeqCst);
    // Of a deleted tenant its stored callers are gone, and those of the configuration may do nothing.
    stage.database.update_tenant(Tenant { deleted_at: Some(now), ..tenant }).await.unwrap();
    stage.clock.advance(TTL);
    assert_eq!(who(&directory, &STORED).await, None);
    assert_eq!(suspension(&CONFIGURED).await, Some(Suspension::Tenant));
}

#[tokio::test]
async fn in_the_second_half_one_call_asks_again_for_all() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    who(&directory, &STORED).await;
    stage.asked();
    stage.clock.advance(TTL / 2);
    for _ in 0..50 {
        who(&directory, &STORED).await;
    }
    assert_eq!(stage.asked(), 2, "once for the caller, once for its tenant");
}

#[tokio::test]
async fn the_use_of_a_key_is_noted() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    who(&directory, &STORED).await;
    // Nobody waits for the note but this test.
    let noted = async {
        loop {
            let keys = stage.database.list_api_keys(&stage.caller.tenant, &stage.caller.id).await.unwrap();
            match keys[0].last_used_at {
                Some(at) => break at,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let noted = tokio::time::timeout(Duration::from_secs(30), noted).await.unwrap();
    assert_eq!(noted, stage.clock.now());
}

#[tokio::test]
async fn whoever_was_a_caller_is_remembered_and_no_stranger_is() {
    let stage = Stage::new().await;
    let directory = stage.directory();
    assert!(directory.remembers(&CONFIGURED) && !directory.remembers(&STORED));
    for identity in [&STORED, &STRANGER] {
        who(&directory, identity).await;
    }
    stage.asked();
    assert!(directory.remembers(&STORED) && !directory.remembers(&STRANGER));
    // However long ago: it is looked up again, and not as a stranger.
    stage.clock.advance(TTL * 100);
    assert!(directory.remembers(&STORED));
    assert_eq!(stage.asked(), 0);
    stage.database.delete_caller(&stage.caller.tenant, &stage.caller.id).await.unwrap();
    who(&directory, &STORED).await;
    assert!(!directory.remembers(&STORED), "what it has lost");
}
