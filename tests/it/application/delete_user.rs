//! The end of a user's data: nothing of it opens any more, whatever was under way, and nobody else notices.

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::admin::{DeleteUserInput, DeletedUser};
use token_broker::application::error::BrokerError;
use token_broker::application::types::{CallbackOutcome, ConsentReason};
use token_broker::domain::access_policy::Principal;
use token_broker::domain::admin_policy::{AdminAction, AdminRights};
use token_broker::domain::cipher::{Binding, Cipher as _, CipherError, Field};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{ReencryptionStore as _, SealedTable};
use token_broker::domain::key::{GrantId, TenantId, UserId};
use token_broker::domain::ports::{CredentialStore as _, ProviderFailure};
use token_broker::domain::provider::STRICT_SETTLE;
use token_broker::domain::secret::SecretBytes;
use token_broker::domain::step::Step;
use token_broker::domain::user_key::UserKeyStore as _;
use tokio::sync::watch;

use crate::storage_faults::tamper;
use crate::support::replica::Replica;
use crate::support::rig::{Rig, caller, rights, row_key, token};
use crate::support::strict_provider::Script;

fn operator() -> Principal {
    let mut principal = caller("ops");
    let caller = rights(&mut principal);
    caller.rules.clear();
    caller.admin = AdminRights { actions: [AdminAction::BreakGlass].into(), all_tenants: false };
    principal
}

async fn delete(on: &Replica, user: &str, abandon_revocations: bool) -> Result<DeletedUser, BrokerError> {
    let input = DeleteUserInput { tenant: None, user: UserId::new(user).unwrap(), abandon_revocations };
    on.broker.delete_user_data(&operator(), input).await
}

/// Deleted at once, without a word to the provider.
async fn abandon(on: &Replica) -> DeletedUser {
    let done = delete(on, "alice", true).await.unwrap();
    assert!(done.deleted, "{done:?}");
    done
}

impl Rig {
    /// Alice's ciphertexts, as a copy has them.
    async fn copies(&self) -> Vec<(GrantId, Field, Sealed)> {
        let row = self.row().await;
        let tokens = row.tokens().unwrap();
        let refresh = tokens.refresh.as_ref().unwrap().sealed.clone();
        [
            (Field::AccessToken, tokens.access_sealed.clone()),
            (Field::RefreshToken, refresh),
            (Field::Profile, tokens.profile_sealed.clone()),
        ]
        .map(|(field, sealed)| (row.grant_id, field, sealed))
        .into()
    }

    async fn open(&self, grant: GrantId, field: Field, sealed: &Sealed) -> Result<SecretBytes, CipherError> {
        self.cipher().open(Binding { key: &row_key("mail"), grant, field }, sealed).await
    }

    async fn user_keys_are_away(&self, away: bool) {
        let sql = if away {
            "ALTER TABLE user_keys RENAME TO user_keys_away"
        } else {
            "ALTER TABLE user_keys_away RENAME TO user_keys"
        };
        tamper(self.store.path(), sql).await;
    }

    /// Nothing of alice's is in the database.
    async fn nothing_is_left(&self) {
        let alice = UserId::new("alice").unwrap();
        for table in SealedTable::ALL {
            let rows = self.store.sealed_rows(table, None, 100).await.unwrap();
            assert!(rows.iter().all(|row| row.key.user != alice), "{table:?}: {rows:?}");
        }
        for service in ["mail", "admin"] {
            assert_eq!(self.store.load(&row_key(service)).await.unwrap(), None);
        }
        assert_eq!(self.store.user_key_of(&row_key("mail").tenant, &alice).await.unwrap(), None);
    }
}

