//! WatchCredentials over the wire, with two replicas at one database that hear nothing of each other.

use std::time::Duration;

use token_broker::r#gen::v1::credential_event::Change;
use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::{
    ConsentOptions, CredentialChange, CredentialEvent, CredentialStanding, FlowStatus, GetCredentialRequest,
    RevokeRequest, WatchCredentialsRequest, WatchCredentialsResponse,
};
use tonic::{Code, Request, Streaming};
use tonic_types::StatusExt as _;

use crate::support::doors::{AGENT, BOBS, Client, Doors, RIVAL, files};
use crate::support::hostile::Reply;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn all_from(cursor: &str) -> WatchCredentialsRequest {
    WatchCredentialsRequest { user_id: String::new(), cursor: cursor.to_owned() }
}

type Watch = Streaming<WatchCredentialsResponse>;

/// A watch behind its first message, and the cursor of that.
async fn watch(client: &mut Client, cursor: &str) -> (Watch, String) {
    let mut watch = client.watch_credentials(all_from(cursor)).await.unwrap().into_inner();
    let first = message(&mut watch).await;
    assert!(first.event.is_none() && !first.cursor.is_empty());
    (watch, first.cursor)
}

async fn message(watch: &mut Watch) -> WatchCredentialsResponse {
    let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it comes in time");
    message.unwrap().expect("the stream goes on")
}

async fn event(watch: &mut Watch) -> (CredentialEvent, String) {
    loop {
        let WatchCredentialsResponse { cursor, event } = message(watch).await;
        if let Some(event) = event {
            return (event, cursor);
        }
    }
}

fn standings(change: &CredentialChange) -> (CredentialStanding, CredentialStanding) {
    (change.old_standing(), change.new_standing())
}

