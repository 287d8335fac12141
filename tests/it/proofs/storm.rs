//! Many callers, one credential, a strict provider whose own log is counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use token_broker::app::Overrides;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::{Credential, GetCredentialRequest};

use crate::support::broker::{BrokerBuilder, Client, TestBroker, answered};
use crate::support::consent::{connect, key};
use crate::support::offset_clock::OffsetClock;
use crate::support::oidc::{OidcOptions, OidcServer, subject};

const HOUR: Duration = Duration::from_secs(3600);

async fn start(oidc: &OidcServer) -> (TestBroker, Arc<OffsetClock>) {
    let clock = Arc::new(OffsetClock::default());
    let overrides = Overrides { clock: Some(clock.clone()), ..Overrides::default() };
    (BrokerBuilder::new().oidc(oidc).start_in_process(overrides).await, clock)
}

async fn get(mut client: Client) -> Credential {
    let request = GetCredentialRequest { key: Some(key("alice", "mail")), ..GetCredentialRequest::default() };
    match answered(client.get_credential(request).await).result {
        Some(Got::Credential(credential)) => credential,
        Some(Got::AuthorizationRequired(required)) => panic!("consent is asked for: {}", required.reason),
        None => panic!("an empty answer"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_of_an_expired_token_make_one_token_request() {
    let oidc = OidcServer::start(OidcOptions { token_delay_ms: 200, ..OidcOptions::default() }).await;
    let (broker, clock) = start(&oidc).await;
    connect(&broker, "alice", &["mail"]).await;
    let before = get(broker.client("agent").await).await;
    clock.advance(HOUR);
    let mut clients = Vec::new();
    for number in 0..200 {
        let client =
            if number % 10 == 0 { broker.client("agent").await } else { broker.shared_client("agent").await };
        clients.push(client);
    }
    let after = join_all(clients.into_iter().map(get)).await;
    let tokens: BTreeSet<&str> = after.iter().map(|c| c.access_token.as_str()).collect();
    assert_eq!(tokens.len(), 1);
    assert!(after.iter().all(|c| c.generation == before.generation + 1));
    assert_eq!(oidc.refreshes().await.len(), 1);
    assert_eq!(oidc.userinfo(&after[0].access_token).await.unwrap(), subject("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_alive_after_fifty_rotations_under_sixteen_callers() {
    let oidc = OidcServer::start(OidcOptions::default()).await;
    let (broker, clock) = start(&oidc).await;
    connect(&broker, "alice", &["mail"]).await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(broker.client("agent").await);
    }
    let mut last = None;
    for rotation in 1..=50 {
        clock.advance(HOUR);
        let got = join_all(clients.iter().cloned().map(get)).await;
        assert!(got.iter().all(|c| c.generation == rotation + 1), "rotation {rotation}");
        last = got.into_iter().next();
    }
    let refreshes = oidc.refreshes().await;
    let presented: BTreeSet<_> = refreshes.iter().map(|r| r.presented.clone().unwrap()).collect();
    assert_eq!((refreshes.len(), presented.len()), (50, 50));
    assert!(refreshes.iter().all(|r| r.outcome == "ok" && !r.presented_before));
    assert_eq!(oidc.dead_grants().await, 0);
    assert_eq!(oidc.userinfo(&last.unwrap().access_token).await.unwrap(), subject("alice"));
}
