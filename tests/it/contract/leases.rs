//! The contract of `LeaseStore`.

use std::time::Duration;

use token_broker::domain::coordination::LeaseTerm;
use token_broker::domain::key::CredentialId;

use super::coordination::{Coordination, hardly_less, on_all};
use super::samples::{credential_id, lease_id};

on_all!(
    a_lease_lasts_as_long_as_asked_for,
    a_lease_that_has_ended_is_not_renewed,
    a_renewal_never_shortens,
    a_released_lease_is_gone,
    while_a_refresh_waits_no_lease_goes_beyond_the_longest,
    while_a_refresh_waits_and_nobody_holds_one_there_is_none,
    a_second_wait_does_not_move_the_cap,
    after_the_refresh_leases_are_free_again,
    a_refresh_that_died_is_forgotten,
    one_that_goes_on_waiting_is_not,
    all_can_be_ended_at_once,
    credentials_have_leases_of_their_own,
    a_thousand_is_enough,
    leases_of_many_callers_are_all_counted,
);

const MINUTE: Duration = Duration::from_mins(1);

fn row() -> CredentialId {
    credential_id(1)
}

impl Coordination {
    async fn acquire(&self, n: u32, ttl: Duration) -> Option<LeaseTerm> {
        self.leases.acquire(row(), lease_id(n), ttl).await.unwrap()
    }

    async fn renew(&self, n: u32, ttl: Duration) -> Option<LeaseTerm> {
        self.leases.renew(row(), lease_id(n), ttl).await.unwrap()
    }

    async fn cap(&self) -> Duration {
        self.leases.cap(row()).await.unwrap()
    }

    async fn count(&self) -> u64 {
        self.leases.count(row()).await.unwrap()
    }
}

#[track_caller]
fn lasts(term: Option<LeaseTerm>, expected: Duration, capped: bool) {
    let term = term.expect("a lease");
    assert!(hardly_less(term.lasts, expected), "{:?} instead of {expected:?}", term.lasts);
    assert_eq!(term.capped, capped);
}

async fn a_lease_lasts_as_long_as_asked_for(store: Coordination) {
    lasts(store.acquire(1, MINUTE * 2).await, MINUTE * 2, false);
    lasts(store.acquire(2, MINUTE * 4).await, MINUTE * 4, false);
    assert_eq!(store.count().await, 2);
    store.pass(MINUTE * 2);
    assert_eq!(store.count().await, 1);
    store.pass(MINUTE * 2);
    assert_eq!(store.count().await, 0);
}

async fn a_lease_that_has_ended_is_not_renewed(store: Coordination) {
    assert_eq!(store.renew(1, MINUTE).await, None, "never was");
    store.acquire(1, MINUTE).await.unwrap();
    store.acquire(2, MINUTE * 9).await.unwrap();
    store.pass(MINUTE);
    assert_eq!(store.renew(1, MINUTE).await, None);
    assert_eq!(store.count().await, 1);
}

async fn a_renewal_never_shortens(store: Coordination) {
    store.acquire(1, MINUTE * 5).await.unwrap();
    lasts(store.renew(1, MINUTE).await, MINUTE * 5, false);
    lasts(store.renew(1, MINUTE * 8).await, MINUTE * 8, false);
    store.pass(MINUTE * 5);
    lasts(store.renew(1, MINUTE).await, MINUTE * 3, false);
    lasts(store.renew(1, MINUTE * 4).await, MINUTE * 4, false);
}

async fn a_released_lease_is_gone(store: Coordination) {
    let release = |n| store.leases.release(row(), lease_id(n));
    assert!(!release(1).await.unwrap());
    store.acquire(1, MINUTE).await.unwrap();
    store.acquire(2, MINUTE).await.unwrap();
    assert!(release(1).await.unwrap());
    assert!(!release(1).await.unwrap());
    assert_eq!(store.count().await, 1);
    store.acquire(3, MINUTE * 9).await.unwrap();
    store.pass(MINUTE);
    assert!(!release(2).await.unwrap(), "it has ended by itself");
}

