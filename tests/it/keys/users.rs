//! Users' own keys under data keys that are replaced: they move like rows, and a data key that one of them is under stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use token_broker::application::error::{BrokerError, Precondition};
use token_broker::application::keys::{Refusal, Whose};
use token_broker::domain::cipher::{CipherError, Field};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{DataKeyId, KeyKeeper as _, RenewedRow, SealedTable};
use token_broker::domain::ports::Entropy;
use token_broker::domain::user_key::UserDeletion;
use token_broker::infra::crypto::{Keyring, Vault};

use super::world::{RETIRE_AFTER, World, kek, keys, open, operator, seal};
use crate::contract::samples::{key, new_grant, revoke_write, tenant};
use crate::contract::{self, Stores};

/// The data keys that users' keys are under.
async fn under(world: &World) -> std::collections::BTreeSet<DataKeyId> {
    let rows = world.stores.reencryption.sealed_rows(SealedTable::UserKeys, None, 10_000).await.unwrap();
    let keys = rows.iter().flat_map(|row| &row.fields);
    keys.map(|(_, sealed)| world.vault.made_with(sealed).unwrap()).collect()
}

async fn rotation_moves_users_keys(stores: Stores) {
    let world = World::over(stores, Keyring::new(vec![kek("k1", 1)], "k1").unwrap());
    world.populate(3).await;
    let old = world.active(&tenant("acme")).await;
    assert_eq!(under(&world).await, [old].into());
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.work(&world.keys).await;
    let new = world.active(&tenant("acme")).await;
    assert_eq!(under(&world).await, [new].into());
    // The keys themselves are the same: what was sealed with them before opens.
    assert_eq!(world.all_open(&world.replica()).await, 3 * 7);
    let page = world.status().await;
    let rows = |id| page.data_keys.iter().find(|key| key.id == id).unwrap().rows.unwrap();
    assert_eq!((rows(old).user_keys, rows(new).user_keys, rows(new).credentials), (0, 3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_keys_move_with_a_rotation_on_every_database() {
    rotation_moves_users_keys(contract::sqlite().await).await;
    rotation_moves_users_keys(contract::memory().await).await;
    rotation_moves_users_keys(contract::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_among_users_keys_is_followed_by_another() {
    let world = World::new().await;
    for n in 0..230 {
        let user = key(&format!("user-{n}"));
        seal(&world.vault, &user, crate::contract::samples::grant_id(n), Field::Profile, "x").await;
    }
    let old = world.active(&tenant("acme")).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    let new = world.active(&tenant("acme")).await;
    world.clock.advance(Duration::from_secs(20));
    while world.state().await.counts.renewed < 200 {
        world.keys.work().await;
    }
    let stopped = world.state().await;
    assert_eq!(stopped.place.map(|place| place.table), Some(SealedTable::UserKeys));
    assert_eq!(under(&world).await, [old, new].into());
    let vault = world.replica();
    let other = world.keys_of(&vault, 2);
    world.clock.advance(Duration::from_secs(21));
    other.work().await;
    let went_on = world.state().await;
    assert_eq!((went_on.pass, went_on.counts.renewed, went_on.counts.looked_at), (1, 230, 230));
    world.work(&other).await;
    assert_eq!(under(&world).await, [new].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_key_that_a_users_key_is_under_is_not_retired() {
    let world = World::new().await;
    world.populate(2).await;
    let table = SealedTable::UserKeys;
    let rows = world.stores.reencryption.sealed_rows(table, None, 9).await.unwrap();
    let [first, second] = &rows[..] else { panic!("two users") };
    // Another user's in its place does not open, and so can't be moved.
    let is = token_broker::domain::data_key::SealedRow { fields: second.fields.clone(), ..first.clone() };
    let damaged = [RenewedRow { was: first.clone(), is: is.clone() }];
    assert_eq!(world.stores.reencryption.replace_sealed(table, &damaged).await.unwrap().len(), 1);
    let old = world.active(&tenant("acme")).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.clock.advance(RETIRE_AFTER + Duration::from_secs(60));
    world.work(&world.keys).await;
    let refusal = world.keys.retire(&operator(), old).await;
    let Err(BrokerError::FailedPrecondition(Precondition::KeyInUse(Refusal::InUse { rows }))) = refusal
    else {
        panic!("in use: {refusal:?}")
    };
    assert_eq!((rows.user_keys, rows.flows), (1, 0));
    assert!(world.stores.data_keys.data_key(old).await.unwrap().is_some());
    // Put right, it is moved by the pass that was asked for, and nothing holds the data key any more.
    let mended = [RenewedRow { was: is, is: first.clone() }];
    assert_eq!(world.stores.reencryption.replace_sealed(table, &mended).await.unwrap().len(), 1);
    world.work(&world.keys).await;
    world.keys.retire(&operator(), old).await.unwrap();
    world.all_open(&world.replica()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_deleted_while_keys_are_moved_stays_deleted() {
    let world = World::new().await;
    world.populate(2).await;
    let gone = key("user-1");
    let table = SealedTable::UserKeys;
    let was = world.stores.reencryption.sealed_rows(table, None, 9).await.unwrap();
    let was = was.into_iter().find(|row| row.key.user == gone.user).unwrap();
    world
        .stores
        .credentials
        .revoke_with_outbox(revoke_write(&gone, None, jiff::Timestamp::UNIX_EPOCH))
        .await
        .unwrap();
    let deletion =
        UserDeletion { tenant: gone.tenant, user: gone.user, abandon_revocations: true, limit: 100 };
    world.stores.credentials.delete_user(&deletion).await.unwrap();
    // A pass that had read it comes too late.
    let moved = [RenewedRow { was: was.clone(), is: was }];
    assert!(world.stores.reencryption.replace_sealed(table, &moved).await.unwrap().is_empty());
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    world.work(&world.keys).await;
    assert_eq!(
        world.state().await.counts.unreadable,
        0,
        "nothing of the user's is left that could not be read"
    );
    assert_eq!(world.all_open(&world.replica()).await, 7);
}

/// As in `crypto_format.rs`: the data key that made its first golden record.
struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Alice's access token "canary", grant 1, as it was sealed before users had keys.
const FIRST_VERSION: &str = concat!(
    "01000102030405060708090a0b0c0d0e0f3c3d3e3f404142434445464748494a4b4c4d4e4f5051525354555657",
    "628e17ea8ad57dae8ac3347ca3146e7eca628c0bdd64",
);

async fn first_version_is_sealed_anew(stores: Stores) {
    let world = World::over(stores, Keyring::new(vec![kek("k1", 1)], "k1").unwrap());
    let keyring = Keyring::new(vec![kek("k1", 1)], "k1").unwrap();
    let entropy = Arc::new(Counting(AtomicU8::new(0)));
    let vault = Arc::new(Vault::new(keyring, world.stores.data_keys.clone(), entropy, world.clock.clone()));
    let alice = key("alice");
    let mut grant = new_grant(alice.clone(), 1);
    let id = grant.grant_id;
    grant.tokens.profile_sealed = seal(&vault, &alice, id, Field::Profile, "{}").await;
    grant.tokens.refresh = None;
    let first = Sealed(hex::decode(FIRST_VERSION).unwrap());
    grant.tokens.access_sealed = first.clone();
    world.stores.stored(grant).await;
    let read = async |sealed: &Sealed| open(&vault, &alice, id, Field::AccessToken, sealed).await;
    assert_eq!(read(&first).await.unwrap(), "canary");
    // No rotation: the data key is the active one. The migration asks for the same.
    let now = token_broker::domain::ports::Clock::now(&*world.clock);
    world.stores.reencryption.request_reencryption(now).await.unwrap();
    let worker = keys(&world.stores, &vault, &world.clock, 1, world.stores.reencryption.clone());
    world.work(&worker).await;
    let row = world.stores.row(&alice).await;
    let anew = row.tokens().unwrap().access_sealed.clone();
    assert_eq!((anew.0[0], read(&anew).await.unwrap().as_str()), (2, "canary"));
    assert_eq!((row.generation, row.epoch), (1, 1), "nothing else of the row has changed");
    // From now on it goes with the user's key; the copy from before still needs the data key only.
    world.stores.credentials.revoke_with_outbox(revoke_write(&alice, None, now)).await.unwrap();
    let deletion = UserDeletion {
        tenant: alice.tenant.clone(),
        user: alice.user.clone(),
        abandon_revocations: true,
        limit: 100,
    };
    world.stores.credentials.delete_user(&deletion).await.unwrap();
    world.clock.advance(Duration::from_secs(15));
    assert!(matches!(read(&anew).await, Err(CipherError::DoesNotOpen)));
    assert_eq!(read(&first).await.unwrap(), "canary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sealed_before_users_had_keys_is_sealed_anew_by_a_pass() {
    first_version_is_sealed_anew(contract::sqlite().await).await;
    first_version_is_sealed_anew(contract::memory().await).await;
    first_version_is_sealed_anew(contract::postgres().await).await;
}
