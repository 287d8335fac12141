//! Events: written with their changes, read in order, kept for a while.

use std::time::Duration;

use token_broker::domain::credential::{BackOff, ReauthReason, RefreshFailure};
use token_broker::domain::event::{Change, Event, EventPosition, EventQuery, FlowCause, NewEvent, Standing};
use token_broker::domain::flow::{Flow, FlowFailure, FlowStatus};
use token_broker::domain::ports::{Consumed, GrantCondition, NewGrant, Persisted, Release, StoredGrant};

use super::samples::{
    at, claim_request, fingerprint, flow, flow_id, key, key_of, lineage, new_grant, outbox_id, owner,
    revoke_write, tenant,
};
use super::{Stores, contract};

contract!(
    a_new_grant_is_an_event_and_a_refresh_is_none,
    a_dead_grant_is_an_event_and_so_is_its_return,
    revoke_is_an_event_of_what_there_was,
    a_consent_is_two_events_with_its_client_state,
    every_end_of_a_flow_is_an_event,
    what_does_not_happen_is_no_event,
    pages_go_on_where_they_ended,
    tenants_and_users_are_apart,
    old_events_are_deleted_in_batches_and_places_stay_good,
    concurrent_writers_lose_no_event_for_a_reader_that_follows,
);

/// Waits until whatever has been committed is shown. A store may hold it back while older transactions are open, those of
/// other tests at the same server among them: so it is there when a later event is there, of a tenant of its own.
pub(super) async fn shown(stores: &Stores) {
    let marker = key_of("marker", "google", "marker", "mail", "default");
    let generation = stores.connected(marker.clone(), 1_000_000).await.generation;
    let look = async {
        loop {
            let query = EventQuery {
                tenant: marker.tenant.clone(),
                user: None,
                after: EventPosition::default(),
                limit: 1_000,
            };
            let events = stores.events.events_after(query).await.unwrap().events;
            if events.iter().filter(|event| event.told.key == marker).count()
                == usize::try_from(generation).unwrap()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("older transactions end");
}

/// All events of the usual tenant behind a position.
async fn after(stores: &Stores, after: EventPosition) -> Vec<Event> {
    shown(stores).await;
    let query = EventQuery { tenant: tenant("acme"), user: None, after, limit: 1_000 };
    stores.events.events_after(query).await.unwrap().events
}

/// What they tell.
pub(super) async fn told(stores: &Stores) -> Vec<Change> {
    after(stores, EventPosition::default()).await.into_iter().map(|event| event.told.change).collect()
}

fn cause(flow: &Flow) -> FlowCause {
    FlowCause { id: flow.id, client_state: flow.options.client_state.clone() }
}

fn ended(n: u32, created: i64, was: FlowStatus, is: FlowStatus) -> Change {
    Change::FlowEnded { flow: cause(&flow(key("alice"), n, created)), was, is }
}

fn connected(was: Standing, generation: i64) -> Change {
    Change::Connected { was, generation, flow: None }
}

async fn consume(stores: &Stores, n: u32, now: i64) {
    let consumed = stores.consume(n, at(now)).await;
    assert!(matches!(consumed, Consumed::Won(_)), "{consumed:?}");
}

async fn a_new_grant_is_an_event_and_a_refresh_is_none(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let back_off = Some(BackOff { not_before: at(12), failures: 1, last: RefreshFailure::RateLimited });
    let release = Release { id: row.id, epoch, owner: owner(1), back_off, now: at(11) };
    assert!(stores.credentials.release_claim(release).await.unwrap());
    let row = stores.row(&key("alice")).await;
    let epoch = stores.claimed(&row, 1, at(13)).await;
    let persisted = stores.credentials.persist_lineage(lineage(&row, epoch, 2, at(14))).await.unwrap();
    assert!(matches!(persisted, Persisted::Stored(_)));
    stores.connected(key("alice"), 3).await;
    let events = after(&stores, EventPosition::default()).await;
    assert_eq!(
        events.iter().map(|event| event.told.clone()).collect::<Vec<_>>(),
        [
            NewEvent { key: key("alice"), change: connected(Standing::NotConnected, 1), at: at(1) },
            NewEvent { key: key("alice"), change: connected(Standing::Connected, 3), at: at(3) },
        ]
    );
    assert!(events[0].position < events[1].position);
}

async fn a_dead_grant_is_an_event_and_so_is_its_return(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let reason = ReauthReason::RefreshTokenRejected;
    let credentials = &stores.credentials;
    assert!(!credentials.mark_needs_reauth(row.id, epoch, fingerprint(9), reason, at(11)).await.unwrap());
    assert!(credentials.mark_needs_reauth(row.id, epoch, fingerprint(1), reason, at(11)).await.unwrap());
    assert!(!credentials.mark_needs_reauth(row.id, epoch, fingerprint(1), reason, at(12)).await.unwrap());
    // The answer of an earlier presentation turns up after all.
    let persisted = credentials.persist_lineage(lineage(&row, epoch, 2, at(20))).await.unwrap();
    assert!(matches!(persisted, Persisted::Stored(_)), "{persisted:?}");
    let again = credentials.persist_lineage(lineage(&row, epoch, 2, at(21))).await.unwrap();
    assert!(matches!(again, Persisted::AlreadyStored(_)), "{again:?}");
    assert_eq!(
        told(&stores).await,
        [
            connected(Standing::NotConnected, 1),
            Change::NeedsReauth { was: Standing::Connected, reason, generation: 1 },
            connected(Standing::NeedsReauth, 2),
        ]
    );
}

async fn revoke_is_an_event_of_what_there_was(stores: Stores) {
    let alice = key("alice");
    let revoke =
        |n| stores.credentials.revoke_with_outbox(revoke_write(&alice, Some(outbox_id(n)), at(i64::from(n))));
    revoke(1).await.unwrap();
    assert_eq!(told(&stores).await, []);
    let row = stores.connected(key("alice"), 2).await;
    stores.claimed(&row, 1, at(3)).await;
    revoke(4).await.unwrap();
    revoke(5).await.unwrap();
    stores.connected(key("alice"), 6).await;
    assert_eq!(
        told(&stores).await,
        [
            connected(Standing::NotConnected, 1),
            Change::Revoked { was: Standing::Connected, generation: 1 },
            connected(Standing::Revoked, 2),
        ]
    );
}

async fn a_consent_is_two_events_with_its_client_state(stores: Stores) {
    let flow = flow(key("alice"), 1, 0);
    stores.begun(&flow).await;
    consume(&stores, 1, 5).await;
    let grant = NewGrant {
        condition: GrantCondition::Flow { id: flow.id, over: None },
        ..new_grant(key("alice"), 1)
    };
    stores.stored(grant.clone()).await;
    // Once only.
    assert_eq!(stores.credentials.store_grant(grant).await.unwrap(), StoredGrant::ConditionFailed);
    let change = Change::Connected { was: Standing::NotConnected, generation: 1, flow: Some(cause(&flow)) };
    let end = ended(1, 0, FlowStatus::Exchanging, FlowStatus::Completed);
    assert_eq!(told(&stores).await, [change, end]);
}

async fn every_end_of_a_flow_is_an_event(stores: Stores) {
    use FlowStatus::{Cancelled, Completed, Denied, Exchanging, Expired, Failed, Pending};
    for n in 1..=8 {
        stores.begun(&flow(key("alice"), n, 0)).await;
    }
    for n in [1, 2, 3, 4] {
        consume(&stores, n, 5).await;
    }
    let flows = &stores.flows;
    assert!(stores.end(1, Denied, at(6)).await);
    let failed = Failed(FlowFailure::ExchangeRejected);
    assert!(stores.end(2, failed, at(6)).await);
    flows.cancel_flow(&tenant("acme"), flow_id(5), at(7)).await.unwrap();
    // 3 has been exchanging since 5; nothing is past its end.
    flows.sweep_flows(at(8), at(4), at(-100)).await.unwrap();
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(9))).await.unwrap();
    let mut first: Vec<_> = told(&stores).await;
    let by_revoke = first.split_off(3);
    assert_eq!(
        first,
        [ended(1, 0, Exchanging, Denied), ended(2, 0, Exchanging, failed), ended(5, 0, Pending, Cancelled),]
    );
    for expected in [
        ended(3, 0, Exchanging, Cancelled),
        ended(4, 0, Exchanging, Cancelled),
        ended(6, 0, Pending, Cancelled),
        ended(7, 0, Pending, Cancelled),
        ended(8, 0, Pending, Cancelled),
    ] {
        assert_eq!(by_revoke.iter().filter(|change| **change == expected).count(), 1, "{expected:?}");
    }
    assert_eq!(by_revoke.len(), 5);

    for n in 11..=14 {
        stores.begun(&flow(key("alice"), n, 100)).await;
    }
    consume(&stores, 11, 105).await;
    // Cancelled too late, revoked too late, swept: expired; the exchange is interrupted.
    let late = flows.cancel_flow(&tenant("acme"), flow_id(12), at(701)).await.unwrap().unwrap();
    assert_eq!(late.status, Expired);
    assert_eq!(flows.sweep_flows(at(702), at(600), at(-100)).await.unwrap(), 3);
    let last = told(&stores).await.split_off(8);
    for expected in [
        ended(12, 100, Pending, Expired),
        ended(13, 100, Pending, Expired),
        ended(14, 100, Pending, Expired),
        ended(11, 100, Exchanging, Failed(FlowFailure::Interrupted)),
    ] {
        assert_eq!(last.iter().filter(|change| **change == expected).count(), 1, "{expected:?} {last:?}");
    }
    assert_eq!(last.len(), 4);
    let revoked = flow(key("alice"), 21, 1_000);
    stores.begun(&revoked).await;
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(1_601))).await.unwrap();
    assert_eq!(told(&stores).await.pop(), Some(ended(21, 1_000, Pending, Expired)));
    assert!(
        !told(&stores).await.iter().any(|change| matches!(change, Change::FlowEnded { is: Completed, .. }))
    );
}

