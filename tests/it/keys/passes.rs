//! The background that moves rows to the active data keys.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::application::keys::Whose;
use token_broker::domain::cipher::Field;
use token_broker::domain::data_key::{
    KeyKeeper as _, PassStep, Reencryption, ReencryptionStore, RenewedRow, RowId, RowsPerKey, SealedRow,
    SealedTable,
};
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::StoreError;

use super::world::{World, keys, open, operator, seal};
use crate::contract::samples::{at, grant_id, key, lineage, tenant};
use crate::contract::{self, Stores};

/// The number of users whose rows are more than one batch.
const USERS: u32 = 230;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_moves_every_row_of_every_table_and_all_of_them_open_meanwhile() {
    let world = World::new().await;
    world.populate(USERS).await;
    let acme = tenant("acme");
    let old = world.active(&acme).await;
    let before = world.stores.row(&key("user-7")).await;
    let rotated = world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    let new = world.active(&acme).await;
    assert_eq!(rotated.len(), 1);
    assert_eq!((&rotated[0].tenant, rotated[0].data_key), (&acme, new));
    assert_ne!(old, new);
    assert_eq!(world.in_use().await, [old].into());
    // Not before every replica has learned of it.
    world.keys.work().await;
    assert_eq!(world.state().await.pass, 0);
    world.clock.advance(Duration::from_secs(20));
    let fields = usize::try_from(USERS).unwrap() * 7;
    let mut steps = 0;
    while world.in_use().await.contains(&old) {
        world.keys.work().await;
        assert_eq!(world.all_open(&world.replica()).await, fields, "after {steps} steps");
        steps += 1;
    }
    assert!(steps > 6, "several batches: {steps}");
    world.work(&world.keys).await;
    assert_eq!(world.in_use().await, [new].into());
    let row = world.stores.row(&key("user-7")).await;
    assert_eq!(
        (row.generation, row.epoch, row.updated_at),
        (before.generation, before.epoch, before.updated_at)
    );
    let tokens = row.tokens().unwrap();
    assert_ne!(tokens.access_sealed, before.tokens().unwrap().access_sealed);
    let text = open(&world.vault, &row.key, row.grant_id, Field::AccessToken, &tokens.access_sealed).await;
    assert_eq!(text.unwrap(), "access 7");
    // The report, after a pass that found nothing to do.
    let page = world.status().await;
    let rows = |id| page.data_keys.iter().find(|key| key.id == id).unwrap().rows.unwrap();
    let users = u64::from(USERS);
    assert_eq!((rows(new).credentials, rows(new).flows, rows(new).revocations), (users, users, users));
    assert_eq!((rows(old).credentials, rows(old).flows, rows(old).revocations), (0, 0, 0));
    let progress = page.progress;
    assert_eq!((progress.under_way, progress.left, progress.counts.renewed), (false, 0, 0));
    assert_eq!((rows(new).user_keys, rows(old).user_keys), (users, 0));
    assert_eq!(progress.counts.looked_at, users * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_with_a_key_that_a_replica_takes_for_active_is_found_by_a_later_pass() {
    let world = World::new().await;
    world.populate(3).await;
    let (late, straggler) = (world.replica(), world.replica());
    let alice = key("alice");
    for vault in [&late, &straggler] {
        seal(vault, &alice, grant_id(1), Field::Profile, "warm").await;
    }
    let old = world.active(&alice.tenant).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    let made_with = async |vault: &token_broker::infra::crypto::Vault| {
        vault.made_with(&seal(vault, &alice, grant_id(1), Field::Profile, "x").await).unwrap()
    };
    assert_eq!(made_with(&late).await, old, "it has not heard of it");
    late.follow().await.unwrap();
    assert_ne!(made_with(&late).await, old);
    // A ciphertext of the old key comes into a row when the first pass is over.
    world.clock.advance(Duration::from_secs(20));
    while world.in_use().await.contains(&old) {
        world.keys.work().await;
    }
    let row = world.stores.row(&key("user-1")).await;
    let epoch = world.stores.claimed(&row, 7, at(20)).await;
    let mut write = lineage(&row, epoch, 8, at(21));
    let sealed = &mut write.tokens;
    sealed.access_sealed = seal(&straggler, &row.key, row.grant_id, Field::AccessToken, "straggler").await;
    sealed.refresh.as_mut().unwrap().sealed =
        seal(&straggler, &row.key, row.grant_id, Field::RefreshToken, "straggler").await;
    sealed.profile_sealed = row.tokens().unwrap().profile_sealed.clone();
    world.stores.credentials.persist_lineage(write).await.unwrap();
    world.work(&world.keys).await;
    assert!(!world.in_use().await.contains(&old));
    world.all_open(&world.vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_worker_is_followed_by_another_that_goes_on_where_it_stopped() {
    let world = World::new().await;
    world.populate(USERS).await;
    let old = world.active(&tenant("acme")).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.clock.advance(Duration::from_secs(20));
    for _ in 0..3 {
        world.keys.work().await;
    }
    let stopped = world.state().await;
    assert_eq!((stopped.pass, stopped.counts.looked_at, stopped.counts.renewed), (1, 200, 200));
    // The other replica waits for the lease to run out, and not a row longer.
    let vault = world.replica();
    let other = world.keys_of(&vault, 2);
    other.work().await;
    assert_eq!(world.state().await.counts, stopped.counts, "somebody is at it");
    world.clock.advance(Duration::from_secs(21));
    other.work().await;
    let went_on = world.state().await;
    assert_eq!((went_on.pass, went_on.began_at), (1, stopped.began_at));
    assert_eq!(went_on.counts.looked_at, 230, "the rest of the credentials, none of the first 200 again");
    // The first one was only asleep: it changes nothing that is not its to change.
    world.keys.work().await;
    assert_eq!(world.state().await.counts, went_on.counts);
    world.work(&other).await;
    assert!(!world.in_use().await.contains(&old));
    world.all_open(&world.vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_in_order_leaves_the_work_to_the_next_at_once() {
    let world = World::new().await;
    world.populate(USERS).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.clock.advance(Duration::from_secs(20));
    for _ in 0..2 {
        world.keys.work().await;
    }
    world.keys.stop_working().await;
    let stopped = world.state().await;
    assert_eq!((stopped.lease_until, stopped.counts.looked_at), (None, 100));
    let vault = world.replica();
    world.keys_of(&vault, 2).work().await;
    assert_eq!(world.state().await.counts.looked_at, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_does_not_open_is_counted_and_left_and_holds_up_no_other() {
    let world = World::new().await;
    world.populate(5).await;
    let old = world.active(&tenant("acme")).await;
    // Another user's ciphertext in this row: moved ciphertexts do not open, and are not made to.
    let row = world.stores.row(&key("user-2")).await;
    let other = world.stores.row(&key("user-3")).await;
    let was = world.stores.reencryption.sealed_rows(SealedTable::Credentials, None, 99).await.unwrap();
    let was = was.into_iter().find(|sealed| sealed.key == row.key).unwrap();
    let mut is = was.clone();
    is.fields[0].1 = other.tokens().unwrap().access_sealed.clone();
    let moved = [RenewedRow { was, is: is.clone() }];
    assert_eq!(
        world.stores.reencryption.replace_sealed(SealedTable::Credentials, &moved).await.unwrap().len(),
        1
    );
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.work(&world.keys).await;
    let state = world.state().await;
    assert_eq!((state.counts.unreadable, state.counts.looked_at), (1, 20));
    let page = world.status().await;
    let rows = page.data_keys.iter().find(|key| key.id == old).unwrap().rows.unwrap();
    assert_eq!((rows.credentials, rows.flows, rows.revocations), (1, 0, 0));
    let left = world.stores.reencryption.sealed_rows(SealedTable::Credentials, None, 99).await.unwrap();
    assert!(left.contains(&is), "as it was");
}

/// Lets something happen between the read of a page and the replacement of its rows.
struct Meddling {
    inner: Arc<dyn ReencryptionStore>,
    stores: Stores,
    vault: Arc<token_broker::infra::crypto::Vault>,
}

#[async_trait]
impl ReencryptionStore for Meddling {
    async fn sealed_rows(
        &self,
        table: SealedTable,
        after: Option<RowId>,
        limit: u32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let rows = self.inner.sealed_rows(table, after, limit).await?;
        let row = self.stores.row(&key("user-2")).await;
        if table == SealedTable::Credentials && row.generation == 1 {
            let epoch = self.stores.claimed(&row, 7, at(20)).await;
            let mut write = lineage(&row, epoch, 8, at(21));
            let sealed = seal(&self.vault, &row.key, row.grant_id, Field::AccessToken, "refreshed").await;
            write.tokens.access_sealed = sealed;
            let sealed = seal(&self.vault, &row.key, row.grant_id, Field::RefreshToken, "refreshed").await;
            write.tokens.refresh.as_mut().unwrap().sealed = sealed;
            write.tokens.profile_sealed = row.tokens().unwrap().profile_sealed.clone();
            self.stores.credentials.persist_lineage(write).await?;
        }
        Ok(rows)
    }

    async fn replace_sealed(
        &self,
        table: SealedTable,
        rows: &[RenewedRow],
    ) -> Result<Vec<RowId>, StoreError> {
        self.inner.replace_sealed(table, rows).await
    }

    async fn expected_rows(&self) -> Result<u64, StoreError> {
        self.inner.expected_rows().await
    }

    async fn reencryption(&self) -> Result<Reencryption, StoreError> {
        self.inner.reencryption().await
    }

    async fn request_reencryption(&self, now: Timestamp) -> Result<(), StoreError> {
        self.inner.request_reencryption(now).await
    }

    async fn take_reencryption(
        &self,
        worker: ClaimOwner,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Reencryption>, StoreError> {
        self.inner.take_reencryption(worker, now, lease).await
    }

    async fn save_reencryption(
        &self,
        worker: ClaimOwner,
        step: &PassStep,
        now: Timestamp,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        self.inner.save_reencryption(worker, step, now, lease).await
    }

    async fn rows_per_key(&self, pass: i64) -> Result<RowsPerKey, StoreError> {
        self.inner.rows_per_key(pass).await
    }

    async fn forget_passes(&self, before: i64) -> Result<(), StoreError> {
        self.inner.forget_passes(before).await
    }
}

async fn a_refresh_meanwhile_wins(stores: Stores) {
    let keyring = token_broker::infra::crypto::Keyring::new(vec![super::world::kek("k1", 1)], "k1").unwrap();
    let world = World::over(stores, keyring);
    world.populate(4).await;
    let old = world.active(&tenant("acme")).await;
    let inner = world.stores.reencryption.clone();
    let meddling = Meddling { inner, stores: world.stores.clone(), vault: world.vault.clone() };
    let keys = keys(&world.stores, &world.vault, &world.clock, 1, Arc::new(meddling));
    keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.clock.advance(Duration::from_secs(20));
    keys.work().await;
    keys.work().await;
    let counts = world.state().await.counts;
    assert_eq!((counts.looked_at, counts.renewed, counts.skipped), (4, 3, 1));
    let row = world.stores.row(&key("user-2")).await;
    assert_eq!(row.generation, 2, "the refresh is there");
    world.work(&keys).await;
    assert!(!world.in_use().await.contains(&old), "its profile, too, was moved by the next pass");
    let row = world.stores.row(&key("user-2")).await;
    let access = &row.tokens().unwrap().access_sealed;
    let text = open(&world.vault, &row.key, row.grant_id, Field::AccessToken, access).await.unwrap();
    assert_eq!(text, "refreshed");
    world.all_open(&world.vault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_while_rows_are_moved_is_never_overwritten() {
    a_refresh_meanwhile_wins(contract::sqlite().await).await;
    a_refresh_meanwhile_wins(contract::memory().await).await;
    a_refresh_meanwhile_wins(contract::postgres().await).await;
}
