//! Deadlines in rows go by the database's clock, whatever the callers' clocks say.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use token_broker::domain::credential::{BackOff, Claim, Credential, CredentialState, RefreshFailure};
use token_broker::domain::ports::{ClaimRequest, Clock, CredentialStore as _, DueRequest, StoreHealth as _};
use token_broker::infra::storage::postgres::{DatabaseClock, PgStore, RowClock};
use token_broker::infra::system::SystemClock;

use super::{Place, connected};
use crate::contract::samples::{claim_request, owner, provider, release};
use crate::engines::postgres;

/// So much later than now a test may look at what it did.
const A_MOMENT: SignedDuration = SignedDuration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    SystemClock.now()
}

/// A claim by a caller whose clock is wrong by so much, to be settled in so many seconds.
fn request(row: &Credential, wrong: SignedDuration, settle_after: i64) -> ClaimRequest {
    let now = now() + wrong;
    let settle_at = now + SignedDuration::from_secs(settle_after);
    let claim = Claim { owner: owner(1), deadline: now, settle_at };
    ClaimRequest { claim, now, ..claim_request(row, 1, now) }
}

fn is_about(found: Timestamp, expected: Timestamp) -> bool {
    found.duration_since(expected).abs() < A_MOMENT
}

async fn claim_of(store: &PgStore, row: &Credential) -> (Claim, Credential) {
    let row = store.load_by_id(row.id).await.unwrap().unwrap();
    match &row.state {
        CredentialState::Refreshing { claim, .. } => (*claim, row),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_caller_whose_clock_is_wrong_neither_settles_early_nor_late() {
    let place = Place::with(RowClock::Database).await;
    for (n, wrong) in (1..).zip([SignedDuration::ZERO, HOUR, -HOUR]) {
        let row = connected(&place.store, &format!("user {n}"), n).await;
        let epoch = place.store.claim_for_refresh(request(&row, wrong, 600)).await.unwrap().unwrap();
        let (claim, row) = claim_of(&place.store, &row).await;
        assert!(is_about(claim.deadline, now()) && is_about(claim.settle_at, now() + HOUR / 6), "{claim:?}");
        assert!(is_about(row.updated_at, now()), "{}", row.updated_at);
        for judge in [SignedDuration::ZERO, HOUR, -HOUR] {
            let early = place.store.claim_for_settle(request(&row, judge, 600)).await.unwrap();
            assert_eq!(early, None, "by a clock that is {judge} wrong");
            assert_eq!(place.store.due_for_settle(now() + judge, 9).await.unwrap(), []);
        }
        let back_off = |after| BackOff {
            not_before: now() + wrong + SignedDuration::from_secs(after),
            failures: 1,
            last: RefreshFailure::RateLimited,
        };
        let end = release(row.id, epoch, 1, Some(back_off(600)), now() + wrong);
        assert!(place.store.release_claim(end).await.unwrap());
        let row = place.store.load_by_id(row.id).await.unwrap().unwrap();
        let CredentialState::Active { back_off: Some(back_off), .. } = &row.state else { panic!("{row:?}") };
        assert!(is_about(back_off.not_before, now() + HOUR / 6), "{back_off:?}");
    }
    // What is due is due, also for one whose clock is an hour behind.
    let row = connected(&place.store, "late", 9).await;
    place.store.claim_for_refresh(request(&row, HOUR, 0)).await.unwrap().unwrap();
    let (_, claimed) = claim_of(&place.store, &row).await;
    assert_eq!(place.store.due_for_settle(now() - HOUR, 9).await.unwrap(), [row.id]);
    let settled = place.store.claim_for_settle(request(&claimed, -HOUR, 600)).await.unwrap();
    assert_eq!(settled, Some(claimed.epoch + 1));
}

#[tokio::test]
async fn rows_are_due_by_the_databases_clock() {
    let place = Place::with(RowClock::Database).await;
    let (due, later) = (connected(&place.store, "a", 1).await, connected(&place.store, "b", 2).await);
    place.store.reschedule(due.id, Some(now() - A_MOMENT)).await.unwrap();
    place.store.reschedule(later.id, Some(now() + HOUR / 2)).await.unwrap();
    for wrong in [HOUR, -HOUR] {
        place.store.reschedule(due.id, Some(now() - A_MOMENT)).await.unwrap();
        let (now, until) = (now() + wrong, now() + wrong + HOUR);
        let request = DueRequest { provider: provider("google"), configuration: None, now, until, limit: 9 };
        let reserved = place.store.reserve_due(request).await.unwrap();
        assert_eq!(reserved.iter().map(|due| due.id).collect::<Vec<_>>(), [due.id]);
        let pushed = place.store.load_by_id(due.id).await.unwrap().unwrap();
        let pushed = pushed.tokens().unwrap().next_refresh_at.unwrap();
        assert!(is_about(pushed, super::clock::now() + HOUR), "{pushed}");
    }
}

/// A machine whose clock is a day behind.
struct Wrong(SystemClock);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        self.0.now() - HOUR * 24
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test]
async fn a_machine_whose_clock_is_wrong_has_the_databases_time() {
    let server = postgres::shared();
    let settings = postgres::settings(&server.url(&server.migrated_database().await));
    let clock = std::sync::Arc::new(DatabaseClock::new(std::sync::Arc::new(Wrong(SystemClock))));
    assert!(is_about(clock.now(), now() - HOUR * 24), "nothing is known yet");
    let store = PgStore::open(&settings, RowClock::Database, clock.clone()).await.unwrap();
    assert!(is_about(clock.now(), now()), "known as soon as it is open");
    store.ping().await.unwrap();
    assert!(is_about(clock.now(), now()));
}
