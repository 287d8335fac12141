//! The contract of `FlowStore`.

use token_broker::domain::event::Change;
use token_broker::domain::flow::{ConsentOptions, Flow, FlowFailure, FlowStatus};
use token_broker::domain::key::UserId;
use token_broker::domain::ports::{CancelledFlows, Consumed, GrantCondition, NewGrant, StoredGrant};

use super::samples::{
    BROWSER, app_flow, at, flow, flow_id, held, key, key_of, new_grant, provider, state, tenant,
};
use super::{Stores, contract};

contract!(
    a_flow_is_read_back_as_stored,
    flows_belong_to_their_tenant,
    the_newest_flow_of_a_key_is_found,
    the_pending_flows_of_a_key_are_found,
    pending_flows_of_a_user_at_a_provider_are_limited,
    the_limit_holds_under_a_race,
    one_of_fifty_parallel_callbacks_wins,
    a_flow_is_consumed_once_in_time_and_at_its_provider,
    only_a_consumed_flow_can_be_ended,
    every_end_is_read_back,
    a_cancelled_flow_is_over,
    a_callback_and_a_cancel_race_to_one_winner,
    all_that_is_under_way_of_a_user_is_cancelled,
    all_that_is_under_way_of_a_tenant_is_cancelled_in_batches,
    a_consent_that_is_stored_and_a_cancel_of_all_race_to_one_winner,
    the_sweeper_marks_and_deletes,
    a_state_is_never_stored_twice,
);

async fn a_flow_is_read_back_as_stored(stores: Stores) {
    let full = flow(key("alice"), 1, 0);
    stores.begun(&full).await;
    assert_eq!(stores.flow(full.id).await, full);
    let mut bare = Flow { options: ConsentOptions::default(), ..flow(key("bob"), 2, 0) };
    bare.endpoints.issuer = None;
    bare.endpoints.iss_required = false;
    bare.endpoints.revocation = None;
    bare.services.clear();
    bare.scopes = super::samples::scopes(&[]);
    stores.begun(&bare).await;
    assert_eq!(stores.flow(bare.id).await, bare);
}

async fn flows_belong_to_their_tenant(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    let (mine, other) = (tenant("acme"), tenant("other"));
    assert_eq!(stores.flows.load_flow(&other, flow_id(1)).await.unwrap(), None);
    assert_eq!(stores.flows.cancel_flow(&other, flow_id(1), at(1)).await.unwrap(), None);
    assert_eq!(stores.flows.load_flow(&mine, flow_id(2)).await.unwrap(), None);
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending);
}

async fn the_newest_flow_of_a_key_is_found(stores: Stores) {
    assert_eq!(stores.flows.latest_flow(&key("alice")).await.unwrap(), None);
    for (n, created) in [(1, 10), (2, 30), (3, 20)] {
        stores.begun(&flow(key("alice"), n, created)).await;
    }
    stores.begun(&flow(key("bob"), 4, 40)).await;
    stores.begun(&flow(key_of("acme", "google", "alice", "mail", "work"), 5, 50)).await;
    stores.begun(&flow(key_of("other", "google", "alice", "mail", "default"), 6, 60)).await;
    let latest = async || stores.flows.latest_flow(&key("alice")).await.unwrap().unwrap();
    assert_eq!(latest().await.id, flow_id(2));
    // Whatever has become of it; of two begun at one time, the later one.
    stores.flows.cancel_flow(&tenant("acme"), flow_id(2), at(31)).await.unwrap();
    assert_eq!(latest().await.status, FlowStatus::Cancelled);
    stores.begun(&flow(key("alice"), 7, 30)).await;
    assert_eq!(latest().await.id, flow_id(7));
}

