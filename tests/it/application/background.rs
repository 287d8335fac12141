//! Refreshes ahead of expiry: each due row once, for as long as somebody uses it, and never at the cost of readers.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use token_broker::application::types::ConsentReason;
use token_broker::domain::key::ProviderId;
use token_broker::domain::ports::{CredentialStore as _, DueRequest, ProviderFailure};
use token_broker::domain::step::Step;
use tokio::sync::watch;

use crate::support::replica::Replica;
use crate::support::rig::{Rig, RigOptions, token};
use crate::support::strict_provider::Script;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The head start at a strict provider, the time that a refresh may take to settle; and the margin.
const EARLIEST: Duration = Duration::from_secs(330 + 60);
/// A quarter of the head start later at most.
const LATEST: Duration = Duration::from_millis(330_000 * 3 / 4 + 60_000);

fn before_expiry(by: Duration) -> Duration {
    HOUR.saturating_sub(by)
}

async fn users(rig: &Rig, count: u32) -> Vec<String> {
    let users: Vec<_> = (0..count).map(|n| format!("user-{n}")).collect();
    for user in &users {
        rig.import_at("acme", user, HOUR).await;
    }
    users
}

async fn next_refresh(rig: &Rig, user: &str) -> Option<Timestamp> {
    rig.row_of(user).await.tokens().unwrap().next_refresh_at
}

#[tokio::test]
async fn each_due_row_is_refreshed_once_whatever_the_number_of_replicas() {
    let rig = Rig::new().await;
    let users = users(&rig, 20).await;
    let replicas = rig.replicas(4);
    rig.clock.advance(before_expiry(EARLIEST).saturating_sub(Duration::from_secs(1)));
    join_all(replicas.iter().map(Replica::refresh_due)).await;
    assert!(rig.provider.presented().is_empty(), "not before it is due");
    rig.clock.advance(EARLIEST.saturating_sub(LATEST) + Duration::from_secs(1));
    for _ in 0..2 {
        join_all(replicas.iter().map(Replica::refresh_due)).await;
    }
    let presented = rig.provider.presented();
    assert_eq!(presented.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(presented.len(), 20);
    for user in &users {
        assert_eq!(rig.row_of(user).await.generation, 2);
        assert_eq!(token(rig.get_of(user).await).generation, 2);
    }
    assert_eq!(rig.provider.presented().len(), 20);
}

#[tokio::test]
async fn what_began_together_does_not_come_back_together() {
    let rig = Rig::new().await;
    let end = rig.now() + HOUR;
    let mut times = BTreeSet::new();
    for user in users(&rig, 40).await {
        let next = next_refresh(&rig, &user).await.unwrap();
        assert!(next >= end - EARLIEST && next <= end - LATEST, "{next}");
        times.insert(next);
    }
    assert!(times.len() > 20, "{times:?}");
}

#[tokio::test]
async fn a_row_that_nobody_has_used_for_a_week_is_let_go_until_somebody_does() {
    let rig = Rig::new().await;
    users(&rig, 1).await;
    rig.clock.advance(DAY * 7 + Duration::from_secs(1));
    rig.refresh_due().await;
    assert!(rig.provider.presented().is_empty());
    assert_eq!(next_refresh(&rig, "user-0").await, None);
    assert_eq!(token(rig.get_of("user-0").await).generation, 2);
    assert!(next_refresh(&rig, "user-0").await.is_some());
    rig.sweep().await; // writes down who was used
    rig.clock.advance(before_expiry(LATEST));
    rig.refresh_due().await;
    assert_eq!(rig.row_of("user-0").await.generation, 3);
}

#[tokio::test]
async fn use_counts_whichever_replica_saw_it() {
    let rig = Rig::new().await;
    users(&rig, 2).await;
    rig.clock.advance(HOUR / 2);
    rig.get_of("user-0").await.unwrap();
    rig.sweep().await;
    // A week after both were imported, and less after one was used.
    rig.clock.advance((DAY * 7).saturating_sub(HOUR / 4));
    rig.replica(2).refresh_due().await;
    assert_eq!(rig.row_of("user-0").await.generation, 2);
    assert_eq!(rig.row_of("user-1").await.generation, 1);
    assert_eq!(rig.provider.presented(), ["canary-rt-1"]);
}

#[tokio::test]
async fn a_grant_that_would_die_of_disuse_is_kept_alive() {
    let options = RigOptions { idle_limit: Some(DAY * 40), ..RigOptions::default() };
    let rig = Rig::with(options).await;
    users(&rig, 1).await;
    let obtained = rig.now();
    rig.clock.advance(DAY * 8);
    rig.refresh_due().await;
    assert_eq!(next_refresh(&rig, "user-0").await, Some(obtained + DAY * 30), "with a quarter to spare");
    rig.clock.advance((DAY * 22).saturating_sub(Duration::from_secs(1)));
    rig.refresh_due().await;
    assert!(rig.provider.presented().is_empty());
    rig.clock.advance(Duration::from_secs(1));
    rig.refresh_due().await;
    assert_eq!(rig.row_of("user-0").await.generation, 2);
    // And again, though nobody uses it.
    rig.clock.advance(HOUR);
    rig.refresh_due().await;
    rig.clock.advance(DAY * 30);
    rig.refresh_due().await;
    assert_eq!(rig.row_of("user-0").await.generation, 3);
}

#[tokio::test]
async fn a_failure_is_followed_by_its_back_off_and_retry_after_is_obeyed() {
    let rig = Rig::new().await;
    users(&rig, 1).await;
    rig.clock.advance(before_expiry(LATEST));
    rig.provider.next_refresh(Script::Fail(ProviderFailure::NotSent));
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 1);
    // It was given out for two minutes, which is more than the first back-off.
    rig.clock.advance(Duration::from_secs(119));
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 1);
    rig.clock.advance(Duration::from_secs(1));
    let limit = Some(Duration::from_mins(20));
    rig.provider.next_refresh(Script::Fail(ProviderFailure::RateLimited { retry_after: limit }));
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 2);
    assert_eq!(next_refresh(&rig, "user-0").await, Some(rig.now() + Duration::from_mins(20)));
    rig.clock.advance(Duration::from_mins(20).saturating_sub(Duration::from_secs(1)));
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 2);
    rig.clock.advance(Duration::from_secs(1));
    rig.refresh_due().await;
    assert_eq!(rig.row_of("user-0").await.generation, 2);
}

