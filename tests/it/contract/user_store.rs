//! Users' keys, and what is left of a deleted user: nothing; and of all others: everything.

use token_broker::domain::caller_store::{Tenant, TenantWrite};
use token_broker::domain::cipher::Field;
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{RenewedRow, SealedTable};
use token_broker::domain::event::{EventPosition, EventQuery};
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::key::{CredentialKey, UserId};
use token_broker::domain::ports::{
    Consumed, GrantCondition, NewGrant, Persisted, RevocationOutcome, StoredGrant,
};
use token_broker::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion, user_key_binding};

use super::event_store::shown;
use super::samples::{
    app_flow, at, flow, flow_id, held, key, key_of, lineage, new_grant, outbox_id, revocation, revoke_write,
    set, state, tenant,
};
use super::{Stores, contract};

contract!(
    the_first_key_of_a_user_is_kept,
    of_two_first_keys_that_race_one_is_kept,
    the_users_of_a_deleted_tenant_get_no_key,
    a_users_key_is_a_sealed_row_like_any_other,
    nothing_is_left_of_a_deleted_user_and_everything_of_the_others,
    a_user_with_a_credential_is_not_deleted,
    what_providers_have_still_to_be_told_keeps_the_key_until_it_is_abandoned,
    many_rows_go_in_steps_and_the_key_last,
    a_consent_that_was_begun_before_ends_in_nothing,
    a_refresh_that_was_begun_before_ends_in_nothing,
    what_was_sealed_before_is_not_stored,
    of_an_import_and_a_deletion_that_race_one_sees_the_other,
);

pub(super) fn user_key(n: u8, key: &CredentialKey) -> StoredUserKey {
    StoredUserKey {
        id: [n; 16],
        tenant: key.tenant.clone(),
        user: key.user.clone(),
        sealed: Sealed(vec![n; 93]),
        created_at: at(i64::from(n)),
    }
}

fn deletion(user: &str) -> UserDeletion {
    UserDeletion {
        tenant: tenant("acme"),
        user: UserId::new(user).unwrap(),
        abandon_revocations: false,
        limit: 100,
    }
}

impl Stores {
    async fn with_key(&self, n: u8, key: &CredentialKey) {
        assert!(self.data_keys.user_key_or_insert(user_key(n, key)).await.unwrap().is_some());
    }

    async fn key_of(&self, key: &CredentialKey) -> Option<[u8; 16]> {
        let found = self.data_keys.user_key_of(&key.tenant, &key.user).await.unwrap();
        found.map(|found| found.id)
    }

    async fn delete(&self, deletion: &UserDeletion) -> UserDeleted {
        self.credentials.delete_user(deletion).await.unwrap()
    }

    /// How many events there are of a user.
    async fn events_of(&self, key: &CredentialKey) -> usize {
        shown(self).await;
        let (tenant, user) = (key.tenant.clone(), Some(key.user.clone()));
        let query = EventQuery { tenant, user, after: EventPosition::default(), limit: 100 };
        self.events.events_after(query).await.unwrap().events.len()
    }
}

async fn the_first_key_of_a_user_is_kept(stores: Stores) {
    let keys = &stores.data_keys;
    let (alice, theirs) = (key("alice"), key_of("other", "google", "alice", "mail", "default"));
    assert_eq!(keys.user_key_of(&alice.tenant, &alice.user).await.unwrap(), None);
    let first = user_key(1, &alice);
    assert_eq!(keys.user_key_or_insert(first.clone()).await.unwrap(), Some(first.clone()));
    assert_eq!(keys.user_key_or_insert(user_key(2, &alice)).await.unwrap(), Some(first.clone()));
    assert_eq!(keys.user_key_of(&alice.tenant, &alice.user).await.unwrap(), Some(first.clone()));
    assert_eq!(
        (keys.user_key([1; 16]).await.unwrap(), keys.user_key([2; 16]).await.unwrap()),
        (Some(first), None)
    );
    // Another tenant's user of the same name, and users of almost the same.
    stores.with_key(3, &theirs).await;
    for (n, name) in [(4, "Alice"), (5, "alic"), (6, "alice|x")] {
        assert_eq!(stores.key_of(&key(name)).await, None);
        stores.with_key(n, &key(name)).await;
        assert_eq!(stores.key_of(&key(name)).await, Some([n; 16]));
    }
    assert_eq!((stores.key_of(&alice).await, stores.key_of(&theirs).await), (Some([1; 16]), Some([3; 16])));
    let several = keys.user_keys(&[[1; 16], [9; 16], [3; 16]]).await.unwrap();
    assert_eq!(set(several.iter().map(|key| key.id)), set([[1; 16], [3; 16]]));
    assert!(keys.user_keys(&[]).await.unwrap().is_empty());
}