/// GetCredential → link → consent in the browser at the other replica → event → GetCredential.
#[tokio::test(flavor = "multi_thread")]
async fn a_chat_goes_on_when_the_user_has_consented() {
    let one = Doors::open().await;
    let two = one.beside().await;
    let mut chat = two.client(AGENT).await;
    let (mut events, _) = watch(&mut chat, "").await;
    let ask = GetCredentialRequest {
        key: Some(files("hostile", "alice")),
        begin_if_missing: Some(ConsentOptions { client_state: "chat-7".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let Some(GetResult::AuthorizationRequired(required)) =
        chat.get_credential(ask.clone()).await.unwrap().into_inner().result
    else {
        panic!("there is no token yet")
    };
    let flow = required.flow.unwrap();
    let state = one.confirm(&flow).await;
    one.provider.push(Reply::tokens("at-1", "rt-1"));
    one.provider.push_at("/userinfo", Reply::json(200, &serde_json::json!({ "sub": "alice" })));
    let page = one.browse(&format!("/oauth/callback/hostile?code=code&state={state}")).await;
    assert_eq!(page.name(), "connected", "{}", page.html);

    let (connected, _) = event(&mut events).await;
    assert_eq!(
        (connected.flow_id.as_str(), connected.client_state.as_str()),
        (flow.flow_id.as_str(), "chat-7")
    );
    assert_eq!((connected.provider.as_str(), connected.user_id.as_str()), ("hostile", "alice"));
    assert!(connected.services.contains(&"files".to_owned()) && connected.event_time.is_some());
    let Some(Change::Credential(change)) = connected.change else { panic!("the credential comes first") };
    assert!(standings(&change) == (CredentialStanding::NotConnected, CredentialStanding::Connected));
    assert_eq!(change.generation, 1);
    let (ended, _) = event(&mut events).await;
    assert_eq!(ended.client_state, "chat-7");
    assert_ne!(ended.event_id, connected.event_id);
    let Some(Change::Flow(change)) = ended.change else { panic!("then the flow") };
    assert!(change.old_status() == FlowStatus::Exchanging && change.new_status() == FlowStatus::Completed);

    let Some(GetResult::Credential(token)) = chat.get_credential(ask).await.unwrap().into_inner().result
    else {
        panic!("now there is a token")
    };
    assert_eq!(token.access_token, "at-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_never_sees_alices_events_at_any_replica() {
    let one = Doors::open().await;
    let two = one.beside().await;
    let mut watches = Vec::new();
    for doors in [&one, &two] {
        for caller in [AGENT, BOBS, RIVAL] {
            watches.push((caller, watch(&mut doors.client(caller).await, "").await.0));
        }
    }
    // In turn at both replicas, so that a leak would have a chance; the last is bob's.
    for (n, user) in ["alice", "bob", "alice", "carol", "alice", "bob"].iter().enumerate() {
        let doors = if n % 2 == 0 { &one } else { &two };
        doors.connect(AGENT, user, &format!("at-{n}"), &format!("rt-{n}")).await;
    }
    for (caller, watch) in &mut watches {
        let expected: &[&str] = match *caller {
            AGENT => &["alice", "bob", "alice", "carol", "alice", "bob"],
            BOBS => &["bob", "bob"],
            _ => &[],
        };
        for user in expected {
            for _ in ["credential", "flow"] {
                assert_eq!(event(watch).await.0.user_id, *user);
            }
        }
    }
    // What comes next is told to its own, and to nobody before it anything else.
    let revoke = |user: &str| RevokeRequest { key: Some(files("hostile", user)), force: false };
    one.client(AGENT).await.revoke(revoke("alice")).await.unwrap();
    two.client(AGENT).await.revoke(revoke("bob")).await.unwrap();
    for (caller, watch) in &mut watches {
        match *caller {
            AGENT => {
                assert_eq!(event(watch).await.0.user_id, "alice");
                assert_eq!(event(watch).await.0.user_id, "bob");
            }
            BOBS => assert_eq!(event(watch).await.0.user_id, "bob"),
            _ => {
                let silence = tokio::time::timeout(Duration::from_millis(200), watch.message()).await;
                assert!(silence.is_err(), "a rival is told something");
            }
        }
    }
    let alices = WatchCredentialsRequest { user_id: "alice".to_owned(), ..Default::default() };
    let refused = two.client(BOBS).await.watch_credentials(alices).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_for_calls_does_not_end_a_watch_and_the_callers_own_does() {
    let doors = Doors::open_with("https://broker.example", Duration::from_millis(200)).await;
    let mut client = doors.client(AGENT).await;
    let mut request = Request::new(all_from(""));
    request.set_timeout(Duration::from_secs(2));
    let began = tokio::time::Instant::now();
    let mut watch = client.watch_credentials(request).await.unwrap().into_inner();
    message(&mut watch).await;
    let end = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap().err().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
    assert_eq!(end.code(), Code::DeadlineExceeded);
    if let Some(info) = end.get_details_error_info() {
        assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_misses_nothing() {
    const EVENTS: usize = 300;
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let (mut watch, _) = watch(&mut client, "").await;
    let state = "x".repeat(1_024);
    for n in 0..EVENTS {
        let ask = GetCredentialRequest {
            key: Some(files("hostile", &format!("user{n:03}"))),
            begin_if_missing: Some(ConsentOptions { client_state: state.clone(), ..Default::default() }),
            ..Default::default()
        };
        let Some(GetResult::AuthorizationRequired(required)) =
            client.get_credential(ask).await.unwrap().into_inner().result
        else {
            panic!("there is no token")
        };
        let cancel = token_broker::r#gen::v1::CancelFlowRequest { flow_id: required.flow.unwrap().flow_id };
        client.cancel_flow(cancel).await.unwrap();
    }
    for n in 0..EVENTS {
        let (event, _) = event(&mut watch).await;
        assert_eq!(event.user_id, format!("user{n:03}"));
        assert_eq!(event.client_state.len(), state.len());
    }
}