#[tokio::test]
async fn a_provider_that_hangs_does_not_stop_another() {
    let rig = Rig::with(RigOptions { bolt: true, concurrency: 4, ..RigOptions::default() }).await;
    let (open, gate) = watch::channel(false);
    rig.provider.hang("bolt", gate);
    for n in 0..10 {
        rig.import_at("bolt", &format!("user-{n}"), HOUR).await;
    }
    users(&rig, 10).await;
    rig.clock.advance(before_expiry(LATEST));
    for round in 1.. {
        rig.broker.refresh_due().await;
        let done = rig.life.taken().iter().filter(|step| **step == Step::Published).count();
        if done == 10 {
            break;
        }
        assert!(round < 50, "{done} of 10");
        rig.broker.background_refresh_ended().await;
    }
    assert_eq!(rig.provider.presented().len(), 10 + 3, "three of four places for the one that hangs");
    open.send_replace(true);
    rig.settle().await;
}

#[tokio::test]
async fn a_client_that_is_refused_leaves_nothing_to_hurry_for() {
    let rig = Rig::with(RigOptions { concurrency: 8, ..RigOptions::default() }).await;
    users(&rig, 40).await;
    rig.clock.advance(before_expiry(LATEST));
    rig.import_at("acme", "reader", Duration::ZERO).await;
    rig.provider.next_refresh(Script::Fail(ProviderFailure::ClientRejected));
    rig.get_of("reader").await.unwrap_err();
    assert!(!rig.refresh_due().await, "the next round is soon enough");
    assert_eq!(rig.provider.presented().len(), 1);
    // One of them finds out that the provider answers again.
    rig.clock.advance(Duration::from_mins(3));
    rig.refresh_due().await;
    assert!(rig.refresh_due().await, "there is more");
    // Those that were reserved beside the first one have their turn again.
    rig.clock.advance(Duration::from_mins(3));
    while rig.refresh_due().await {}
    for user in 0..40 {
        assert_eq!(rig.row_of(&format!("user-{user}")).await.generation, 2, "{user}");
    }
}