#[tokio::test]
async fn nothing_of_a_deleted_user_opens_and_nobody_else_notices() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.connect(&["admin"]).await;
    rig.import_at("acme", "bob", Duration::from_secs(3600)).await;
    rig.begin(&["files"]).await.unwrap();
    let copies = rig.copies().await;
    for (grant, field, sealed) in &copies {
        rig.open(*grant, *field, sealed).await.unwrap();
    }
    let first = delete(&rig, "alice", false).await.unwrap();
    let expected =
        DeletedUser { revoked: 2, cancelled_flows: 1, more: false, waiting_revocations: 2, deleted: false };
    assert_eq!(first, expected);
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked, "gone at once");
    // The providers are told, which takes the key.
    rig.sweep().await;
    let last = delete(&rig, "alice", false).await.unwrap();
    assert_eq!(last, DeletedUser { deleted: true, ..DeletedUser::default() });
    assert_eq!(rig.provider.live_grants(), 1, "bob's");
    rig.nothing_is_left().await;
    for (grant, field, sealed) in &copies {
        let opened = rig.open(*grant, *field, sealed).await;
        assert!(matches!(opened, Err(CipherError::DoesNotOpen)), "{field:?}: {opened:?}");
    }
    assert_eq!(rig.required().await.reason, ConsentReason::NotConnected);
    token(rig.get_of("bob").await);
    // Again, and of whom nothing is known.
    for user in ["alice", "nobody"] {
        let again = delete(&rig, user, false).await.unwrap();
        assert_eq!(again, DeletedUser { deleted: true, ..DeletedUser::default() });
    }
    // Who comes back begins anew.
    rig.connect(&["mail"]).await;
    assert_eq!(rig.token().await.generation, 1);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 2);
    let (grant, field, sealed) = &copies[0];
    let opened = rig.open(*grant, *field, sealed).await;
    assert!(matches!(opened, Err(CipherError::DoesNotOpen)), "{opened:?}");
}

#[tokio::test]
async fn a_provider_that_does_not_answer_keeps_the_key_until_it_is_abandoned() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    for _ in 0..2 {
        let done = delete(&rig, "alice", false).await.unwrap();
        assert_eq!((done.waiting_revocations, done.deleted), (1, false));
        rig.sweep().await;
        rig.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(rig.provider.revocations(), 1);
    abandon(&rig).await;
    rig.nothing_is_left().await;
    rig.clock.advance(Duration::from_secs(3600));
    rig.sweep().await;
    assert_eq!((rig.provider.revocations(), rig.provider.live_grants()), (1, 1), "nobody told it again");
}

#[tokio::test]
async fn whoever_may_not_break_the_glass_deletes_nothing() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let mut other_tenant = operator();
    rights(&mut other_tenant).tenant = TenantId::new("tenant-b").unwrap();
    let mut manager = operator();
    rights(&mut manager).admin.actions = AdminAction::ALL.into_iter().collect();
    rights(&mut manager).admin.actions.remove(&AdminAction::BreakGlass);
    let mut users_own = operator();
    users_own.user = Some(UserId::new("alice").unwrap());
    let tenant = Some(row_key("mail").tenant);
    for principal in [&rig.caller, &other_tenant, &manager, &users_own] {
        let user = UserId::new("alice").unwrap();
        let input = DeleteUserInput { tenant: tenant.clone(), user, abandon_revocations: true };
        let refused = rig.broker.delete_user_data(principal, input).await;
        assert!(matches!(refused, Err(BrokerError::PermissionDenied)), "{refused:?}");
    }
    assert_eq!(rig.token().await.generation, 1);
}

#[tokio::test]
async fn a_deletion_that_fails_or_whose_answer_is_lost_is_repeated() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.faults.revoke.store(1, Ordering::SeqCst);
    delete(&rig, "alice", true).await.unwrap_err();
    assert_eq!(rig.token().await.generation, 1, "nothing was done");
    rig.faults.delete_user.store(1, Ordering::SeqCst);
    delete(&rig, "alice", true).await.unwrap_err();
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked, "the first half");
    rig.faults.delete_user_answer.store(1, Ordering::SeqCst);
    delete(&rig, "alice", true).await.unwrap_err();
    assert_eq!(abandon(&rig).await.revoked, 0);
    rig.nothing_is_left().await;
}

#[tokio::test]
async fn an_import_in_the_moment_of_a_deletion_is_a_new_users() {
    let rig = Rig::new().await;
    rig.faults.user_deleted.store(2, Ordering::SeqCst);
    rig.broker.import_credential(&rig.caller, rig.import_input()).await.unwrap();
    assert_eq!(rig.faults.user_deleted.load(Ordering::SeqCst), 0);
    // Whoever has no old key in memory can open it.
    let other = rig.replica(2);
    assert_eq!(other.token().await.generation, 1);
}