async fn of_two_first_keys_that_race_one_is_kept(stores: Stores) {
    let tasks: Vec<_> = (1..=16)
        .map(|n| {
            let keys = stores.data_keys.clone();
            tokio::spawn(async move {
                keys.user_key_or_insert(user_key(n, &key("alice"))).await.unwrap().unwrap().id
            })
        })
        .collect();
    let mut answers = set([]);
    for task in tasks {
        answers.insert(task.await.unwrap());
    }
    assert_eq!(answers.len(), 1, "every racer is told the same key: {answers:?}");
    assert_eq!(stores.key_of(&key("alice")).await, answers.pop_first());
}

async fn the_users_of_a_deleted_tenant_get_no_key(stores: Stores) {
    let acme = Tenant {
        id: tenant("acme"),
        display_name: String::new(),
        created_at: at(1),
        disabled_at: None,
        deleted_at: None,
    };
    assert_eq!(stores.tenants.insert_tenant(acme.clone()).await.unwrap(), TenantWrite::Done);
    stores.with_key(1, &key("alice")).await;
    let deleted = Tenant { deleted_at: Some(at(3)), ..acme };
    assert_eq!(stores.tenants.update_tenant(deleted).await.unwrap(), TenantWrite::Done);
    for name in ["alice", "bob"] {
        assert_eq!(stores.data_keys.user_key_or_insert(user_key(2, &key(name))).await.unwrap(), None);
    }
    assert_eq!(stores.data_keys.user_key([2; 16]).await.unwrap(), None);
    stores.with_key(3, &key_of("acm", "google", "alice", "mail", "default")).await;
}

async fn a_users_key_is_a_sealed_row_like_any_other(stores: Stores) {
    let before = stores.reencryption.expected_rows().await.unwrap();
    for (n, name) in [(3, "carol"), (1, "alice"), (2, "bob")] {
        stores.with_key(n, &key(name)).await;
    }
    let table = SealedTable::UserKeys;
    let rows = stores.reencryption.sealed_rows(table, None, 2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [[1; 16], [2; 16]]);
    let rest = stores.reencryption.sealed_rows(table, Some([2; 16]), 9).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.id).collect::<Vec<_>>(), [[3; 16]]);
    let alice = user_key(1, &key("alice"));
    let (place, grant) = user_key_binding(&alice.tenant, &alice.user, alice.id).unwrap();
    assert_eq!((&rows[0].key, rows[0].grant_id), (&place, grant), "what the vault has bound it to");
    assert_eq!(rows[0].fields, [(Field::UserKey, alice.sealed)]);
    let was = rows[0].clone();
    let mut is = was.clone();
    is.fields[0].1 = Sealed(vec![7; 93]);
    let moved = [RenewedRow { was, is: is.clone() }];
    assert_eq!(stores.reencryption.replace_sealed(table, &moved).await.unwrap(), [[1; 16]]);
    assert!(
        stores.reencryption.replace_sealed(table, &moved).await.unwrap().is_empty(),
        "not as it was read"
    );
    assert_eq!(stores.reencryption.sealed_rows(table, None, 1).await.unwrap(), [is]);
    assert!(stores.reencryption.expected_rows().await.unwrap() >= before, "an estimate");
}

/// A credential, an ended consent and one that waits, a finished revocation and a key.
async fn populate(stores: &Stores, key: &CredentialKey, n: u8) {
    let number = u32::from(n);
    stores.with_key(n, key).await;
    stores.connected(key.clone(), number).await;
    stores.begun(&flow(key.clone(), number, 0)).await;
    stores.begun(&app_flow(key.clone(), number + 100, 0)).await;
    stores.outbox.enqueue_revocation(revocation(key.clone(), number, 0)).await.unwrap();
    stores.outbox.finish_revocation(outbox_id(number), RevocationOutcome::Revoked, at(1)).await.unwrap();
}

