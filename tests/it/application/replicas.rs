//! Several replicas over one database, one permit store and one provider: who asks the provider, who waits, and what they
//! hear.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use token_broker::application::error::Unavailable;
use token_broker::application::types::ConsentReason;
use token_broker::domain::coordination::{PermitStore as _, Wake};
use token_broker::domain::credential::{CredentialState, RefreshFailure};
use token_broker::domain::ports::{CredentialStore as _, Release};
use token_broker::domain::provider::{DISPATCH_WITHIN, HTTP_DEADLINE, Rotation, STRICT_SETTLE};
use token_broker::domain::step::Step;
use tokio::sync::watch;

use crate::support::replica::Replica;
use crate::support::rig::{Rig, RigOptions, token, unavailable};
use crate::support::strict_provider::Script;

#[tokio::test]
async fn i1_two_hundred_callers_of_four_replicas_make_one_call() {
    for deaf in [false, true] {
        let rig = Rig::with(RigOptions { deaf, ..RigOptions::default() }).await;
        rig.connect(&["mail"]).await;
        let replicas = rig.replicas(4);
        let (open, gate) = watch::channel(false);
        rig.provider.next_refresh(Script::Hold(gate));
        rig.expire_token();
        let callers = join_all((0..200).map(|n| replicas[n % 4].get()));
        let opener = async {
            rig.provider.wait_for_presentations(1).await;
            // One task a replica waits, however many callers it has.
            rig.words.listened(3).await;
            open.send_replace(true);
        };
        let (answers, ()) = tokio::join!(callers, opener);
        for answer in answers {
            let token = token(answer);
            assert_eq!(token.generation, 2);
            assert!(rig.provider.accepts(&token.access_token));
        }
        assert_eq!(rig.provider.presented(), ["canary-rt-1"]);
        assert!(rig.holds_the_live_token().await);
        if deaf {
            assert_eq!(rig.words.heard(), 0, "polling alone");
        }
        let told = |replica: &Replica| replica.life.taken().contains(&Step::Published);
        assert_eq!(
            replicas.iter().filter(|replica| told(replica)).count(),
            1,
            "whether anybody hears it or not"
        );
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_another_replica_hears_of_the_row() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    other.stops_at(Step::Dispatched).await;
    let reader = rig.get_meanwhile();
    let id = rig.row().await.id;
    // It also polls, and may be reading the row just then.
    while rig.words.heard() == 0 {
        rig.words.tell(Wake::Credential(id)).await;
        tokio::task::yield_now().await;
    }
    other.life.resume();
    assert_eq!(token(reader.await.unwrap()).generation, 2);
}

#[tokio::test]
async fn i2_i5_replicas_take_turns() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let replicas = rig.replicas(3);
    for generation in 2..20 {
        rig.expire_token();
        let answers = join_all(replicas.iter().map(Replica::get)).await;
        assert!(answers.into_iter().all(|answer| token(answer).generation == generation));
        assert!(rig.holds_the_live_token().await);
    }
    assert_eq!(rig.provider.presented().len(), 18);
    assert_eq!(rig.provider.overlaps(), 0);
}

#[tokio::test]
async fn a_thousand_reports_of_one_401_at_four_replicas_make_one_call() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let replicas = rig.replicas(4);
    let answers = join_all((0..1000).map(|n| replicas[n % 4].refresh(1))).await;
    assert!(answers.into_iter().all(|answer| token(answer).generation == 2));
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn a_reader_waits_for_another_replicas_permit_or_claim() {
    for step in [Step::PermitTaken, Step::Claimed, Step::Dispatched] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let other = rig.replica(2);
        let first = other.stops_at(step).await;
        let waits = rig.get();
        let meanwhile = async {
            rig.words.listened(1).await;
            other.life.resume();
        };
        let (answer, ()) = tokio::join!(waits, meanwhile);
        assert_eq!(token(answer).generation, 2);
        assert_eq!(token(first.await.unwrap()).generation, 2);
        assert_eq!(rig.provider.presented().len(), 1, "{step:?}");
    }
}

