//! A replica dies at a step of the protocol. What the others, and the replay of its journal, make of it is what the table
//! of faults in the protocol's design says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::Unavailable;
use token_broker::application::types::ConsentReason;
use token_broker::domain::credential::CredentialState;
use token_broker::domain::ports::ProviderFailure;
use token_broker::domain::provider::{DISPATCH_WITHIN, HTTP_DEADLINE, Rotation, STRICT_SETTLE};
use token_broker::domain::step::Step;

use crate::support::replica::Replica;
use crate::support::rig::{Rig, RigOptions, unavailable};
use crate::support::strict_provider::Script;

/// By then a request has ended.
const REQUEST_ENDS: Duration = DISPATCH_WITHIN.saturating_add(HTTP_DEADLINE);
/// The steps before the request.
const BEFORE: [Step; 3] = [Step::PermitTaken, Step::Claimed, Step::Dispatched];

/// A replica that dies at this step of the refresh of an expired token.
async fn dies_at(rig: &Rig, step: Step) -> Replica {
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let dead = rig.replica(2);
    dead.stops_at(step).await;
    dead
}

#[tokio::test]
async fn i1_before_the_request_it_is_settled_and_then_succeeds() {
    for step in BEFORE {
        let rig = Rig::with(RigOptions::impatient()).await;
        dies_at(&rig, step).await;
        rig.clock.advance(STRICT_SETTLE.saturating_sub(Duration::from_secs(1)));
        rig.sweep().await;
        unavailable(rig.get().await);
        assert!(rig.provider.presented().is_empty(), "{step:?}: not known not to have been sent");
        rig.clock.advance(Duration::from_secs(1));
        assert_eq!(rig.token().await.generation, 2, "{step:?}");
        assert_eq!(rig.provider.presented(), ["canary-rt-1"]);
        assert!(rig.holds_the_live_token().await);
    }
}

#[tokio::test]
async fn i1_a_proof_of_death_settles_it_as_soon_as_its_request_has_ended() {
    for step in BEFORE {
        let rig = Rig::with(RigOptions::impatient()).await;
        let dead = dies_at(&rig, step).await;
        rig.broker.replay(&dead.left_behind()).await;
        rig.clock.advance(REQUEST_ENDS.saturating_sub(Duration::from_secs(1)));
        unavailable(rig.get().await);
        assert!(rig.provider.presented().is_empty(), "{step:?}");
        rig.clock.advance(Duration::from_secs(1));
        assert_eq!(rig.token().await.generation, 2, "{step:?}");
    }
}

#[tokio::test]
async fn in_the_window_a_strict_provider_ends_the_grant() {
    let rig = Rig::with(RigOptions::impatient()).await;
    dies_at(&rig, Step::Answered).await;
    assert_eq!(rig.provider.presented().len(), 1, "rotated, and nobody has the answer");
    rig.clock.advance(STRICT_SETTLE);
    assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
    assert_eq!(rig.provider.presented().len(), 2, "the last chance");
}

#[tokio::test]
async fn i5_in_the_window_a_grace_heals_it() {
    let grace = Duration::from_mins(10);
    let rig = Rig::with(RigOptions { rotation: Rotation::Grace(grace), ..RigOptions::impatient() }).await;
    rig.provider.give_grace();
    dies_at(&rig, Step::Answered).await;
    // The second presentation comes within the grace.
    rig.clock.advance(grace / 2);
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented(), ["canary-rt-1", "canary-rt-1"]);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i5_i7_what_is_in_the_journal_alone_is_replayed() {
    let rig = Rig::with(RigOptions::impatient()).await;
    let dead = dies_at(&rig, Step::Journaled).await;
    assert!(!dead.life.taken().contains(&Step::SuccessorCopied));
    rig.broker.replay(&dead.left_behind()).await;
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(rig.holds_the_live_token().await);
    let taken = rig.life.taken();
    let place = |step| taken.iter().position(|seen| *seen == step);
    assert!(place(Step::SuccessorCopied) < place(Step::Adopted), "first where all replicas see it");
    assert!(place(Step::Adopted) < place(Step::Replayed));
}

#[tokio::test]
async fn a_replay_does_nothing_for_a_row_that_has_its_pair() {
    let rig = Rig::new().await;
    let dead = dies_at(&rig, Step::Published).await;
    assert_eq!(dead.left_behind().records.len(), 1);
    rig.broker.replay(&dead.left_behind()).await;
    assert!(rig.life.taken().iter().all(|step| *step == Step::GrantStored), "{:?}", rig.life.taken());
}

#[tokio::test]
async fn a_replay_of_one_row_waits_for_no_other() {
    let rig = Rig::with(RigOptions::impatient()).await;
    let mut left = rig.replica(2).left_behind();
    for user in ["alice", "bob"] {
        rig.import_at("acme", user, Duration::ZERO).await;
        let dead = rig.replica(2);
        dead.life.stop_at(Step::Journaled);
        let reader = dead.clone();
        tokio::spawn(async move { reader.get_of(user).await });
        dead.life.has_stopped().await;
        left.records.extend(dead.left_behind().records);
    }
    rig.faults.persist.store(1, Ordering::SeqCst);
    rig.broker.replay(&left).await;
    let taken = rig.life.taken();
    let first = taken.iter().position(|step| *step == Step::Adopted).unwrap();
    let copied = taken[..first].iter().filter(|step| **step == Step::SuccessorCopied).count();
    assert_eq!(copied, 2, "the second row was at it while the first one had to be tried again: {taken:?}");
}

