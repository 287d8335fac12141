//! A provider in trouble is left alone, and can't take more than its places.

use std::time::Duration;

use futures_util::future::join_all;
use token_broker::application::error::Unavailable;
use token_broker::domain::ports::ProviderFailure;
use tokio::sync::watch;

use crate::support::rig::{Rig, RigOptions, token, unavailable};
use crate::support::strict_provider::Script;

/// The circuit's first opening.
const OPENING: Duration = Duration::from_millis(500);

/// Users whose tokens have expired, and one, `valid`, whose token has not.
async fn with_users(options: RigOptions, count: u32) -> Rig {
    let rig = Rig::with(options).await;
    for n in 0..count {
        rig.import_at("acme", &format!("user-{n}"), Duration::ZERO).await;
    }
    rig.import_at("acme", "valid", Duration::from_hours(1)).await;
    rig
}

/// A rig with an open circuit, after three troubles.
async fn open_circuit() -> Rig {
    let rig = with_users(RigOptions::default(), 8).await;
    for n in 0..3 {
        rig.provider.next_refresh(Script::LostBefore);
        assert_eq!(unavailable(rig.get_of(&format!("user-{n}")).await).0, Unavailable::OutcomeUnknown);
    }
    rig
}

#[tokio::test]
async fn three_troubles_in_a_row_open_the_circuit_and_a_probe_closes_it() {
    let rig = open_circuit().await;
    for _ in 0..5 {
        assert_eq!(unavailable(rig.get_of("user-3").await), (Unavailable::Provider, OPENING));
    }
    assert_eq!(token(rig.get_of("valid").await).generation, 1, "I6");
    assert_eq!(rig.provider.presented().len(), 3);
    rig.clock.advance(OPENING);
    assert_eq!(token(rig.get_of("user-3").await).generation, 2);
    assert_eq!(token(rig.get_of("user-4").await).generation, 2);
}

#[tokio::test]
async fn an_answer_between_troubles_keeps_it_closed() {
    let rig = with_users(RigOptions::default(), 8).await;
    for n in 0..8 {
        let user = format!("user-{n}");
        if n % 3 == 2 {
            assert_eq!(token(rig.get_of(&user).await).generation, 2);
        } else {
            rig.provider.next_refresh(Script::LostBefore);
            assert_eq!(unavailable(rig.get_of(&user).await).0, Unavailable::OutcomeUnknown);
        }
    }
    assert_eq!(rig.provider.presented().len(), 8);
}

#[tokio::test]
async fn one_probe_at_a_time_and_each_that_fails_doubles_the_opening() {
    let rig = open_circuit().await;
    rig.clock.advance(OPENING);
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    let probe = rig.get_of("user-3");
    let meanwhile = async {
        rig.provider.wait_for_presentations(4).await;
        let refused = join_all((4..8).map(|n| {
            let rig = &rig;
            async move { rig.get_of(&format!("user-{n}")).await }
        }));
        assert!(
            refused.await.into_iter().all(|answer| unavailable(answer) == (Unavailable::Provider, OPENING))
        );
        // The gate goes away, and the answer with it.
        drop(open);
    };
    let (answer, ()) = tokio::join!(probe, meanwhile);
    assert_eq!(unavailable(answer).0, Unavailable::OutcomeUnknown);
    assert_eq!(unavailable(rig.get_of("user-4").await), (Unavailable::Provider, OPENING * 2));
    assert_eq!(rig.provider.presented().len(), 4);
    rig.clock.advance(OPENING * 2);
    assert_eq!(token(rig.get_of("user-4").await).generation, 2);
}