#[tokio::test]
async fn between_two_rounds_over_all_only_those_with_a_backlog_are_looked_at() {
    let rig = Rig::with(RigOptions { bolt: true, concurrency: 8, ..RigOptions::default() }).await;
    users(&rig, 20).await;
    let soon = Duration::from_mins(5);
    rig.import_at("bolt", "alice", HOUR + soon).await;
    rig.clock.advance(before_expiry(LATEST));
    assert!(rig.broker.refresh_due().await, "there is more");
    rig.settle().await;
    rig.clock.advance(soon);
    while rig.broker.refresh_backlog().await {
        rig.settle().await;
    }
    rig.settle().await;
    assert_eq!(rig.provider.presented().len(), 20);
    assert!(!rig.broker.refresh_backlog().await);
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 21);
}

#[tokio::test]
async fn a_quarter_of_the_places_is_left_to_readers() {
    let rig = Rig::with(RigOptions { concurrency: 8, ..RigOptions::default() }).await;
    users(&rig, 20).await;
    rig.clock.advance(before_expiry(LATEST));
    rig.import_at("acme", "reader", Duration::ZERO).await;
    let (open, gate) = watch::channel(false);
    for _ in 0..6 {
        rig.provider.next_refresh(Script::Hold(gate.clone()));
    }
    assert!(rig.broker.refresh_due().await, "there is more");
    rig.provider.wait_for_presentations(6).await;
    assert!(rig.broker.refresh_due().await);
    assert_eq!(token(rig.get_of("reader").await).generation, 2);
    assert_eq!(rig.provider.presented().len(), 7);
    open.send_replace(true);
    rig.settle().await;
    while rig.refresh_due().await {}
    assert_eq!(rig.provider.presented().len(), 21);
    assert_eq!(rig.provider.most_at_a_time(), 7);
}

#[tokio::test]
async fn a_death_after_the_reservation_costs_a_turn_and_nothing_more() {
    let rig = Rig::new().await;
    users(&rig, 3).await;
    rig.clock.advance(before_expiry(LATEST));
    let request = DueRequest {
        provider: ProviderId::new("acme").unwrap(),
        configuration: None,
        now: rig.now(),
        until: rig.now() + Duration::from_mins(2),
        limit: 10,
    };
    assert_eq!(rig.store.reserve_due(request).await.unwrap().len(), 3);
    rig.refresh_due().await;
    assert!(rig.provider.presented().is_empty());
    rig.clock.advance(Duration::from_mins(2));
    rig.refresh_due().await;
    assert_eq!(rig.provider.presented().len(), 3);
}

#[tokio::test]
async fn i1_a_death_in_a_background_refresh_is_settled_like_any_other() {
    let rig = Rig::new().await;
    users(&rig, 1).await;
    rig.clock.advance(before_expiry(LATEST));
    let dead = rig.replica(2);
    dead.life.stop_at(Step::Dispatched);
    dead.broker.refresh_due().await;
    dead.life.has_stopped().await;
    rig.clock.advance(Duration::from_mins(2));
    rig.refresh_due().await;
    assert!(rig.provider.presented().is_empty());
    rig.clock.advance(Duration::from_mins(3));
    rig.sweep().await;
    assert_eq!(rig.row_of("user-0").await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let rig = Rig::with(RigOptions { refresh_ahead: Duration::ZERO, ..RigOptions::default() }).await;
    users(&rig, 1).await;
    assert_eq!(next_refresh(&rig, "user-0").await, None);
    rig.clock.advance(HOUR);
    assert!(!rig.refresh_due().await);
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn what_is_revoked_or_refused_is_left_alone() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.revoke().await.unwrap();
    users(&rig, 1).await;
    rig.provider.end_all_grants();
    rig.clock.advance(before_expiry(LATEST));
    for _ in 0..3 {
        rig.refresh_due().await;
        rig.clock.advance(DAY);
    }
    assert_eq!(rig.provider.presented().len(), 1, "refused once");
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
}