#[tokio::test]
async fn a_refresh_in_flight_while_its_user_is_deleted_ends_in_nothing() {
    for step in [Step::PermitTaken, Step::Claimed, Step::Dispatched, Step::Answered, Step::SuccessorCopied] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let other = rig.replica(2);
        other.stops_at(step).await;
        abandon(&rig).await;
        other.life.resume();
        other.settle().await;
        assert_eq!(other.required().await.reason, ConsentReason::NotConnected, "{step:?}");
        rig.nothing_is_left().await;
        // What it obtained is revoked by a word of its own, since no key is made for it.
        let presented = step != Step::PermitTaken;
        assert_eq!(rig.provider.presented().len(), usize::from(presented), "{step:?}");
        assert_eq!(rig.provider.live_grants(), usize::from(!presented), "{step:?}");
        rig.clock.advance(STRICT_SETTLE);
        rig.sweep().await;
        rig.nothing_is_left().await;
        // A new consent has nothing to do with it.
        rig.connect(&["mail"]).await;
        rig.expire_token();
        assert_eq!(rig.token().await.generation, 2, "{step:?}");
        assert!(rig.holds_the_live_token().await);
    }
}

#[tokio::test]
async fn the_answer_of_a_refresh_is_sealed_however_long_the_users_key_is_forgotten() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    let reader = other.stops_at(Step::Answered).await;
    // By now nobody has the key in memory but the refresh, and the database has other things to do.
    rig.clock.advance(Duration::from_secs(600));
    rig.user_keys_are_away(true).await;
    other.life.resume();
    other.life.has_taken(Step::SuccessorCopied).await;
    other.life.has_taken(Step::Persisted).await;
    rig.user_keys_are_away(false).await;
    drop(reader);
    other.settle().await;
    assert_eq!(rig.row().await.generation, 2);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn a_successor_and_a_journal_of_a_deleted_user_are_not_adopted() {
    for step in [Step::SuccessorCopied, Step::Journaled] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let dead = rig.replica(2);
        dead.stops_at(step).await;
        let left = dead.left_behind();
        assert!(step != Step::Journaled || !left.records.is_empty());
        abandon(&rig).await;
        rig.broker.replay(&left).await;
        assert!(!rig.life.taken().contains(&Step::SuccessorCopied), "put nowhere again");
        rig.nothing_is_left().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        assert_eq!(rig.token().await.generation, 2);
        // And once more, with the user's new credential there.
        rig.broker.replay(&left).await;
        assert_eq!(rig.token().await.generation, 2);
        assert!(rig.holds_the_live_token().await);
        assert!(!rig.life.taken().contains(&Step::Adopted));
    }
}

#[tokio::test]
async fn a_consent_under_way_while_its_user_is_deleted_ends_in_nothing() {
    let rig = Rig::new().await;
    // Before the browser is back.
    let flow = rig.begin(&["mail"]).await.unwrap();
    let callback = rig.callback(&flow).await;
    abandon(&rig).await;
    let outcome = rig.take(callback).await;
    assert!(!matches!(outcome, CallbackOutcome::Connected { .. }), "{outcome:?}");
    assert_eq!(rig.provider.exchanges(), 0);
    rig.nothing_is_left().await;
    // While its code is exchanged.
    let flow = rig.begin(&["mail"]).await.unwrap();
    let callback = rig.callback(&flow).await;
    let (opens, gate) = watch::channel(false);
    rig.provider.next_exchange(Script::Hold(gate));
    let (outcome, ()) = tokio::join!(rig.take(callback), async {
        while rig.provider.exchanges() == 0 {
            tokio::task::yield_now().await;
        }
        abandon(&rig).await;
        opens.send_replace(true);
    });
    assert!(!matches!(outcome, CallbackOutcome::Connected { .. }), "{outcome:?}");
    assert_eq!(
        (rig.provider.exchanges(), rig.provider.live_grants()),
        (1, 0),
        "what was obtained is revoked"
    );
    rig.nothing_is_left().await;
    // And the next one is a consent like any other.
    rig.connect(&["mail"]).await;
    rig.token().await;
}