async fn nothing_is_left_of_a_deleted_user_and_everything_of_the_others(stores: Stores) {
    let alice = key("alice");
    let others =
        [key("bob"), key("alic"), key("alice2"), key_of("other", "google", "alice", "mail", "default")];
    let second = key_of("acme", "github", "alice", "mail", "work");
    populate(&stores, &alice, 1).await;
    stores.connected(second.clone(), 2).await;
    for (n, other) in (3..).zip(&others) {
        populate(&stores, other, n).await;
    }
    for key in [&alice, &second] {
        assert!(stores.credentials.revoke_with_outbox(revoke_write(key, None, at(5))).await.unwrap().deleted);
    }
    assert!(stores.events_of(&alice).await > 0);
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Gone(Some([1; 16])));
    for key in [&alice, &second] {
        assert_eq!(stores.credentials.load(key).await.unwrap(), None);
        assert_eq!(stores.flows.latest_flow(key).await.unwrap(), None);
    }
    assert_eq!((stores.key_of(&alice).await, stores.events_of(&alice).await), (None, 0));
    // Only those that stand for the finished ones of the others: nothing is due, nothing is left to delete but theirs.
    assert_eq!(stores.outbox.delete_finished_revocations(at(99)).await.unwrap(), 4);
    for (n, other) in (3..).zip(&others) {
        assert!(stores.credentials.load(other).await.unwrap().unwrap().is_connected(), "{other:?}");
        assert!(stores.flows.load_flow(&other.tenant, flow_id(u32::from(n))).await.unwrap().is_some());
        assert!(stores.flows.load_flow(&other.tenant, flow_id(u32::from(n) + 100)).await.unwrap().is_some());
        assert_eq!(
            (stores.key_of(other).await, stores.events_of(other).await),
            (Some([n; 16]), 1),
            "{other:?}"
        );
    }
    // Again, and of whom nothing is known.
    for user in ["alice", "nobody"] {
        assert_eq!(stores.delete(&deletion(user)).await, UserDeleted::Gone(None));
    }
    // Who comes back begins anew.
    stores.with_key(9, &alice).await;
    assert_eq!(stores.connected(alice.clone(), 9).await.generation, 1);
}

async fn a_user_with_a_credential_is_not_deleted(stores: Stores) {
    let alice = key("alice");
    populate(&stores, &alice, 1).await;
    let row = stores.row(&alice).await;
    for abandon_revocations in [false, true] {
        let deletion = UserDeletion { abandon_revocations, ..deletion("alice") };
        assert_eq!(stores.delete(&deletion).await, UserDeleted::Partly);
        assert_eq!(stores.row(&alice).await, row);
        assert_eq!(stores.key_of(&alice).await, Some([1; 16]));
        assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending);
        assert_eq!(stores.events_of(&alice).await, 1);
    }
    assert_eq!(stores.outbox.delete_finished_revocations(at(99)).await.unwrap(), 1);
}

async fn what_providers_have_still_to_be_told_keeps_the_key_until_it_is_abandoned(stores: Stores) {
    let alice = key("alice");
    populate(&stores, &alice, 1).await;
    let revoke = revoke_write(&alice, Some(outbox_id(50)), at(5));
    assert!(stores.credentials.revoke_with_outbox(revoke).await.unwrap().deleted);
    stores.outbox.enqueue_revocation(revocation(key("bob"), 51, 0)).await.unwrap();
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Waiting(1));
    // Nothing was deleted, and it can be done.
    assert_eq!(stores.key_of(&alice).await, Some([1; 16]));
    assert!(stores.flows.latest_flow(&alice).await.unwrap().is_some());
    assert!(stores.credentials.load(&alice).await.unwrap().is_some());
    assert!(stores.outbox.take_revocation(outbox_id(50), at(6), at(7)).await.unwrap().is_some());
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Waiting(1));
    let abandon = UserDeletion { abandon_revocations: true, ..deletion("alice") };
    assert_eq!(stores.delete(&abandon).await, UserDeleted::Gone(Some([1; 16])));
    assert_eq!(stores.outbox.take_revocation(outbox_id(50), at(9), at(10)).await.unwrap(), None);
    assert!(stores.outbox.take_revocation(outbox_id(51), at(9), at(10)).await.unwrap().is_some(), "bob's");
    // And when it is done, nothing is to be abandoned.
    let carol = key("carol");
    stores.with_key(2, &carol).await;
    stores.connected(carol.clone(), 60).await;
    let revoke = revoke_write(&carol, Some(outbox_id(61)), at(5));
    stores.credentials.revoke_with_outbox(revoke).await.unwrap();
    assert_eq!(stores.delete(&deletion("carol")).await, UserDeleted::Waiting(1));
    stores.outbox.finish_revocation(outbox_id(61), RevocationOutcome::Failed, at(9)).await.unwrap();
    assert_eq!(stores.delete(&deletion("carol")).await, UserDeleted::Gone(Some([2; 16])));
}

async fn many_rows_go_in_steps_and_the_key_last(stores: Stores) {
    let alice = key("alice");
    stores.with_key(1, &alice).await;
    for n in 1..=5 {
        stores.begun(&flow(alice.clone(), n, 0)).await;
    }
    let step = UserDeletion { limit: 2, ..deletion("alice") };
    let mut left = Vec::new();
    loop {
        let outcome = stores.delete(&step).await;
        let mut flows = 0;
        for n in 1..=5 {
            let found = stores.flows.load_flow(&alice.tenant, flow_id(n)).await.unwrap();
            flows += u32::from(found.is_some());
        }
        left.push(flows);
        if outcome != UserDeleted::Partly {
            assert_eq!(outcome, UserDeleted::Gone(Some([1; 16])));
            break;
        }
        assert_eq!(stores.key_of(&alice).await, Some([1; 16]));
    }
    assert_eq!(left, [3, 1, 0]);
}