#[tokio::test]
async fn i5_nothing_is_settled_before_the_journal_is_replayed() {
    let rig = Rig::with(RigOptions::impatient()).await;
    let dead = dies_at(&rig, Step::Journaled).await;
    rig.clock.advance(STRICT_SETTLE);
    rig.broker.begin_replay();
    rig.sweep().await;
    assert_eq!(unavailable(rig.get().await), (Unavailable::OutcomeUnknown, Duration::from_secs(1)));
    rig.broker.replay(&dead.left_behind()).await;
    rig.broker.end_replay();
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i5_i7_what_is_in_the_permit_store_alone_is_adopted_when_it_settles() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let dead = rig.replica(2);
    dead.journal.fails.store(true, Ordering::SeqCst);
    dead.stops_at(Step::SuccessorCopied).await;
    assert!(dead.left_behind().records.is_empty());
    rig.clock.advance(STRICT_SETTLE);
    rig.sweep().await;
    assert_eq!(rig.token().await.generation, 2);
    assert!(rig.life.taken().contains(&Step::Adopted));
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i5_once_it_is_in_the_row_nobody_notices() {
    for step in [Step::Persisted, Step::Published] {
        let rig = Rig::new().await;
        let dead = dies_at(&rig, step).await;
        assert_eq!(rig.token().await.generation, 2, "{step:?}");
        rig.broker.replay(&dead.left_behind()).await;
        assert_eq!(rig.token().await.generation, 2);
        rig.expire_token();
        assert_eq!(rig.token().await.generation, 3);
        assert_eq!(rig.provider.presented(), ["canary-rt-1", "canary-rt-2"]);
        assert!(rig.holds_the_live_token().await);
    }
}

#[tokio::test]
async fn i2_a_replay_that_comes_late_or_twice_takes_nothing_back() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let dead = rig.replica(2);
    rig.expire_token();
    assert_eq!(dead.token().await.generation, 2);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
    let before = rig.row().await;
    for _ in 0..2 {
        rig.broker.replay(&dead.left_behind()).await;
    }
    assert_eq!(rig.row().await, before);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 4);
    assert_eq!(rig.provider.presented().len(), 3);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i7_a_replay_goes_on_until_the_database_answers() {
    let rig = Rig::with(RigOptions::impatient()).await;
    let dead = dies_at(&rig, Step::Journaled).await;
    rig.faults.persist.store(3, Ordering::SeqCst);
    rig.broker.replay(&dead.left_behind()).await;
    assert_eq!(rig.faults.persist.load(Ordering::SeqCst), 0);
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn i3_a_replay_revokes_what_a_revoked_grants_refresh_obtained() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.provider.forget_spent_tokens();
    let dead = dies_at(&rig, Step::Journaled).await;
    assert!(rig.revoke().await.unwrap().deleted);
    assert_eq!(rig.provider.live_grants(), 1, "the provider knows nothing of the spent token");
    rig.broker.replay(&dead.left_behind()).await;
    assert_eq!(rig.provider.live_grants(), 0);
    assert!(matches!(rig.row().await.state, CredentialState::Revoked));
}

#[tokio::test]
async fn i1_a_death_in_the_last_chance_settles_once_more() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.comes_to_the_last_chance().await;
    let dead = rig.replica(2);
    dead.stops_at(Step::SettleClaimed).await;
    assert_eq!(unavailable(rig.get().await).0, Unavailable::RefreshInProgress);
    rig.clock.advance(STRICT_SETTLE.saturating_sub(Duration::from_secs(1)));
    assert_eq!(unavailable(rig.get().await).0, Unavailable::OutcomeUnknown);
    assert_eq!(rig.provider.presented().len(), 1);
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 2);
}

#[tokio::test]
async fn after_the_release_the_row_is_anybodys_once_the_permit_is_over() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.provider.next_refresh(Script::Fail(ProviderFailure::NotSent));
    let dead = rig.replica(2);
    dead.stops_at(Step::Released).await;
    rig.broker.replay(&dead.left_behind()).await;
    rig.clock.advance(REQUEST_ENDS);
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 2);
    assert_eq!(rig.provider.overlaps(), 0);
}

#[tokio::test]
async fn after_the_demotion_everybody_is_told_to_consent() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.provider.end_all_grants();
    let dead = rig.replica(2);
    dead.stops_at(Step::Demoted).await;
    assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
    rig.connect(&["mail"]).await;
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn a_death_after_an_adoption_costs_nothing() {
    let rig = Rig::with(RigOptions::impatient()).await;
    let first = dies_at(&rig, Step::SuccessorCopied).await;
    assert!(first.life.taken().contains(&Step::Journaled));
    rig.clock.advance(STRICT_SETTLE);
    let second = rig.replica(3);
    second.stops_at(Step::Adopted).await;
    assert_eq!(rig.token().await.generation, 2);
    rig.broker.replay(&first.left_behind()).await;
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
    assert_eq!(rig.provider.presented().len(), 2);
    assert!(rig.holds_the_live_token().await);
}