async fn what_does_not_happen_is_no_event(stores: Stores) {
    let begun = flow(key("alice"), 1, 0);
    stores.begun(&begun).await;
    let grant = NewGrant {
        condition: GrantCondition::Flow { id: begun.id, over: None },
        ..new_grant(key("alice"), 1)
    };
    // Not exchanging yet.
    assert_eq!(stores.credentials.store_grant(grant).await.unwrap(), StoredGrant::ConditionFailed);
    assert!(!stores.end(1, FlowStatus::Denied, at(6)).await);
    stores.flows.cancel_flow(&tenant("rival"), flow_id(1), at(7)).await.unwrap();
    stores.flows.sweep_flows(at(8), at(0), at(-100)).await.unwrap();
    assert_eq!(told(&stores).await, []);
    let row = stores.connected(key("alice"), 2).await;
    let grant = NewGrant { condition: GrantCondition::NotConnected, ..new_grant(key("alice"), 3) };
    assert_eq!(stores.credentials.store_grant(grant).await.unwrap(), StoredGrant::ConditionFailed);
    // A claim that lost, a persist that is superseded.
    let mut request = claim_request(&row, 1, at(10));
    request.epoch += 1;
    assert_eq!(stores.credentials.claim_for_refresh(request).await.unwrap(), None);
    let mut write = lineage(&row, 5, 4, at(11));
    write.parent_fingerprint = fingerprint(99);
    assert_eq!(stores.credentials.persist_lineage(write).await.unwrap(), Persisted::Superseded);
    assert_eq!(told(&stores).await, [connected(Standing::NotConnected, 1)]);
}

