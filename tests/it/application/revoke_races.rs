//! Revoke against refreshes, deaths and lost commits: it wins, and at rest the grant is dead at the provider too (I3).

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::Unavailable;
use token_broker::application::types::{ConsentReason, ProviderRevocation};
use token_broker::domain::coordination::{Permit, PermitRequest, PermitStore as _, Tombstone};
use token_broker::domain::credential::{CredentialState, Fingerprint};
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::{CredentialStore as _, OutboxStore as _, ProviderFailure, RevokeWrite};
use token_broker::domain::provider::STRICT_SETTLE;
use token_broker::domain::step::Step;
use tokio::sync::watch;

use crate::support::rig::{Rig, RigOptions, required, row_key, token};
use crate::support::strict_provider::Script;

#[tokio::test]
async fn i3_a_revoke_that_died_before_its_commit_is_done_by_whoever_meets_the_tombstone() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let dead = rig.replica(2);
    dead.life.stop_at(Step::Tombstoned);
    dead.revoke_meanwhile();
    dead.life.has_stopped().await;
    assert_eq!(rig.token().await.generation, 1, "not acknowledged, not done");
    rig.expire_token();
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
    assert!(rig.provider.presented().is_empty());
    rig.sweep().await;
    assert_eq!(rig.provider.live_grants(), 0);
}

#[tokio::test]
async fn i3_a_revoke_whose_commit_the_database_lost_is_done_again() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.save_rows().await;
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    assert_eq!(rig.revoke().await.unwrap().provider, Some(ProviderRevocation::Pending));
    rig.lose_commits().await;
    rig.expire_token();
    let other = rig.replica(2);
    assert_eq!(other.required().await.reason, ConsentReason::Revoked);
    assert!(rig.provider.presented().is_empty());
    other.sweep().await;
    assert_eq!(rig.provider.live_grants(), 0);
}

/// Whoever can write Redis can put a tombstone there. Nobody loses a grant for it.
#[tokio::test]
async fn a_forged_tombstone_revokes_nothing() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let former = rig.row().await;
    rig.revoke().await.unwrap();
    let of_former = PermitRequest {
        credential: former.id,
        grant: former.grant_id,
        token: Fingerprint([1; 32]),
        row_epoch: 1,
        owner: ClaimOwner::from_random([9; 16]),
        lifetime: Duration::from_secs(1),
        takeover: None,
    };
    let met = rig.permits.store().take(of_former).await.unwrap();
    let Permit::Buried(genuine) = met else { panic!("{met:?}") };

    rig.connect(&["mail"]).await;
    // One of another grant is no better than one that was made up.
    for forged in [Tombstone([0; 32]), genuine] {
        let row = rig.row().await;
        rig.permits.store().bury(row.id, row.grant_id, forged).await.unwrap();
        rig.expire_token();
        assert_eq!(rig.token().await.generation, row.generation + 1);
    }
    rig.sweep().await;
    assert!(rig.holds_the_live_token().await);
    assert_eq!(rig.provider.live_grants(), 1);
}

#[tokio::test]
async fn i3_a_lost_refresh_and_a_lost_revoke_end_as_revoked() {
    let rig = Rig::new().await;
    rig.provider.forget_spent_tokens();
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.save_rows().await;
    rig.token().await;
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    rig.revoke().await.unwrap();
    rig.settle().await;
    rig.lose_commits().await;
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked, "the tombstone before the successor");
    rig.sweep().await;
    assert_eq!(rig.provider.live_grants(), 0, "with the newest token, which the row has lost");
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn a_revoke_that_is_not_stored_may_come_about_later_but_not_to_a_new_consent() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.faults.revoke.store(1, Ordering::SeqCst);
    rig.revoke().await.unwrap_err();
    rig.connect(&["mail"]).await;
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3, "the tombstone is the old grant's");
    rig.faults.revoke.store(1, Ordering::SeqCst);
    rig.revoke().await.unwrap_err();
    rig.expire_token();
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
}

