//! The row does not know what came of a presentation, but the permit store or a journal does: nothing is presented again.

use std::time::Duration;

use token_broker::application::types::ConsentReason;
use token_broker::domain::coordination::{Journal as _, PermitStore as _, Successor};
use token_broker::domain::key::{CredentialId, GrantId};
use token_broker::domain::ports::{LineageWrite, ProviderFailure};
use token_broker::domain::provider::Rotation;
use token_broker::domain::step::Step;

use crate::support::rig::{Rig, RigOptions, required, token};
use crate::support::strict_provider::Script;

/// A row that the database has lost a refresh of. The answer is the access token that it had.
async fn lost_refresh(rig: &Rig) -> String {
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.save_rows().await;
    let lost = rig.token().await;
    rig.settle().await;
    rig.lose_commits().await;
    assert_eq!(rig.row().await.generation, 1);
    lost.access_token.expose_secret().to_owned()
}

#[tokio::test]
async fn i2_i5_a_commit_that_the_database_lost_is_healed_without_a_call() {
    let rig = Rig::new().await;
    let lost = lost_refresh(&rig).await;
    let healed = rig.replica(2).token().await;
    assert_eq!((healed.generation, healed.access_token.expose_secret()), (2, lost.as_str()));
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(rig.holds_the_live_token().await);
    // And goes on from there.
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
    assert_eq!(rig.provider.live_grants(), 1);
}

#[tokio::test]
async fn i5_its_own_journal_heals_a_replica_when_the_permit_store_has_forgotten_too() {
    for unreachable in [false, true] {
        let rig = Rig::new().await;
        let lost = lost_refresh(&rig).await;
        if unreachable {
            rig.permits.unreachable(true);
        } else {
            rig.permits.wipe();
        }
        let healed = rig.token().await;
        assert_eq!((healed.generation, healed.access_token.expose_secret()), (2, lost.as_str()));
        assert_eq!(rig.provider.presented().len(), 1);
        assert!(rig.holds_the_live_token().await);
    }
}

#[tokio::test]
async fn i5_two_lost_commits_are_healed_one_after_the_other() {
    let rig = Rig::new().await;
    rig.import_at("acme", "alice", Duration::ZERO).await;
    rig.save_rows().await;
    rig.provider.next_refresh(Script::Live(Some(Duration::from_secs(100))));
    assert_eq!(rig.token().await.generation, 2);
    rig.clock.advance(Duration::from_secs(100));
    let newest = rig.token().await;
    assert_eq!(newest.generation, 3);
    rig.settle().await;
    rig.lose_commits().await;
    let other = rig.replica(2);
    let healed = other.token().await;
    assert_eq!(healed.generation, 3);
    assert_eq!(healed.access_token.expose_secret(), newest.access_token.expose_secret());
    assert_eq!(rig.provider.presented().len(), 2);
    assert_eq!(other.life.taken().iter().filter(|step| **step == Step::Adopted).count(), 2);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i8_a_refusal_does_not_demote_a_row_whose_successor_is_known_after_all() {
    let rig = Rig::new().await;
    lost_refresh(&rig).await;
    // The other replica presents the spent token, since it can't see what came of it.
    rig.permits.unreachable(true);
    let other = rig.replica(2);
    other.life.stop_at(Step::Dispatched);
    rig.provider.next_refresh(Script::Fail(ProviderFailure::InvalidGrant));
    let answer = other.get_meanwhile();
    other.life.has_stopped().await;
    rig.permits.unreachable(false);
    other.life.resume();
    other.life.has_taken(Step::Adopted).await;
    drop(answer);
    assert_eq!(rig.token().await.generation, 2);
    assert!(!other.life.taken().contains(&Step::Demoted));
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn where_nothing_rotates_a_token_is_its_own_successor_and_is_presented_again_all_the_same() {
    let rig = Rig::with(RigOptions { rotation: Rotation::None, ..RigOptions::default() }).await;
    rig.connect(&["mail"]).await;
    let other = rig.replica(2);
    for n in 0..3 {
        for replica in [&other, &rig.replica(10 + n)] {
            rig.provider.next_refresh(Script::Keep);
            // Sooner than the successor is forgotten.
            let before = rig.row().await.generation;
            assert_eq!(token(replica.refresh(before).await).generation, before + 1);
        }
    }
    assert_eq!(rig.provider.presented().len(), 6);
}

#[tokio::test]
async fn i2_a_successor_that_is_not_younger_than_the_row_is_none() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.token().await;
    rig.settle().await;
    // The row's own token as the successor of itself, of the claim that obtained it.
    let row = rig.row().await;
    let tokens = row.tokens().unwrap().clone();
    let refresh = tokens.refresh.clone().unwrap();
    let write = LineageWrite {
        id: row.id,
        grant_id: row.grant_id,
        epoch: refresh.epoch,
        parent_fingerprint: refresh.fingerprint,
        tokens,
        now: rig.now(),
    };
    rig.keep_successor(write).await;
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
    assert_eq!(rig.provider.presented().len(), 2);
}

#[tokio::test]
async fn another_grants_successor_is_nobodys() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let row = rig.row().await;
    // A provider gave the same refresh token out under an earlier consent.
    let write = LineageWrite {
        id: row.id,
        grant_id: GrantId::from_random([9; 16]),
        epoch: 99,
        parent_fingerprint: rig.fingerprint().await,
        tokens: row.tokens().unwrap().clone(),
        now: rig.now(),
    };
    rig.journal.append(&write).await.unwrap();
    rig.keep_successor(write).await;
    rig.provider.next_refresh(Script::Fail(ProviderFailure::InvalidGrant));
    assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
    assert_eq!(rig.provider.presented().len(), 1);
}

