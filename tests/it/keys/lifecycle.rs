//! Retirement, another key-encryption key, deletion, and who may do all that.

use std::sync::Arc;
use std::time::Duration;

use token_broker::application::error::{BrokerError, NotFound, Precondition};
use token_broker::application::keys::{Refusal, Whose};
use token_broker::domain::admin_policy::{AdminAction, AdminRights};
use token_broker::domain::caller_store::Tenant;
use token_broker::domain::cipher::{Binding, Cipher as _, CipherError, Field};
use token_broker::domain::data_key::{DataKeyId, DataKeyPurpose, KeyKeeper as _};
use token_broker::domain::ports::Clock as _;
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::infra::crypto::{Keyring, Vault};

use super::world::{RETIRE_AFTER, World, kek, open, operator, principal, seal, vault};
use crate::contract;
use crate::contract::samples::{grant_id, key, key_of, tenant};

async fn refused(world: &World, id: DataKeyId) -> Refusal {
    match world.keys.retire(&operator(), id).await {
        Err(BrokerError::FailedPrecondition(Precondition::KeyInUse(refusal))) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn retired(world: &World) -> DataKeyId {
    let old = world.active(&tenant("acme")).await;
    world.keys.rotate(&operator(), Whose::Own).await.unwrap();
    old
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_key_is_retired_when_nothing_needs_it_and_not_before() {
    let world = World::new().await;
    world.populate(4).await;
    world.vault.fingerprint(&tenant("acme"), &SecretString::from("token")).await.unwrap();
    let mac = world.stores.data_keys.newest_data_key(&tenant("acme"), DataKeyPurpose::Fingerprint).await;
    assert_eq!(refused(&world, mac.unwrap().unwrap().id).await, Refusal::Fingerprints);
    let first = world.active(&tenant("acme")).await;
    assert_eq!(refused(&world, first).await, Refusal::Active);
    let old = retired(&world).await;
    let superseded = world.stores.data_keys.data_key(old).await.unwrap().unwrap().superseded_at.unwrap();
    assert_eq!(refused(&world, old).await, Refusal::TooEarly { until: superseded + RETIRE_AFTER });
    world.work(&world.keys).await;
    // All rows have moved, but a copy of a token may still come back.
    assert!(matches!(refused(&world, old).await, Refusal::TooEarly { .. }));
    world.clock.advance(RETIRE_AFTER);
    // What the last pass saw may not be true any more: another one is begun.
    assert_eq!(refused(&world, old).await, Refusal::Counting);
    assert_eq!(refused(&world, old).await, Refusal::Counting);
    world.work(&world.keys).await;
    world.keys.retire(&operator(), old).await.unwrap();
    assert_eq!(world.stores.data_keys.data_key(old).await.unwrap(), None);
    assert!(matches!(
        world.keys.retire(&operator(), old).await,
        Err(BrokerError::NotFound(NotFound::DataKey))
    ));
    world.all_open(&world.replica()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_key_with_rows_is_not_retired() {
    let world = World::new().await;
    world.populate(2).await;
    let alice = key("user-1");
    let row = world.stores.row(&alice).await;
    let sealed = world
        .stores
        .reencryption
        .sealed_rows(token_broker::domain::data_key::SealedTable::Credentials, None, 9)
        .await
        .unwrap();
    let was = sealed.into_iter().find(|sealed| sealed.key == alice).unwrap();
    let mut is = was.clone();
    // Sealed for another grant: it does not open here, and so can't be moved.
    is.fields[0].1 = seal(&world.vault, &row.key, grant_id(77), Field::AccessToken, "x").await;
    let moved = [token_broker::domain::data_key::RenewedRow { was, is }];
    let table = token_broker::domain::data_key::SealedTable::Credentials;
    world.stores.reencryption.replace_sealed(table, &moved).await.unwrap();
    let old = retired(&world).await;
    world.clock.advance(RETIRE_AFTER + Duration::from_secs(60));
    world.work(&world.keys).await;
    let Refusal::InUse { rows } = refused(&world, old).await else { panic!("in use") };
    assert_eq!((rows.credentials, rows.flows, rows.revocations), (1, 0, 0));
    assert!(world.state().await.requested_at.is_some(), "another pass was asked for");
    assert!(world.stores.data_keys.data_key(old).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_keys_take_a_right_of_their_own() {
    let world = World::new().await;
    world.populate(1).await;
    seal(
        &world.vault,
        &key_of("other", "google", "bob", "mail", "default"),
        grant_id(9),
        Field::Profile,
        "x",
    )
    .await;
    let theirs = world.active(&tenant("other")).await;
    let rights = |actions: &[AdminAction]| AdminRights {
        actions: actions.iter().copied().collect(),
        all_tenants: false,
    };
    let nobody = principal("acme", rights(&[AdminAction::ManageCallers, AdminAction::ReadAudit]));
    let own = principal("acme", rights(&[AdminAction::ManageKeys]));
    let denied =
        |outcome: Result<(), BrokerError>| assert!(matches!(outcome, Err(BrokerError::PermissionDenied)));
    for (who, whose) in
        [(&nobody, Whose::Own), (&nobody, Whose::All), (&own, Whose::All), (&own, Whose::Of(tenant("other")))]
    {
        denied(world.keys.rotate(who, whose.clone()).await.map(|_| ()));
        let query = token_broker::application::keys::KeysQuery { whose, after: None, limit: 9 };
        denied(world.keys.status(who, &query).await.map(|_| ()));
    }
    denied(world.keys.rewrap(&nobody).await.map(|_| ()));
    denied(world.keys.rewrap(&own).await.map(|_| ()));
    denied(world.keys.retire(&nobody, theirs).await);
    // What is not theirs is not there.
    for id in [theirs, [9; 16]] {
        assert!(matches!(world.keys.retire(&own, id).await, Err(BrokerError::NotFound(NotFound::DataKey))));
    }
    let query = token_broker::application::keys::KeysQuery { whose: Whose::Own, after: None, limit: 9 };
    let page = world.keys.status(&own, &query).await.unwrap();
    assert!(page.data_keys.iter().all(|key| key.tenant == tenant("acme")) && !page.data_keys.is_empty());
    // Nothing was changed by all that.
    assert_eq!(world.active(&tenant("other")).await, theirs);
    let rotated = world.keys.rotate(&operator(), Whose::All).await.unwrap();
    assert_eq!(rotated.len(), 2);
    assert_ne!(world.active(&tenant("other")).await, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_of_one_tenant_rotates_once_an_hour_and_holds_up_no_other() {
    let world = World::new().await;
    world.populate(1).await;
    let rights = AdminRights { actions: [AdminAction::ManageKeys].into(), all_tenants: false };
    let own = principal("acme", rights);
    let refused = async || match world.keys.rotate(&own, Whose::Own).await {
        Err(BrokerError::FailedPrecondition(Precondition::RotatedLately { until })) => until,
        other => panic!("{other:?}"),
    };
    let until = refused().await;
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(until, world.clock.now());
    assert_eq!(world.keys.rotate(&own, Whose::Own).await.unwrap().len(), 1);
    world.clock.advance(Duration::from_secs(20));
    world.work(&world.keys).await;
    for _ in 0..3 {
        refused().await;
    }
    assert_eq!(world.state().await.requested_at, None, "no pass was asked for");
    assert_eq!(world.keys.rotate(&operator(), Whose::Own).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_move_to_another_key_encryption_key_and_the_former_one_is_not_needed_any_more() {
    let stores = contract::sqlite().await;
    let world = World::over(stores, Keyring::new(vec![kek("k1", 1)], "k1").unwrap());
    world.populate(2).await;
    for n in 0..120 {
        let other = key_of(&format!("t{n}"), "google", "bob", "mail", "default");
        seal(&world.vault, &other, grant_id(9), Field::Profile, "x").await;
    }
    retired(&world).await;
    let both = || Keyring::new(vec![kek("k1", 1), kek("k2", 7)], "k2").unwrap();
    let (one, two) = (vault(&world.stores, both(), &world.clock), vault(&world.stores, both(), &world.clock));
    // One data key is damaged: it stays, is told of, and holds up no other.
    let damaged = world.active(&tenant("t5")).await;
    let was = world.stores.data_keys.data_key(damaged).await.unwrap().unwrap();
    let mut is = was.clone();
    is.wrapped[20] ^= 1;
    assert!(world.stores.data_keys.rewrap_data_key(&was, &is).await.unwrap());
    let mut done = 0;
    let mut last;
    loop {
        // Two replicas at a time.
        let (a, b) = tokio::join!(one.rewrap(10), two.rewrap(10));
        let (a, b) = (a.unwrap(), b.unwrap());
        done += a.done + b.done;
        last = a;
        if !a.more && !b.more {
            break;
        }
    }
    assert_eq!((done, last.failed), (121, 1), "122 data keys, one damaged");
    let left = world.stores.data_keys.data_keys_under("k1", 9).await.unwrap();
    assert_eq!(left.iter().map(|key| key.id).collect::<Vec<_>>(), [damaged]);
    let mended = one_under(&world, &was).await;
    assert_eq!(mended.failed + mended.done, 1);
    let only_new = || Keyring::new(vec![kek("k2", 7)], "k2").unwrap();
    let without = vault(&world.stores, only_new(), &world.clock);
    without.check().await.unwrap();
    world.all_open(&without).await;
    // A replica that knows the new key not yet opens what it has in memory, and says which key it lacks for the rest.
    world.all_open(&world.vault).await;
    let behind = vault(&world.stores, Keyring::new(vec![kek("k1", 1)], "k1").unwrap(), &world.clock);
    let sealed = world.stores.row(&key("user-1")).await;
    let access = &sealed.tokens().unwrap().access_sealed;
    let opened = open(&behind, &sealed.key, sealed.grant_id, Field::AccessToken, access).await;
    assert!(matches!(opened, Err(CipherError::UnknownKey)), "{opened:?}");
}

/// Puts the damaged data key right, and moves it.
async fn one_under(
    world: &World,
    intact: &token_broker::domain::data_key::WrappedDataKey,
) -> token_broker::domain::data_key::Rewrapped {
    let damaged = world.stores.data_keys.data_key(intact.id).await.unwrap().unwrap();
    assert!(world.stores.data_keys.rewrap_data_key(&damaged, intact).await.unwrap());
    let both = Keyring::new(vec![kek("k1", 1), kek("k2", 7)], "k2").unwrap();
    vault(&world.stores, both, &world.clock).rewrap(10).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_data_keys_a_tenants_tokens_are_unreadable_wherever_a_copy_is() {
    let world = World::new().await;
    world.populate(3).await;
    let other = key_of("other", "google", "bob", "mail", "default");
    let theirs = seal(&world.vault, &other, grant_id(9), Field::Profile, "theirs").await;
    let row = world.stores.row(&key("user-1")).await;
    let copy = row.tokens().unwrap().access_sealed.clone();
    let read = async |vault: &Vault| open(vault, &row.key, row.grant_id, Field::AccessToken, &copy).await;
    let replica: Arc<Vault> = world.replica();
    assert_eq!(read(&replica).await.unwrap(), "access 1");
    let acme = Tenant {
        id: tenant("acme"),
        display_name: String::new(),
        created_at: row.created_at,
        disabled_at: None,
        deleted_at: None,
    };
    world.stores.tenants.insert_tenant(acme.clone()).await.unwrap();
    let deleted = Tenant { deleted_at: Some(row.created_at), ..acme };
    world.stores.tenants.update_tenant(deleted).await.unwrap();
    assert_eq!(read(&replica).await.unwrap(), "access 1", "it has not heard of it");
    for vault in [&replica, &world.vault] {
        vault.follow().await.unwrap();
        assert!(matches!(read(vault).await, Err(CipherError::DoesNotOpen)));
        // Nothing is sealed for it any more that would open.
        let binding = Binding { key: &row.key, grant: row.grant_id, field: Field::AccessToken };
        let sealed = vault.seal(binding, &SecretBytes::new(b"late".to_vec())).await;
        assert!(matches!(sealed, Err(CipherError::KeysDeleted)), "{sealed:?}");
        assert_eq!(open(vault, &other, grant_id(9), Field::Profile, &theirs).await.unwrap(), "theirs");
    }
}