async fn a_consent_that_was_begun_before_ends_in_nothing(stores: Stores) {
    let alice = key("alice");
    stores.with_key(1, &alice).await;
    stores.begun(&flow(alice.clone(), 1, 0)).await;
    assert!(matches!(stores.consume(1, at(1)).await, Consumed::Won(_)));
    let waiting = app_flow(alice.clone(), 2, 0);
    stores.begun(&waiting).await;
    assert!(matches!(stores.flows.hold_code(held(2), at(1)).await.unwrap(), Consumed::Won(_)));
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Gone(Some([1; 16])));
    let grant = NewGrant {
        condition: GrantCondition::Flow { id: flow_id(1), over: None },
        ..new_grant(alice.clone(), 1)
    };
    assert_eq!(stores.credentials.store_grant(grant).await.unwrap(), StoredGrant::ConditionFailed);
    assert_eq!(stores.credentials.load(&alice).await.unwrap(), None);
    let google = super::samples::provider("google");
    assert!(stores.flows.flow_of_state(state(2), &google).await.unwrap().is_none());
}

async fn a_refresh_that_was_begun_before_ends_in_nothing(stores: Stores) {
    let alice = key("alice");
    stores.with_key(1, &alice).await;
    let row = stores.connected(alice.clone(), 1).await;
    let epoch = stores.claimed(&row, 1, at(5)).await;
    stores.credentials.revoke_with_outbox(revoke_write(&alice, None, at(6))).await.unwrap();
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Gone(Some([1; 16])));
    let late = lineage(&row, epoch, 2, at(7));
    assert_eq!(stores.credentials.persist_lineage(late.clone()).await.unwrap(), Persisted::Revoked);
    // Not into what comes after it either.
    let again = stores.connected(alice.clone(), 3).await;
    assert_eq!(stores.credentials.persist_lineage(late).await.unwrap(), Persisted::Revoked);
    assert_eq!(stores.row(&alice).await, again);
}

fn import(key: &CredentialKey, n: u32, user_key: [u8; 16]) -> NewGrant {
    NewGrant { user_key: Some(user_key), ..new_grant(key.clone(), n) }
}

async fn what_was_sealed_before_is_not_stored(stores: Stores) {
    let alice = key("alice");
    stores.with_key(1, &alice).await;
    let store = |n, id| stores.credentials.store_grant(import(&alice, n, id));
    assert_eq!(store(1, [9; 16]).await.unwrap(), StoredGrant::KeyDeleted);
    assert_eq!(stores.credentials.load(&alice).await.unwrap(), None);
    let StoredGrant::Stored(before) = store(2, [1; 16]).await.unwrap() else { panic!("stored") };
    stores.credentials.revoke_with_outbox(revoke_write(&alice, None, at(3))).await.unwrap();
    assert_eq!(stores.delete(&deletion("alice")).await, UserDeleted::Gone(Some([1; 16])));
    assert_eq!(store(4, [1; 16]).await.unwrap(), StoredGrant::KeyDeleted);
    assert_eq!(stores.credentials.load(&alice).await.unwrap(), None);
    assert_eq!(stores.credentials.load_by_id(before.id).await.unwrap(), None);
    // Who comes back has another key.
    stores.with_key(5, &alice).await;
    assert_eq!(store(6, [1; 16]).await.unwrap(), StoredGrant::KeyDeleted);
    assert!(matches!(store(7, [5; 16]).await.unwrap(), StoredGrant::Stored(_)));
}

async fn of_an_import_and_a_deletion_that_race_one_sees_the_other(stores: Stores) {
    for n in 1..=40 {
        let alice = key(&format!("alice {n}"));
        stores.with_key(n, &alice).await;
        let deletion = deletion(alice.user.as_str());
        let (import_done, deleted) = tokio::join!(
            stores.credentials.store_grant(import(&alice, u32::from(n), [n; 16])),
            stores.credentials.delete_user(&deletion)
        );
        let credential = stores.credentials.load(&alice).await.unwrap();
        match (import_done.unwrap(), deleted.unwrap()) {
            (StoredGrant::Stored(row), UserDeleted::Partly) => {
                assert_eq!((credential, stores.key_of(&alice).await), (Some(*row), Some([n; 16])));
            }
            (StoredGrant::KeyDeleted, UserDeleted::Gone(Some(_))) => {
                assert_eq!((credential, stores.key_of(&alice).await), (None, None));
            }
            other => panic!("{other:?}"),
        }
    }
}
