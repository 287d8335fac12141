//! The database fails while a row is claimed: nobody knows whether it is. Nothing was sent, so the row is not left to
//! settle.

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::Unavailable;
use token_broker::domain::credential::CredentialState;
use token_broker::domain::provider::{DISPATCH_WITHIN, STRICT_SETTLE};
use token_broker::domain::step::Step;
use tokio::sync::watch;

use crate::support::rig::{Rig, RigOptions, token, unavailable};
use crate::support::strict_provider::Script;

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_given_back_at_once() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.faults.claim_answer.store(1, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    assert!(rig.life.taken().contains(&Step::Released));
    assert!(matches!(rig.row().await.state, CredentialState::Active { back_off: None, .. }));
    assert!(rig.provider.presented().is_empty());
    assert_eq!(rig.replica(2).token().await.generation, 2, "its permit is given back too");
}

#[tokio::test]
async fn it_is_given_back_as_soon_as_the_database_answers() {
    let rig = Rig::with(RigOptions::impatient()).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.faults.claim_answer.store(1, Ordering::SeqCst);
    rig.faults.end_claim.store(3, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    assert!(matches!(rig.row().await.state, CredentialState::Refreshing { .. }));
    assert_eq!(unavailable(rig.replica(2).get().await).0, Unavailable::RefreshInProgress);
    rig.settle().await;
    assert!(matches!(rig.row().await.state, CredentialState::Active { back_off: None, .. }));
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn i1_a_last_chance_stays_one_when_its_claim_is_unclear_or_too_late() {
    for late in [false, true] {
        let rig = Rig::with(RigOptions::impatient()).await;
        rig.connect(&["mail"]).await;
        rig.comes_to_the_last_chance().await;
        if late {
            let other = rig.replica(2);
            other.stops_at(Step::PermitTaken).await;
            rig.clock.advance(DISPATCH_WITHIN + Duration::from_millis(1));
            other.life.resume();
            other.settle().await;
        } else {
            rig.faults.claim_answer.store(1, Ordering::SeqCst);
            assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
            rig.settle().await;
        }
        assert!(matches!(rig.row().await.state, CredentialState::Refreshing { .. }), "late: {late}");
        rig.clock.advance(STRICT_SETTLE);
        // What the first presentation obtained may stand there.
        rig.permits.unreachable(true);
        assert_eq!(unavailable(rig.get().await).0, Unavailable::OutcomeUnknown);
        assert_eq!(rig.provider.presented().len(), 1);
        rig.permits.unreachable(false);
        assert_eq!(rig.token().await.generation, 2);
        assert_eq!(rig.provider.presented().len(), 2);
    }
}

/// The claim that was not written, and the next one, have the same owner and epoch.
#[tokio::test]
async fn i1_giving_it_back_does_not_give_the_next_claim_back() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.faults.claim.store(1, Ordering::SeqCst);
    rig.faults.end_claim.store(u32::MAX, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(
            unavailable(rig.get().await).0,
            Unavailable::Storage,
            "not claimed anew before it is clear"
        );
    }
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    // Other replicas can do without this one.
    let other = rig.replica(2);
    let first = other.get_meanwhile();
    rig.provider.wait_for_presentations(1).await;
    rig.faults.end_claim.store(0, Ordering::SeqCst);
    rig.settle().await;
    let row = rig.row().await;
    assert!(matches!(row.state, CredentialState::Refreshing { claim, .. } if claim.owner == other.owner));
    open.send_replace(true);
    assert_eq!(token(first.await.unwrap()).generation, 2);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3, "once it is clear, this one goes on");
    assert_eq!(rig.provider.overlaps(), 0);
}