#[tokio::test]
async fn a_rejected_client_opens_it_at_once_and_a_row_is_none_the_worse() {
    let rig = with_users(RigOptions::default(), 3).await;
    rig.provider.next_refresh(Script::Fail(ProviderFailure::ClientRejected));
    for user in ["user-0", "user-1", "user-2"] {
        assert_eq!(unavailable(rig.get_of(user).await).0, Unavailable::ClientRejected);
    }
    assert_eq!(rig.provider.presented().len(), 1);
    rig.clock.advance(Duration::from_secs(1));
    for user in ["user-0", "user-1", "user-2"] {
        assert_eq!(token(rig.get_of(user).await).generation, 2);
    }
}

#[tokio::test]
async fn a_rate_limit_with_a_time_is_everybodys_and_one_without_is_one_users() {
    let rig = with_users(RigOptions::default(), 3).await;
    rig.provider.next_refresh(Script::Fail(ProviderFailure::RateLimited { retry_after: None }));
    assert_eq!(unavailable(rig.get_of("user-0").await).0, Unavailable::ProviderRateLimited);
    assert_eq!(token(rig.get_of("user-1").await).generation, 2);
    let pause = Duration::from_secs(20);
    rig.clock.advance(Duration::from_secs(1));
    rig.provider.next_refresh(Script::Fail(ProviderFailure::RateLimited { retry_after: Some(pause) }));
    assert_eq!(unavailable(rig.get_of("user-0").await), (Unavailable::ProviderRateLimited, pause));
    assert_eq!(unavailable(rig.get_of("user-2").await), (Unavailable::ProviderRateLimited, pause));
    assert_eq!(rig.provider.presented().len(), 3);
    rig.clock.advance(pause);
    assert_eq!(token(rig.get_of("user-2").await).generation, 2);
}

#[tokio::test]
async fn a_provider_has_no_more_than_its_places_and_the_others_wait() {
    let rig = with_users(RigOptions { concurrency: 3, ..RigOptions::default() }, 12).await;
    let (open, gate) = watch::channel(false);
    for _ in 0..12 {
        rig.provider.next_refresh(Script::Hold(gate.clone()));
    }
    let users: Vec<_> = (0..12).map(|n| format!("user-{n}")).collect();
    let readers = join_all(users.iter().map(|user| rig.get_of(user)));
    let meanwhile = async {
        rig.provider.wait_for_presentations(3).await;
        assert_eq!(token(rig.get_of("valid").await).generation, 1, "I6");
        open.send_replace(true);
    };
    let (answers, ()) = tokio::join!(readers, meanwhile);
    assert!(answers.into_iter().all(|answer| token(answer).generation == 2));
    assert_eq!(rig.provider.presented().len(), 12);
    assert_eq!(rig.provider.most_at_a_time(), 3);
}

#[tokio::test]
async fn who_finds_no_place_in_time_is_told_when_to_come_back_and_nothing_is_claimed() {
    let max_wait = Duration::from_millis(50);
    let rig = with_users(RigOptions { concurrency: 1, max_wait, ..RigOptions::default() }, 2).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    assert_eq!(unavailable(rig.get_of("user-0").await).0, Unavailable::RefreshInProgress);
    rig.provider.wait_for_presentations(1).await;
    let before = rig.row_of("user-1").await;
    let (_, retry_after) = unavailable(rig.get_of("user-1").await);
    assert!(retry_after > Duration::ZERO);
    assert_eq!(rig.row_of("user-1").await, before);
    assert_eq!(rig.provider.presented().len(), 1);
    open.send_replace(true);
    rig.settle().await;
    assert_eq!(token(rig.get_of("user-1").await).generation, 2);
}

#[tokio::test]
async fn a_place_is_given_back_by_who_has_nothing_to_send() {
    let rig = with_users(RigOptions { concurrency: 1, ..RigOptions::default() }, 4).await;
    for n in 0..3 {
        let user = format!("user-{n}");
        rig.faults.claim.store(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(unavailable(rig.get_of(&user).await).0, Unavailable::Storage);
    }
    for n in 0..4 {
        assert_eq!(token(rig.get_of(&format!("user-{n}")).await).generation, 2);
    }
}
