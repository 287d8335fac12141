//! The contract of `Wakeups`.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use token_broker::domain::coordination::Wake;
use tokio::time::timeout;

use super::coordination::{Coordination, on_all};
use super::samples::{credential_id, tenant};

on_all!(
    a_waiter_is_woken,
    waiting_begins_with_the_call,
    every_waiter_of_a_thing_is_woken,
    what_others_wait_for_does_not_wake,
    a_waiter_that_went_away_disturbs_nobody,
);

const LONG: Duration = Duration::from_secs(30);

fn row(n: u32) -> Wake {
    Wake::Credential(credential_id(n))
}

async fn a_waiter_is_woken(store: Coordination) {
    for wake in [row(1), Wake::Events(tenant("acme"))] {
        let waiter = tokio::spawn(store.wakeups.listen(&wake));
        store.wakeups.publish(wake).await;
        timeout(LONG, waiter).await.unwrap().unwrap();
    }
}

async fn waiting_begins_with_the_call(store: Coordination) {
    let waiter = store.wakeups.listen(&row(1));
    store.wakeups.publish(row(1)).await;
    // Told before anybody polled.
    waiter.now_or_never().expect("was told");
}

async fn every_waiter_of_a_thing_is_woken(store: Coordination) {
    let waiters: Vec<_> = (0..100).map(|_| store.wakeups.listen(&row(1))).collect();
    store.wakeups.publish(row(1)).await;
    timeout(LONG, join_all(waiters)).await.unwrap();
}

async fn what_others_wait_for_does_not_wake(store: Coordination) {
    let (other, tenant) =
        (store.wakeups.listen(&row(2)), store.wakeups.listen(&Wake::Events(tenant("acme"))));
    let waiter = store.wakeups.listen(&row(1));
    store.wakeups.publish(row(1)).await;
    waiter.await;
    assert!(other.now_or_never().is_none());
    assert!(tenant.now_or_never().is_none());
}

async fn a_waiter_that_went_away_disturbs_nobody(store: Coordination) {
    let (gone, stays) = (store.wakeups.listen(&row(1)), store.wakeups.listen(&row(1)));
    drop(gone);
    store.wakeups.publish(row(1)).await;
    stays.await;
    store.wakeups.publish(row(1)).await;
}