async fn the_pending_flows_of_a_key_are_found(stores: Stores) {
    for (n, created) in [(1, 10), (2, 30), (3, 20), (4, 40)] {
        stores.begun(&flow(key("alice"), n, created)).await;
    }
    stores.begun(&flow(key("bob"), 5, 40)).await;
    stores.begun(&flow(key_of("acme", "google", "alice", "mail", "work"), 6, 50)).await;
    stores.begun(&flow(key_of("acme", "google", "alice", "files", "default"), 7, 50)).await;
    stores.begun(&flow(key_of("other", "google", "alice", "mail", "default"), 8, 60)).await;
    stores.flows.cancel_flow(&tenant("acme"), flow_id(4), at(41)).await.unwrap();
    let found = async |now| {
        let flows = stores.flows.pending_flows(&key("alice"), now).await.unwrap();
        flows.iter().map(|flow| flow.id).collect::<Vec<_>>()
    };
    assert_eq!(found(at(41)).await, [2, 3, 1].map(flow_id));
    let end = stores.flow(flow_id(3)).await.expires_at;
    assert_eq!(found(end).await, [2].map(flow_id), "an end is an end before the sweeper comes");
    assert_eq!(found(jiff::Timestamp::MAX).await, []);
}

async fn pending_flows_of_a_user_at_a_provider_are_limited(stores: Stores) {
    let insert = async |flow: &Flow| stores.flows.insert_flow(flow, 3).await.unwrap();
    // The limit counts over grants and accounts.
    let accounts = [("mail", "default"), ("mail", "work"), ("files", "default")];
    for (n, (grant, account)) in (1..).zip(accounts) {
        assert!(insert(&flow(key_of("acme", "google", "alice", grant, account), n, 0)).await);
    }
    assert!(!insert(&flow(key("alice"), 4, 1)).await);
    assert_eq!(stores.flows.load_flow(&tenant("acme"), flow_id(4)).await.unwrap(), None);
    // Other users, providers and tenants have limits of their own.
    for (n, (tenant, provider, user)) in
        (5..).zip([("acme", "google", "bob"), ("acme", "github", "alice"), ("other", "google", "alice")])
    {
        assert!(insert(&flow(key_of(tenant, provider, user, "mail", "default"), n, 1)).await);
    }
    // What has ended makes room, be it consumed, cancelled or, unmarked, past its end.
    stores.flows.cancel_flow(&tenant("acme"), flow_id(1), at(2)).await.unwrap();
    assert!(insert(&flow(key("alice"), 8, 2)).await);
    assert!(!insert(&flow(key("alice"), 9, 2)).await);
    stores.consume(2, at(3)).await;
    assert!(insert(&flow(key("alice"), 9, 3)).await);
    assert!(!insert(&flow(key("alice"), 10, 599)).await);
    assert!(insert(&flow(key("alice"), 10, 600)).await);
}

async fn the_limit_holds_under_a_race(stores: Stores) {
    let tasks: Vec<_> = (1..=16)
        .map(|n| {
            let flows = stores.flows.clone();
            tokio::spawn(async move { flows.insert_flow(&flow(key("alice"), n, 0), 5).await.unwrap() })
        })
        .collect();
    let mut accepted = 0;
    for task in tasks {
        accepted += usize::from(task.await.unwrap());
    }
    assert_eq!(accepted, 5);
}

async fn one_of_fifty_parallel_callbacks_wins(stores: Stores) {
    let begun = flow(key("alice"), 1, 0);
    stores.begun(&begun).await;
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let flows = stores.flows.clone();
            tokio::spawn(async move {
                flows.consume_flow(state(1), &provider("google"), BROWSER, at(5)).await.unwrap()
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Consumed::Won(flow) => won.push(*flow),
            other => assert_eq!(other, Consumed::Spent(FlowStatus::Exchanging)),
        }
    }
    assert_eq!(won, [Flow { status: FlowStatus::Exchanging, ..begun }]);
}

async fn a_flow_is_consumed_once_in_time_and_at_its_provider(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    let consume = async |n, name: &str, now| {
        stores.flows.consume_flow(state(n), &provider(name), BROWSER, at(now)).await.unwrap()
    };
    assert_eq!(consume(2, "google", 5).await, Consumed::Unknown);
    // Mix-up: the state came back from another provider.
    assert_eq!(consume(1, "github", 5).await, Consumed::Unknown);
    assert_eq!(consume(1, "google", 600).await, Consumed::Spent(FlowStatus::Expired));
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending, "nothing was spent");
    assert!(matches!(consume(1, "google", 599).await, Consumed::Won(_)));
    assert_eq!(consume(1, "google", 599).await, Consumed::Spent(FlowStatus::Exchanging));
    // Past its end, a spent flow is still what it became.
    assert_eq!(consume(1, "google", 700).await, Consumed::Spent(FlowStatus::Exchanging));
    stores.end(1, FlowStatus::Denied, at(601)).await;
    assert_eq!(consume(1, "google", 599).await, Consumed::Spent(FlowStatus::Denied));
    stores.begun(&flow(key("alice"), 3, 0)).await;
    stores.flows.cancel_flow(&tenant("acme"), flow_id(3), at(1)).await.unwrap();
    assert_eq!(consume(3, "google", 5).await, Consumed::Spent(FlowStatus::Cancelled));
}