async fn pages_go_on_where_they_ended(stores: Stores) {
    let start = stores.events.newest_position().await.unwrap();
    for n in 1..=7 {
        stores.connected(key(&format!("user{n}")), n).await;
    }
    shown(&stores).await;
    let (mut position, mut seen) = (start, Vec::new());
    for expected in [3, 3, 1, 0] {
        let query = EventQuery { tenant: tenant("acme"), user: None, after: position, limit: 3 };
        let page = stores.events.events_after(query).await.unwrap();
        assert_eq!(page.events.len(), expected);
        assert!(page.events.iter().all(|event| event.position <= page.reached && event.position > position));
        position = page.reached;
        seen.extend(page.events.into_iter().map(|event| event.told.key));
    }
    assert_eq!(seen, (1..=7).map(|n| key(&format!("user{n}"))).collect::<Vec<_>>());
    assert!(stores.events.may_follow(position).await.unwrap());
    let beyond = EventPosition { transaction: i64::MAX, sequence: i64::MAX };
    assert!(!stores.events.may_follow(beyond).await.unwrap());
    // What was read before and what is read again are the same.
    assert_eq!(after(&stores, start).await.len(), 7);
}

async fn tenants_and_users_are_apart(stores: Stores) {
    let rivals = key_of("rival", "google", "alice", "mail", "default");
    stores.connected(key("alice"), 1).await;
    stores.connected(key("bob"), 2).await;
    stores.connected(rivals.clone(), 3).await;
    stores.connected(key("alice"), 4).await;
    shown(&stores).await;
    let read = |tenant_name: &str, user: Option<&str>| {
        let user = user.map(|user| key(user).user);
        let query =
            EventQuery { tenant: tenant(tenant_name), user, after: EventPosition::default(), limit: 10 };
        let events = stores.events.clone();
        async move {
            let page = events.events_after(query).await.unwrap();
            page.events.into_iter().map(|event| event.told.key).collect::<Vec<_>>()
        }
    };
    assert_eq!(read("acme", None).await, [key("alice"), key("bob"), key("alice")]);
    assert_eq!(read("acme", Some("alice")).await, [key("alice"), key("alice")]);
    assert_eq!(read("acme", Some("bob")).await, [key("bob")]);
    assert_eq!(read("acme", Some("nobody")).await, []);
    assert_eq!(read("rival", None).await, [rivals]);
    assert_eq!(read("nobody", None).await, []);
}