async fn while_a_refresh_waits_no_lease_goes_beyond_the_longest(store: Coordination) {
    store.acquire(1, MINUTE * 2).await.unwrap();
    store.acquire(2, MINUTE * 5).await.unwrap();
    assert!(hardly_less(store.cap().await, MINUTE * 5));
    lasts(store.acquire(3, MINUTE * 9).await, MINUTE * 5, true);
    lasts(store.acquire(4, MINUTE).await, MINUTE, true);
    lasts(store.renew(1, MINUTE * 9).await, MINUTE * 5, true);
    store.pass(MINUTE * 4);
    lasts(store.acquire(5, MINUTE * 9).await, MINUTE, true);
    // Readers come and go: the wait has an end.
    assert!(hardly_less(store.cap().await, MINUTE));
    store.pass(MINUTE);
    assert_eq!(store.acquire(6, MINUTE).await, None);
    assert_eq!(store.cap().await, Duration::ZERO);
}

async fn while_a_refresh_waits_and_nobody_holds_one_there_is_none(store: Coordination) {
    assert_eq!(store.cap().await, Duration::ZERO);
    assert_eq!(store.acquire(1, MINUTE).await, None);
    assert_eq!(store.count().await, 0);
}

async fn a_second_wait_does_not_move_the_cap(store: Coordination) {
    store.acquire(1, MINUTE * 5).await.unwrap();
    store.acquire(2, MINUTE).await.unwrap();
    store.cap().await;
    store.leases.release(row(), lease_id(1)).await.unwrap();
    // The longest that is running now ends sooner than the cap.
    assert!(hardly_less(store.cap().await, MINUTE));
    lasts(store.acquire(3, MINUTE * 9).await, MINUTE * 5, true);
    assert!(hardly_less(store.cap().await, MINUTE * 5));
}

async fn after_the_refresh_leases_are_free_again(store: Coordination) {
    store.acquire(1, MINUTE).await.unwrap();
    store.cap().await;
    store.leases.uncap(row()).await.unwrap();
    lasts(store.acquire(2, MINUTE * 9).await, MINUTE * 9, false);
    lasts(store.renew(1, MINUTE * 9).await, MINUTE * 9, false);
    // Nothing waits: nothing to do.
    store.leases.uncap(row()).await.unwrap();
}

async fn a_refresh_that_died_is_forgotten(store: Coordination) {
    store.acquire(1, MINUTE * 2).await.unwrap();
    store.cap().await;
    store.pass(MINUTE * 2);
    assert_eq!(store.acquire(2, MINUTE).await, None);
    store.pass(MINUTE);
    lasts(store.acquire(2, MINUTE).await, MINUTE, false);
}

async fn one_that_goes_on_waiting_is_not(store: Coordination) {
    store.acquire(1, MINUTE * 2).await.unwrap();
    store.cap().await;
    for _ in 0..4 {
        store.pass(MINUTE / 2 + MINUTE / 4);
        store.cap().await;
    }
    assert_eq!(store.acquire(2, MINUTE).await, None);
}

async fn all_can_be_ended_at_once(store: Coordination) {
    let end_all = || store.leases.end_all(row());
    assert_eq!(end_all().await.unwrap(), 0);
    store.acquire(1, MINUTE).await.unwrap();
    for n in 2..5 {
        store.acquire(n, MINUTE * 2).await.unwrap();
    }
    store.pass(MINUTE);
    assert_eq!(end_all().await.unwrap(), 3, "one had ended");
    assert_eq!(store.count().await, 0);
    assert_eq!(store.renew(2, MINUTE).await, None);
}

async fn credentials_have_leases_of_their_own(store: Coordination) {
    store.acquire(1, MINUTE).await.unwrap();
    let other = credential_id(2);
    assert_eq!(store.leases.count(other).await.unwrap(), 0);
    assert_eq!(store.leases.renew(other, lease_id(1), MINUTE).await.unwrap(), None);
    store.leases.cap(other).await.unwrap();
    lasts(store.acquire(2, MINUTE).await, MINUTE, false);
    store.leases.end_all(other).await.unwrap();
    assert_eq!(store.count().await, 2);
}

async fn a_thousand_is_enough(store: Coordination) {
    store.acquire(0, MINUTE).await.unwrap();
    for n in 1..1_000 {
        store.acquire(n, MINUTE * 2).await.unwrap();
    }
    assert_eq!(store.acquire(1_000, MINUTE).await, None);
    // One that is there already is no further one.
    lasts(store.acquire(1, MINUTE * 2).await, MINUTE * 2, false);
    store.pass(MINUTE);
    lasts(store.acquire(1_000, MINUTE).await, MINUTE, false);
    assert_eq!(store.count().await, 1_000);
}

async fn leases_of_many_callers_are_all_counted(store: Coordination) {
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.acquire(n, MINUTE).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.count().await, 100);
}