async fn only_a_consumed_flow_can_be_ended(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    let end = async |n| stores.end(n, FlowStatus::Denied, at(9)).await;
    assert!(!end(1).await && !end(2).await);
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending);
    stores.consume(1, at(5)).await;
    assert_eq!(stores.flow(flow_id(1)).await.ended_at, None);
    assert!(end(1).await);
    assert!(!stores.end(1, FlowStatus::Completed, at(10)).await);
    let ended = stores.flow(flow_id(1)).await;
    assert_eq!((ended.status, ended.ended_at), (FlowStatus::Denied, Some(at(9))));
}

async fn every_end_is_read_back(stores: Stores) {
    let ends = [
        FlowStatus::Completed,
        FlowStatus::Denied,
        FlowStatus::Expired,
        FlowStatus::Cancelled,
        FlowStatus::Failed(FlowFailure::ProviderError),
        FlowStatus::Failed(FlowFailure::ExchangeRejected),
        FlowStatus::Failed(FlowFailure::ExchangeFailed),
        FlowStatus::Failed(FlowFailure::StoreFailed),
        FlowStatus::Failed(FlowFailure::IdTokenInvalid),
        FlowStatus::Failed(FlowFailure::AccountMismatch),
        FlowStatus::Failed(FlowFailure::Interrupted),
        FlowStatus::Failed(FlowFailure::UserMismatch),
        FlowStatus::Failed(FlowFailure::BrowserMismatch),
    ];
    for (n, end) in (1..).zip(ends) {
        stores.begun(&flow(key("alice"), n, 0)).await;
        stores.consume(n, at(5)).await;
        assert!(stores.end(n, end, at(6)).await);
        assert_eq!(stores.flow(flow_id(n)).await.status, end);
        let late = stores.consume(n, at(7)).await;
        assert_eq!(late, Consumed::Spent(end));
    }
}

async fn a_cancelled_flow_is_over(stores: Stores) {
    let cancel = async |n, now| {
        let flow = stores.flows.cancel_flow(&tenant("acme"), flow_id(n), at(now)).await.unwrap();
        flow.map(|flow| (flow.status, flow.ended_at))
    };
    for n in 1..4 {
        stores.begun(&flow(key("alice"), n, 0)).await;
    }
    assert_eq!(cancel(9, 5).await, None);
    assert_eq!(cancel(1, 5).await, Some((FlowStatus::Cancelled, Some(at(5)))));
    assert_eq!(cancel(1, 6).await, Some((FlowStatus::Cancelled, Some(at(5)))), "the first one counts");
    // One that the browser has reached is told as it is.
    stores.consume(2, at(5)).await;
    assert_eq!(cancel(2, 6).await, Some((FlowStatus::Exchanging, None)));
    // So is one that has run out.
    assert_eq!(cancel(3, 600).await, Some((FlowStatus::Expired, Some(at(600)))));
}

async fn a_callback_and_a_cancel_race_to_one_winner(stores: Stores) {
    for n in 1..=20 {
        stores.begun(&flow(key("alice"), n, 0)).await;
        let (one, two) = (stores.flows.clone(), stores.flows.clone());
        let callback = tokio::spawn(async move {
            one.consume_flow(state(n), &provider("google"), BROWSER, at(5)).await.unwrap()
        });
        let cancel =
            tokio::spawn(async move { two.cancel_flow(&tenant("acme"), flow_id(n), at(5)).await.unwrap() });
        let won = matches!(callback.await.unwrap(), Consumed::Won(_));
        let told = cancel.await.unwrap().unwrap().status;
        let expected = if won { FlowStatus::Exchanging } else { FlowStatus::Cancelled };
        assert_eq!((told, stores.flow(flow_id(n)).await.status), (expected, expected));
    }
}

