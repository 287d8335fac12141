//! The contract of `FlowStore`: what has to be proved before a flow is exchanged.

use token_broker::domain::event::Change;
use token_broker::domain::flow::{Flow, FlowStatus, SecretHash};
use token_broker::domain::ports::Consumed;

use super::samples::{
    BROWSER, app_flow, at, flow, flow_id, held, key, outbox_id, provider, revoke_write, secret, state, tenant,
};
use super::{Stores, contract};

contract!(
    a_flow_is_found_by_what_a_browser_brings,
    a_browser_is_let_in_while_the_flow_is_pending,
    only_the_browser_that_was_let_in_is_exchanged,
    a_code_waits_for_its_proof,
    a_held_code_is_redeemed_once_by_its_half,
    one_of_fifty_parallel_completions_wins,
    of_fifty_parallel_returns_one_is_held,
    a_code_is_erased_when_its_flow_ends,
    a_flow_that_has_returned_is_cancelled_and_runs_out,
    only_what_is_under_way_is_ended_so,
    nothing_is_exchanged_without_a_proof,
);

const OTHER: SecretHash = SecretHash([0x0e; 32]);

async fn a_flow_is_found_by_what_a_browser_brings(stores: Stores) {
    let (page, app) = (flow(key("alice"), 1, 0), app_flow(key("alice"), 2, 0));
    stores.begun(&page).await;
    stores.begun(&app).await;
    let flows = &stores.flows;
    let google = provider("google");
    assert_eq!(flows.flow_of_state(state(1), &google).await.unwrap(), Some(page.clone()));
    assert_eq!(flows.flow_of_state(state(2), &google).await.unwrap(), Some(app.clone()));
    assert_eq!(flows.flow_of_state(state(1), &provider("github")).await.unwrap(), None, "mix-up");
    assert_eq!(flows.flow_of_state(state(3), &google).await.unwrap(), None);
    assert_eq!(flows.flow_of_link(secret(1)).await.unwrap(), Some(page.clone()));
    assert_eq!(flows.flow_of_link(secret(2)).await.unwrap(), None, "the secret of an application is no link");
    assert_eq!(flows.flow_of_browser(flow_id(1)).await.unwrap(), Some(page));
    assert_eq!(flows.flow_of_browser(flow_id(3)).await.unwrap(), None);
    // No link is given to two.
    let mut twin = flow(key("bob"), 4, 0);
    twin.proof.link = Some(secret(1));
    flows.insert_flow(&twin, 20).await.unwrap_err();
}

async fn a_browser_is_let_in_while_the_flow_is_pending(stores: Stores) {
    let mut fresh = flow(key("alice"), 1, 0);
    fresh.proof.browser = None;
    stores.begun(&fresh).await;
    let admit =
        async |n, browser, now| stores.flows.admit_browser(flow_id(n), browser, at(now)).await.unwrap();
    assert_eq!(stores.consume(1, at(1)).await, Consumed::Spent(FlowStatus::Pending), "nobody is let in yet");
    assert!(admit(1, OTHER, 1).await);
    assert_eq!(stores.flow(flow_id(1)).await.proof.browser, Some(OTHER));
    assert!(admit(1, BROWSER, 2).await, "the last one counts");
    assert!(!admit(1, OTHER, 600).await && !admit(2, OTHER, 2).await);
    assert!(matches!(stores.consume(1, at(3)).await, Consumed::Won(_)));
    assert!(!admit(1, OTHER, 3).await, "not any more");
    assert_eq!(stores.flow(flow_id(1)).await.proof.browser, Some(BROWSER));
}

async fn only_the_browser_that_was_let_in_is_exchanged(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    let other = stores.flows.consume_flow(state(1), &provider("google"), OTHER, at(1)).await.unwrap();
    assert_eq!(other, Consumed::Spent(FlowStatus::Pending));
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending, "nothing was spent");
    assert!(matches!(stores.consume(1, at(1)).await, Consumed::Won(_)));
}