#[tokio::test]
async fn a_new_consent_after_revoke_is_refreshed_like_any_other() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let old = rig.row().await.grant_id;
    rig.revoke().await.unwrap();
    rig.connect(&["mail"]).await;
    // Somebody who met the tombstone before the consent comes to it after it.
    let late = RevokeWrite { key: row_key("mail"), grant: Some(old), outbox: None, now: rig.now() };
    assert!(!rig.store.revoke_with_outbox(late).await.unwrap().deleted);
    for replica in rig.replicas(3) {
        rig.expire_token();
        replica.token().await;
    }
    rig.sweep().await;
    assert_eq!(rig.provider.live_grants(), 1);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i3_i4_what_another_replicas_refresh_obtains_after_the_revoke_is_revoked() {
    let rig = Rig::new().await;
    rig.provider.forget_spent_tokens();
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    let reader = other.get_meanwhile();
    rig.provider.wait_for_presentations(1).await;
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    assert!(rig.revoke().await.unwrap().deleted);
    open.send_replace(true);
    assert_eq!(required(reader.await.unwrap()).reason, ConsentReason::Revoked);
    other.settle().await;
    assert_eq!(rig.provider.live_grants(), 0);
    // The attempts that are left say the same again.
    rig.clock.advance(STRICT_SETTLE);
    rig.sweep().await;
    assert!(rig.store.due_revocations(jiff::Timestamp::MAX, 10).await.unwrap().is_empty());
    assert!(matches!(rig.row().await.state, CredentialState::Revoked));
}

/// The revocation was told the old token; the owner of the refresh under way dies with the new one.
#[tokio::test]
async fn i3_the_second_outbox_row_revokes_what_a_dying_refresh_left() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.provider.forget_spent_tokens();
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let dead = rig.replica(2);
    dead.journal.fails.store(true, Ordering::SeqCst);
    dead.stops_at(Step::Dispatched).await;
    // Told a token that it does not know any more, it says that all is well.
    rig.provider.next_revocation_fails(ProviderFailure::InvalidGrant);
    assert_eq!(rig.revoke().await.unwrap().provider, Some(ProviderRevocation::Revoked));
    dead.life.stop_at(Step::SuccessorCopied);
    dead.life.resume();
    dead.life.has_taken(Step::SuccessorCopied).await;
    assert_eq!(rig.provider.presented().len(), 1);
    rig.clock.advance(STRICT_SETTLE.saturating_sub(Duration::from_secs(1)));
    rig.sweep().await;
    assert_eq!(rig.provider.live_grants(), 1, "the refresh may still be at work, and would revoke it itself");
    rig.clock.advance(Duration::from_secs(1));
    rig.sweep().await;
    assert_eq!(rig.provider.live_grants(), 0);
    assert!(rig.store.due_revocations(jiff::Timestamp::MAX, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn i3_a_death_after_the_ack_leaves_the_rest_to_others() {
    for (step, told) in [(Step::Revoked, 0), (Step::RevocationTold, 1)] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        let dead = rig.replica(2);
        dead.life.stop_at(step);
        dead.revoke_meanwhile();
        dead.life.has_stopped().await;
        assert_eq!(rig.required().await.reason, ConsentReason::Revoked, "{step:?}");
        assert_eq!(rig.provider.revocations(), told);
        // Longer than one attempt may take.
        rig.clock.advance(Duration::from_secs(90));
        rig.sweep().await;
        assert_eq!(rig.provider.revocations(), told + 1);
        assert_eq!(rig.provider.live_grants(), 0);
        assert!(rig.store.due_revocations(jiff::Timestamp::MAX, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn i3_an_unknown_outcome_does_not_keep_a_revoke_from_the_newest_token() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.provider.forget_spent_tokens();
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let dead = rig.replica(2);
    dead.stops_at(Step::SuccessorCopied).await;
    assert_eq!(rig.revoke().await.unwrap().provider, Some(ProviderRevocation::Revoked));
    assert_eq!(rig.provider.live_grants(), 0, "found in the permit store");
}

#[tokio::test]
async fn a_database_that_is_down_acknowledges_no_revoke() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    for fault in [&rig.faults.load, &rig.faults.revoke] {
        fault.store(1, Ordering::SeqCst);
        let error = rig.revoke().await.unwrap_err();
        let what = token_broker::application::error::BrokerError::Unavailable {
            what: Unavailable::Storage,
            retry_after: Duration::from_secs(1),
        };
        assert_eq!(format!("{error:?}"), format!("{what:?}"));
        assert_eq!(rig.provider.revocations(), 0);
        assert_eq!(token(rig.get().await).generation, 1);
    }
}