async fn the_sweeper_marks_and_deletes(stores: Stores) {
    // 1 runs out; 2 has time left; 3 was interrupted; 4 is being exchanged; 5 ended long ago; 6 ended just now.
    for (n, created) in [(1, 0), (2, 500), (3, 0), (4, 0), (5, 0), (6, 0)] {
        stores.begun(&flow(key("alice"), n, created)).await;
    }
    for (n, now) in [(3, 100), (4, 480)] {
        stores.consume(n, at(now)).await;
    }
    for (n, now) in [(5, 50), (6, 300)] {
        stores.flows.cancel_flow(&tenant("acme"), flow_id(n), at(now)).await.unwrap();
    }
    let sweep = async |now, interrupted, delete| {
        stores.flows.sweep_flows(at(now), at(interrupted), at(delete)).await.unwrap()
    };
    assert_eq!(sweep(599, 100, 50).await, 0, "all limits are exclusive");
    assert_eq!(sweep(600, 480, 300).await, 3);
    let told = async |n| {
        let flow = stores.flows.load_flow(&tenant("acme"), flow_id(n)).await.unwrap()?;
        Some((flow.status, flow.ended_at))
    };
    assert_eq!(told(1).await, Some((FlowStatus::Expired, Some(at(600)))));
    assert_eq!(told(2).await, Some((FlowStatus::Pending, None)));
    let interrupted = FlowStatus::Failed(FlowFailure::Interrupted);
    assert_eq!(told(3).await, Some((interrupted, Some(at(600)))));
    assert_eq!(told(4).await, Some((FlowStatus::Exchanging, None)));
    assert_eq!(told(5).await, None);
    assert_eq!(told(6).await, Some((FlowStatus::Cancelled, Some(at(300)))));
    assert_eq!(sweep(600, 480, 300).await, 0, "done already");
    // What ran out while nobody swept is there to be read until the next sweep.
    assert_eq!(sweep(5000, 480, 4000).await, 4, "2 runs out; 1, 3 and 6 go");
    assert_eq!(told(2).await, Some((FlowStatus::Expired, Some(at(1100)))));
}