#[tokio::test]
async fn a_refresh_elsewhere_that_takes_too_long_is_an_outage_with_a_time_to_come_back() {
    for step in [Step::PermitTaken, Step::Claimed, Step::Dispatched] {
        let rig = Rig::with(RigOptions::impatient()).await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let other = rig.replica(2);
        other.stops_at(step).await;
        let (what, retry_after) = unavailable(rig.get().await);
        assert_eq!(what, Unavailable::RefreshInProgress, "{step:?}");
        assert!(retry_after > Duration::ZERO);
        assert!(rig.provider.presented().is_empty());
    }
}

#[tokio::test]
async fn i6_no_read_waits_for_another_replica_while_the_token_is_valid() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.clock.advance(Duration::from_secs(3600 - 200));
    let other = rig.replica(2);
    other.life.stop_at(Step::Dispatched);
    assert_eq!(token(other.get().await).generation, 1);
    other.life.has_stopped().await;
    for _ in 0..3 {
        assert_eq!((rig.token().await.generation, rig.token().await.failure), (1, None));
        rig.settle().await;
    }
    // By then its request has ended, for all that anybody knows.
    rig.clock.advance(DISPATCH_WITHIN + HTTP_DEADLINE);
    let served = rig.token().await;
    assert_eq!((served.generation, served.failure), (1, Some(RefreshFailure::OutcomeUnknown)));
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn a_dead_owners_permit_is_taken_over_when_its_request_has_ended() {
    for known_dead in [true, false] {
        let rig = Rig::with(RigOptions::impatient()).await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let dead = rig.replica(2);
        dead.stops_at(Step::PermitTaken).await;
        if known_dead {
            rig.permits.store().owner_died(dead.owner).await.unwrap();
        }
        let request_ends = DISPATCH_WITHIN + HTTP_DEADLINE;
        rig.clock.advance(request_ends.saturating_sub(Duration::from_secs(1)));
        assert_eq!(unavailable(rig.get().await).0, Unavailable::RefreshInProgress);
        rig.clock.advance(Duration::from_secs(1));
        if !known_dead {
            assert_eq!(unavailable(rig.get().await).0, Unavailable::RefreshInProgress);
            // Then it has run out.
            rig.clock.advance(STRICT_SETTLE.saturating_sub(request_ends));
        }
        assert_eq!(rig.token().await.generation, 2);
        assert_eq!(rig.provider.presented().len(), 1);
    }
}

#[tokio::test]
async fn i1_the_claim_alone_decides_without_a_permit_store() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.permits.unreachable(true);
    let replicas = rig.replicas(4);
    for generation in 2..6 {
        rig.expire_token();
        let answers = join_all((0..40).map(|n| replicas[n % 4].get())).await;
        assert!(answers.into_iter().all(|answer| token(answer).generation == generation));
    }
    assert_eq!(rig.provider.presented().len(), 4);
    assert_eq!(rig.provider.overlaps(), 0);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn i1_a_permit_store_that_was_wiped_changes_nothing() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    let first = other.get_meanwhile();
    rig.provider.wait_for_presentations(1).await;
    rig.permits.wipe();
    assert_eq!(unavailable(rig.get().await).0, Unavailable::RefreshInProgress);
    open.send_replace(true);
    other.life.has_taken(Step::Persisted).await;
    assert_eq!(rig.token().await.generation, 2);
    drop(first);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn settling_waits_for_the_permit_store_only_where_tokens_rotate() {
    for rotation in [Rotation::Strict, Rotation::Grace(Duration::from_mins(10)), Rotation::None] {
        let rig = Rig::with(RigOptions { rotation, ..RigOptions::impatient() }).await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        let dead = rig.replica(2);
        dead.stops_at(Step::Claimed).await;
        rig.clock.advance(STRICT_SETTLE);
        rig.permits.unreachable(true);
        if rotation == Rotation::None {
            assert_eq!(rig.token().await.generation, 2);
            continue;
        }
        let (what, retry_after) = unavailable(rig.get().await);
        assert_eq!((what, retry_after), (Unavailable::OutcomeUnknown, Duration::from_secs(5)));
        assert!(rig.provider.presented().is_empty(), "{rotation:?}");
        rig.permits.unreachable(false);
        assert_eq!(rig.token().await.generation, 2);
    }
}