async fn a_code_waits_for_its_proof(stores: Stores) {
    let begun = app_flow(key("alice"), 1, 0);
    stores.begun(&begun).await;
    let expected = {
        let mut flow = Flow { status: FlowStatus::Returned, code_sealed: Some(held(1).code), ..begun };
        flow.proof.completion_code = Some(held(1).completion_code);
        flow
    };
    let mut elsewhere = held(1);
    elsewhere.provider = provider("github");
    let hold = async |held, now| stores.flows.hold_code(held, at(now)).await.unwrap();
    assert_eq!(hold(elsewhere, 1).await, Consumed::Unknown);
    assert_eq!(hold(held(2), 1).await, Consumed::Unknown);
    assert_eq!(hold(held(1), 600).await, Consumed::Spent(FlowStatus::Expired));
    assert_eq!(hold(held(1), 1).await, Consumed::Won(Box::new(expected.clone())));
    assert_eq!(stores.flow(flow_id(1)).await, expected);
    assert_eq!(hold(held(1), 2).await, Consumed::Spent(FlowStatus::Returned));
    assert_eq!(hold(held(1), 600).await, Consumed::Spent(FlowStatus::Expired));
    // It is no pending one any more, which could be given out again.
    assert_eq!(stores.flows.pending_flows(&key("alice"), at(2)).await.unwrap(), []);
    assert!(!stores.flows.admit_browser(flow_id(1), OTHER, at(2)).await.unwrap());
}

async fn a_held_code_is_redeemed_once_by_its_half(stores: Stores) {
    stores.begun(&app_flow(key("alice"), 1, 0)).await;
    let redeem = async |n, half, now| stores.flows.redeem_flow(flow_id(n), half, at(now)).await.unwrap();
    let half = held(1).completion_code;
    assert_eq!(redeem(1, half, 1).await, Consumed::Spent(FlowStatus::Pending), "the browser is not back");
    stores.flows.hold_code(held(1), at(1)).await.unwrap();
    assert_eq!(redeem(2, half, 2).await, Consumed::Unknown);
    assert_eq!(redeem(1, OTHER, 2).await, Consumed::Spent(FlowStatus::Returned), "nothing is spent");
    assert_eq!(redeem(1, half, 600).await, Consumed::Spent(FlowStatus::Expired));
    let Consumed::Won(won) = redeem(1, half, 2).await else { panic!("it is the right half") };
    assert_eq!((won.status, &won.code_sealed), (FlowStatus::Exchanging, &None));
    assert_eq!(stores.flow(flow_id(1)).await, *won);
    assert_eq!(redeem(1, half, 3).await, Consumed::Spent(FlowStatus::Exchanging));
    assert!(stores.end(1, FlowStatus::Completed, at(4)).await);
    assert_eq!(redeem(1, half, 5).await, Consumed::Spent(FlowStatus::Completed));
}

async fn one_of_fifty_parallel_completions_wins(stores: Stores) {
    stores.begun(&app_flow(key("alice"), 1, 0)).await;
    stores.flows.hold_code(held(1), at(1)).await.unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let flows = stores.flows.clone();
            tokio::spawn(async move {
                flows.redeem_flow(flow_id(1), held(1).completion_code, at(5)).await.unwrap()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Consumed::Won(_) => won += 1,
            other => assert_eq!(other, Consumed::Spent(FlowStatus::Exchanging)),
        }
    }
    assert_eq!(won, 1);
}

async fn of_fifty_parallel_returns_one_is_held(stores: Stores) {
    stores.begun(&app_flow(key("alice"), 1, 0)).await;
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let flows = stores.flows.clone();
            let mut held = held(1);
            held.completion_code = secret(2_000 + n);
            tokio::spawn(async move { flows.hold_code(held, at(5)).await.unwrap() })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Consumed::Won(flow) => won.push(flow.proof.completion_code),
            other => assert_eq!(other, Consumed::Spent(FlowStatus::Returned)),
        }
    }
    assert_eq!(won, [stores.flow(flow_id(1)).await.proof.completion_code]);
}