/// Whoever can write the permit store can put a pair together of what was there before. No row is set back for it.
#[tokio::test]
async fn a_forged_successor_is_not_adopted() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (spent, parent) = (rig.row().await, rig.fingerprint().await);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 2);
    rig.settle().await;
    let genuine = rig.permits.store().successor(spent.id, parent).await.unwrap().unwrap();
    // It opens under the row's key, and is younger than the row as far as one can see.
    let forged = |parent| LineageWrite {
        epoch: genuine.write.epoch + 90,
        parent_fingerprint: parent,
        tokens: spent.tokens().unwrap().clone(),
        ..genuine.write.clone()
    };
    let live = rig.fingerprint().await;
    // A genuine one counts where it belongs alone.
    assert!(genuine.is(spent.id, parent, &genuine.mac));
    assert!(!genuine.is(spent.id, live, &genuine.mac));
    assert!(!genuine.is(CredentialId::from_bytes([9; 16]), parent, &genuine.mac));
    for (mac, generation) in [([0; 32], 3), (genuine.mac, 4)] {
        let write = forged(rig.fingerprint().await);
        rig.permits.store().keep_successor(&Successor { write, mac }).await.unwrap();
        rig.expire_token();
        assert_eq!(rig.token().await.generation, generation);
        assert!(rig.holds_the_live_token().await);
    }
    assert_ne!(rig.fingerprint().await, live);
    assert_eq!(rig.provider.presented().len(), 3);
    // And where it is looked for since the provider has said no: there, too.
    let write = forged(rig.fingerprint().await);
    rig.permits.unreachable(true);
    let other = rig.replica(2);
    other.life.stop_at(Step::Dispatched);
    rig.expire_token();
    rig.provider.next_refresh(Script::Fail(ProviderFailure::InvalidGrant));
    let answer = other.get_meanwhile();
    other.life.has_stopped().await;
    rig.permits.store().keep_successor(&Successor { write, mac: genuine.mac }).await.unwrap();
    rig.permits.unreachable(false);
    other.life.resume();
    assert_eq!(required(answer.await.unwrap()).reason, ConsentReason::RefreshTokenRejected);
    assert!(!other.life.taken().contains(&Step::Adopted));
}