#[tokio::test]
async fn i1_the_last_chance_is_one_replicas() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.comes_to_the_last_chance().await;
    let replicas = rig.replicas(4);
    join_all(replicas.iter().map(|replica| replica.broker.sweep())).await;
    let answers = join_all((0..40).map(|n| replicas[n % 4].get())).await;
    // Also of those who have read the row before the claim, and lost the permit.
    assert!(answers.iter().all(Result::is_ok));
    for replica in &replicas {
        replica.settle().await;
        assert_eq!(replica.token().await.generation, 2);
    }
    assert_eq!(rig.provider.presented().len(), 2);
    assert_eq!(rig.provider.overlaps(), 0);
}

#[tokio::test]
async fn a_last_chance_that_another_replica_is_about_to_take_is_waited_for() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.comes_to_the_last_chance().await;
    let other = rig.replica(2);
    other.stops_at(Step::PermitTaken).await;
    let reader = rig.get_meanwhile();
    rig.words.listened(1).await;
    assert!(!reader.is_finished());
    other.life.resume();
    assert_eq!(token(reader.await.unwrap()).generation, 2);
    assert_eq!(rig.provider.presented().len(), 2);
}

#[tokio::test]
async fn a_last_chance_that_another_replica_gives_up_is_taken_by_who_waits() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.comes_to_the_last_chance().await;
    let other = rig.replica(2);
    other.life.stop_at(Step::PermitTaken);
    other.faults.claim.store(1, Ordering::SeqCst);
    other.get_meanwhile();
    other.life.has_stopped().await;
    let reader = rig.get_meanwhile();
    rig.words.listened(1).await;
    other.life.resume();
    assert_eq!(token(reader.await.unwrap()).generation, 2);
    assert_eq!(rig.provider.presented().len(), 2);
}

#[tokio::test]
async fn a_reader_that_waits_past_the_settling_time_comes_back_in_a_second() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.comes_to_the_last_chance().await;
    let other = rig.replica(2);
    other.stops_at(Step::PermitTaken).await;
    assert_eq!(unavailable(rig.get().await), (Unavailable::RefreshInProgress, Duration::from_secs(1)));
    // Its request must have ended by now.
    rig.clock.advance(DISPATCH_WITHIN + HTTP_DEADLINE);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::OutcomeUnknown);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn a_claim_is_not_released_by_anybody_else() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    other.stops_at(Step::Dispatched).await;
    let row = rig.row().await;
    let release = Release { id: row.id, epoch: row.epoch, owner: rig.owner, back_off: None, now: rig.now() };
    assert!(!rig.store.release_claim(release).await.unwrap());
    assert_eq!(rig.row().await, row);
    assert!(matches!(row.state, CredentialState::Refreshing { claim, .. } if claim.owner == other.owner));
}

#[tokio::test]
async fn i4_after_its_ack_no_replica_returns_a_revoked_grants_token() {
    for unreachable in [false, true] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        let replicas = rig.replicas(4);
        for replica in &replicas {
            replica.token().await;
        }
        rig.permits.unreachable(unreachable);
        assert!(replicas[3].revoke().await.unwrap().deleted);
        for replica in &replicas {
            assert_eq!(replica.required().await.reason, ConsentReason::Revoked);
        }
        assert_eq!(rig.provider.live_grants(), 0);
    }
}

#[tokio::test]
async fn i7_a_replica_that_is_paused_beyond_its_claim_does_not_lose_its_pair() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let paused = rig.replica(2);
    let first = paused.stops_at(Step::Answered).await;
    rig.clock.advance(STRICT_SETTLE.saturating_sub(Duration::from_secs(1)));
    assert_eq!(unavailable(rig.get().await).0, Unavailable::OutcomeUnknown);
    paused.life.resume();
    paused.life.has_taken(Step::Persisted).await;
    assert_eq!(rig.token().await.generation, 2);
    drop(first);
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(rig.holds_the_live_token().await);
}

#[tokio::test]
async fn a_database_that_fails_under_one_replica_does_not_stop_the_others() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let other = rig.replica(2);
    rig.faults.load.store(u32::MAX, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    assert_eq!(other.token().await.generation, 2);
}