async fn a_state_is_never_stored_twice(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    let twin = Flow { state_hash: state(1), ..flow(key("bob"), 2, 0) };
    stores.flows.insert_flow(&twin, 20).await.unwrap_err();
    assert_eq!(stores.flows.load_flow(&tenant("acme"), flow_id(2)).await.unwrap(), None);
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

async fn all_that_is_under_way_of_a_user_is_cancelled(stores: Stores) {
    let own = [
        key("alice"),
        key_of("acme", "github", "alice", "mail", "default"),
        key_of("acme", "google", "alice", "files", "work"),
    ];
    for (n, key) in (1..).zip(own) {
        stores.begun(&flow(key, n, 0)).await;
    }
    stores.begun(&app_flow(key("alice"), 4, 0)).await;
    stores.flows.hold_code(held(4), at(1)).await.unwrap();
    stores.consume(1, at(1)).await;
    // Of hers that are over, and of others.
    stores.begun(&flow(key("alice"), 5, 0)).await;
    stores.flows.cancel_flow(&tenant("acme"), flow_id(5), at(1)).await.unwrap();
    stores.begun(&flow(key("bob"), 6, 0)).await;
    stores.begun(&flow(key_of("other", "google", "alice", "mail", "default"), 7, 0)).await;
    let cancel = async |now| {
        stores.flows.cancel_flows(&tenant("acme"), Some(&user("alice")), 10, at(now)).await.unwrap()
    };
    assert_eq!(cancel(2).await, CancelledFlows { cancelled: 4, more: false });
    for n in 1..=4 {
        let flow = stores.flow(flow_id(n)).await;
        assert_eq!(
            (flow.status, flow.ended_at, flow.code_sealed),
            (FlowStatus::Cancelled, Some(at(2)), None)
        );
    }
    assert_eq!(stores.flow(flow_id(5)).await.ended_at, Some(at(1)));
    assert_eq!(stores.flow(flow_id(6)).await.status, FlowStatus::Pending);
    let theirs = stores.flows.load_flow(&tenant("other"), flow_id(7)).await.unwrap().unwrap();
    assert_eq!(theirs.status, FlowStatus::Pending);
    assert_eq!(cancel(3).await, CancelledFlows::default());
    // Each was told once, from how it stood.
    let mut told: Vec<_> = super::event_store::told(&stores)
        .await
        .iter()
        .map(|change| match change {
            Change::FlowEnded { flow, was, is } => (flow.id, *was, *is),
            other => panic!("{other:?}"),
        })
        // That one was cancelled alone.
        .filter(|(id, ..)| *id != flow_id(5))
        .collect();
    told.sort_by_key(|(id, ..)| *id.as_bytes());
    let cancelled = |n, was| (flow_id(n), was, FlowStatus::Cancelled);
    assert_eq!(
        told,
        [
            cancelled(1, FlowStatus::Exchanging),
            cancelled(2, FlowStatus::Pending),
            cancelled(3, FlowStatus::Pending),
            cancelled(4, FlowStatus::Returned),
        ]
    );
    // What was begun before goes no further.
    assert_eq!(stores.consume(3, at(3)).await, Consumed::Spent(FlowStatus::Cancelled));
    assert!(
        !stores.flows.end_flow(flow_id(1), FlowStatus::Exchanging, FlowStatus::Denied, at(3)).await.unwrap()
    );
}

async fn all_that_is_under_way_of_a_tenant_is_cancelled_in_batches(stores: Stores) {
    for n in 1..=5 {
        stores.begun(&flow(key(&format!("user-{n}")), n, 0)).await;
    }
    stores.begun(&flow(key_of("other", "google", "alice", "mail", "default"), 6, 0)).await;
    let cancel = async |now| stores.flows.cancel_flows(&tenant("acme"), None, 2, now).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cancel(at(1)).await, CancelledFlows { cancelled: 2, more: true });
    }
    // The last one has waited past its end: so it has expired.
    let mut left = Vec::new();
    for n in 1..=5 {
        let flow = stores.flow(flow_id(n)).await;
        left.extend((flow.status == FlowStatus::Pending).then_some(flow));
    }
    let [last] = left.try_into().unwrap();
    assert_eq!(cancel(last.expires_at).await, CancelledFlows::default());
    let expired = stores.flow(last.id).await;
    assert_eq!((expired.status, expired.ended_at), (FlowStatus::Expired, Some(last.expires_at)));
}

async fn a_consent_that_is_stored_and_a_cancel_of_all_race_to_one_winner(stores: Stores) {
    for n in 1..=20 {
        let place = key(&format!("user-{n}"));
        stores.begun(&flow(place.clone(), n, 0)).await;
        stores.consume(n, at(1)).await;
        let grant = NewGrant {
            condition: GrantCondition::Flow { id: flow_id(n), over: None },
            ..new_grant(place.clone(), n)
        };
        let (credentials, flows) = (stores.credentials.clone(), stores.flows.clone());
        let connect = async move { credentials.store_grant(grant).await.unwrap() };
        let cancel = async move { flows.cancel_flows(&tenant("acme"), None, 10, at(2)).await.unwrap() };
        // The one first, the other first, and both at a time.
        let (connected, cancelled) = match n {
            1 => {
                let connected = connect.await;
                (connected, cancel.await)
            }
            2 => {
                let cancelled = cancel.await;
                (connect.await, cancelled)
            }
            _ => {
                let (connected, cancelled) = (tokio::spawn(connect), tokio::spawn(cancel));
                (connected.await.unwrap(), cancelled.await.unwrap())
            }
        };
        let kept = matches!(connected, StoredGrant::Stored(_));
        assert_eq!(kept, cancelled.cancelled == 0, "{n}");
        assert!(n > 2 || kept == (n == 1), "{n}");
        let status = if kept { FlowStatus::Completed } else { FlowStatus::Cancelled };
        assert_eq!(stores.flow(flow_id(n)).await.status, status);
        assert_eq!(stores.credentials.load(&place).await.unwrap().is_some(), kept);
    }
}