async fn a_code_is_erased_when_its_flow_ends(stores: Stores) {
    for n in 1..=4 {
        stores.begun(&app_flow(key("alice"), n, 0)).await;
        stores.flows.hold_code(held(n), at(1)).await.unwrap();
        assert!(stores.flow(flow_id(n)).await.code_sealed.is_some());
    }
    stores.flows.cancel_flow(&tenant("acme"), flow_id(1), at(2)).await.unwrap();
    stores.flows.redeem_flow(flow_id(2), held(2).completion_code, at(2)).await.unwrap();
    let revoke = revoke_write(&key("alice"), Some(outbox_id(1)), at(3));
    let revoked = stores.credentials.revoke_with_outbox(revoke).await.unwrap();
    assert_eq!(revoked.cancelled_flows, 3, "those that wait and the one that is being exchanged");
    stores.begun(&app_flow(key("alice"), 5, 0)).await;
    stores.flows.hold_code(held(5), at(1)).await.unwrap();
    stores.flows.sweep_flows(at(600), at(0), at(0)).await.unwrap();
    for n in 1..=5 {
        let flow = stores.flow(flow_id(n)).await;
        assert!(flow.ended_at.is_some() && flow.code_sealed.is_none(), "{n}: {:?}", flow.status);
    }
}

async fn a_flow_that_has_returned_is_cancelled_and_runs_out(stores: Stores) {
    for n in 1..=4 {
        stores.begun(&app_flow(key("alice"), n, 0)).await;
        stores.flows.hold_code(held(n), at(1)).await.unwrap();
    }
    let cancel = async |n, now| {
        let flow = stores.flows.cancel_flow(&tenant("acme"), flow_id(n), at(now)).await.unwrap().unwrap();
        (flow.status, flow.ended_at)
    };
    assert_eq!(cancel(1, 5).await, (FlowStatus::Cancelled, Some(at(5))));
    assert_eq!(cancel(2, 700).await, (FlowStatus::Expired, Some(at(600))));
    assert_eq!(stores.flows.sweep_flows(at(599), at(0), at(0)).await.unwrap(), 0);
    assert_eq!(stores.flows.sweep_flows(at(600), at(0), at(0)).await.unwrap(), 2);
    let told = super::event_store::told(&stores).await;
    let ends: Vec<_> = told
        .iter()
        .map(|change| match change {
            Change::FlowEnded { was, is, .. } => (*was, *is),
            other => panic!("{other:?}"),
        })
        .collect();
    let expired = (FlowStatus::Returned, FlowStatus::Expired);
    assert_eq!(ends, [(FlowStatus::Returned, FlowStatus::Cancelled), expired, expired, expired]);
}

async fn only_what_is_under_way_is_ended_so(stores: Stores) {
    stores.begun(&app_flow(key("alice"), 1, 0)).await;
    let end = async |from| stores.flows.end_flow(flow_id(1), from, FlowStatus::Denied, at(2)).await.unwrap();
    assert!(!end(FlowStatus::Exchanging).await && !end(FlowStatus::Returned).await);
    stores.flows.hold_code(held(1), at(1)).await.unwrap();
    for from in [FlowStatus::Pending, FlowStatus::Exchanging, FlowStatus::Returned] {
        assert!(!end(from).await, "a code is given up by cancelling, or by redeeming it first: {from:?}");
    }
    stores.begun(&flow(key("alice"), 2, 0)).await;
    let denied = stores.flows.end_flow(flow_id(2), FlowStatus::Pending, FlowStatus::Denied, at(3)).await;
    assert!(denied.unwrap());
    let ended = stores.flow(flow_id(2)).await;
    assert_eq!((ended.status, ended.ended_at), (FlowStatus::Denied, Some(at(3))));
}

/// A flow of an earlier version, or of a caller that skips a step, has nothing to show.
async fn nothing_is_exchanged_without_a_proof(stores: Stores) {
    let mut bare = app_flow(key("alice"), 1, 0);
    bare.proof.flow_secret = None;
    stores.begun(&bare).await;
    assert_eq!(stores.consume(1, at(1)).await, Consumed::Spent(FlowStatus::Pending));
    let redeemed = stores.flows.redeem_flow(flow_id(1), OTHER, at(1)).await.unwrap();
    assert_eq!(redeemed, Consumed::Spent(FlowStatus::Pending));
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending);
}
