//! Many at a time, and replicas: one exchange.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use token_broker::r#gen::v1::{ConsentBinding, FlowStatus};

use super::{begin, brought, come_back, complete, completion, flow_of, nothing_came_of_it, returned, token};
use crate::support::doors::{AGENT, Doors, state_in};
use crate::support::hostile::{Gate, Reply};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_raced_callbacks_one_brings_a_half_and_none_exchanges() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::App).await;
    let state = state_in(&flow.authorization_url);
    let pages = join_all((0..50).map(|_| come_back(&doors, &state))).await;
    let mut statuses = BTreeMap::new();
    for page in &pages {
        *statuses.entry(page.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(303, 1), (410, 49)]));
    nothing_came_of_it(&doors, "alice").await;
    // And that half is the one that completes.
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let (_, code) = brought(pages.iter().find(|page| page.status == 303).unwrap());
    assert!(
        flow_of(complete(&doors, completion(&flow, &code, "alice")).await).status() == FlowStatus::Completed
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_raced_completions_are_one_exchange() {
    let doors = Doors::open().await;
    let two = doors.beside().await;
    let (flow, code) = returned(&doors, "alice").await;
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-1", "rt-1").held_by(&gate));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let calls = join_all((0..50).map(|n| {
        let at = if n % 2 == 0 { &doors } else { &two };
        complete(at, completion(&flow, &code, "alice"))
    }));
    let release = async {
        doors.provider.wait_for_requests(1).await;
        gate.release();
    };
    let (answers, ()) = tokio::join!(calls, release);
    for answer in answers {
        let answer = answer.unwrap();
        assert!(answer.flow.unwrap().status() == FlowStatus::Completed && answer.credential.is_some());
    }
    assert_eq!(doors.provider.requests_at("/token").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn raced_completions_for_two_users_are_one_exchange_at_most() {
    let doors = Doors::open().await;
    for round in 0..5 {
        let user = format!("alice-{round}");
        let (flow, code) = returned(&doors, &user).await;
        let before = doors.provider.requests_at("/token").len();
        doors.provider.push(Reply::tokens("at", "rt"));
        doors.provider.push_at("/userinfo", Reply::status(500));
        let answers = join_all((0..10).map(|n| {
            let user = if n % 2 == 0 { user.clone() } else { "mallory".to_owned() };
            complete(&doors, completion(&flow, &code, &user))
        }))
        .await;
        let exchanged = doors.provider.requests_at("/token").len() - before;
        let (status, failure) = doors.flow(&flow.flow_id).await;
        // Whoever was first decides. Mallory is never told of a success.
        match exchanged {
            0 => assert!(status == FlowStatus::Failed && failure == "USER_MISMATCH", "{failure}"),
            1 => assert!(status == FlowStatus::Completed),
            more => panic!("{more} exchanges"),
        }
        for mallorys in answers.into_iter().skip(1).step_by(2) {
            let success = mallorys.is_ok_and(|answer| answer.credential.is_some());
            assert!(!success);
        }
        assert_eq!(token(&doors, "mallory").await, None);
        // What is left of the scripts is for nobody.
        while doors.provider.take_scripted("/token") {}
        while doors.provider.take_scripted("/userinfo") {}
    }
}

/// Begun at A; A is gone; the browser comes back and is completed at B.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_outlives_the_replica_that_began_it() {
    let one = Doors::open().await;
    let two = one.beside().await;
    let app = begin(&one, "alice", ConsentBinding::App).await;
    let confirm = begin(&one, "bob", ConsentBinding::Confirm).await;
    let state = one.confirm(&confirm).await;
    drop(one);
    let (_, code) = brought(&come_back(&two, &state_in(&app.authorization_url)).await);
    two.provider.always("/token", Reply::tokens("at-1", "rt-1"));
    two.provider.always("/userinfo", Reply::status(500));
    assert!(
        flow_of(complete(&two, completion(&app, &code, "alice")).await).status() == FlowStatus::Completed
    );
    assert_eq!(come_back(&two, &state).await.name(), "connected");
    for user in ["alice", "bob"] {
        assert_eq!(token(&two, user).await.as_deref(), Some("at-1"), "{user}");
    }
    assert_eq!(two.provider.requests_at("/token").len(), 2);
}

/// A mix-up: the honest provider's code, brought to the address of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_mix_up_replay_reaches_neither_endpoint() {
    let doors = Doors::open().await;
    for binding in [ConsentBinding::App, ConsentBinding::Confirm] {
        let flow = doors.begin_with(AGENT, "issuer", "alice", super::bound(binding)).await;
        let state = match binding {
            ConsentBinding::App => state_in(&flow.authorization_url),
            _ => doors.confirm(&flow).await,
        };
        let before = doors.rows().await;
        for other in ["hostile", "other", "promises"] {
            let page = doors.browse(&format!("/oauth/callback/{other}?code=c&state={state}")).await;
            assert_eq!((page.name(), page.status), ("invalid", 400), "{other}");
        }
        assert_eq!(doors.rows().await, before);
        // At its own address, with another issuer's name.
        let page = doors
            .browse(&format!("/oauth/callback/issuer?code=c&state={state}&iss=https://evil.example"))
            .await;
        assert_eq!(page.name(), "failed");
        let (status, failure) = doors.flow(&flow.flow_id).await;
        assert!(status == FlowStatus::Failed && failure == "ID_TOKEN_INVALID", "{failure}");
    }
    assert_eq!(doors.provider.requests().len(), 0);
}