async fn old_events_are_deleted_in_batches_and_places_stay_good(stores: Stores) {
    for n in 1..=5 {
        stores.connected(key("alice"), n).await;
    }
    let place = after(&stores, EventPosition::default()).await[4].position;
    let events = &stores.events;
    assert_eq!(events.delete_events_before(at(1), 2).await.unwrap(), 0);
    assert_eq!(events.delete_events_before(at(4), 2).await.unwrap(), 2);
    assert_eq!(events.delete_events_before(at(4), 2).await.unwrap(), 1);
    assert_eq!(events.delete_events_before(at(4), 2).await.unwrap(), 0);
    assert_eq!(told(&stores).await.len(), 2);
    assert_eq!(events.delete_events_before(at(100), 10).await.unwrap(), 2);
    assert_eq!(told(&stores).await, []);
    // Nothing is left, and the place of a reader is still behind what comes.
    assert!(events.may_follow(place).await.unwrap());
    stores.connected(key("alice"), 6).await;
    let next = after(&stores, place).await;
    assert_eq!(next.len(), 1);
    assert!(next[0].position > place);
}

async fn concurrent_writers_lose_no_event_for_a_reader_that_follows(stores: Stores) {
    const WRITERS: u32 = 8;
    const EACH: u32 = 12;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let stores = stores.clone();
        writers.spawn(async move {
            for n in 0..EACH {
                stores.connected(key(&format!("user{}", writer % 4)), writer * EACH + n + 1).await;
            }
        });
    }
    let (mut position, mut seen) = (EventPosition::default(), Vec::new());
    let follow = async {
        while seen.len() < (WRITERS * EACH) as usize {
            let query = EventQuery { tenant: tenant("acme"), user: None, after: position, limit: 5 };
            let page = stores.events.events_after(query).await.unwrap();
            position = page.reached;
            seen.extend(page.events);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), follow).await.expect("no event is passed over");
    writers.join_all().await;
    assert!(seen.is_sorted_by(|left, right| left.position < right.position));
    for user in 0..4 {
        let of_user = seen.iter().filter(|event| event.told.key == key(&format!("user{user}")));
        let generations: Vec<_> = of_user
            .map(|event| match event.told.change {
                Change::Connected { generation, .. } => generation,
                ref other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(generations, (1..=i64::from(2 * EACH)).collect::<Vec<_>>(), "the order of one credential");
    }
}
