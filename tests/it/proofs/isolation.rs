//! Concurrent users never see each other's tokens.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::app::Overrides;
use token_broker::r#gen::v1::GetCredentialRequest;
use token_broker::r#gen::v1::get_credential_response::Result as Got;

use crate::support::broker::{BrokerBuilder, answered};
use crate::support::consent::{connect, key};
use crate::support::faulty_store::{Faults, FaultyStore};
use crate::support::offset_clock::OffsetClock;
use crate::support::oidc::{OidcOptions, OidcServer, digest, subject};

const USERS: [&str; 2] = ["alice", "bob"];
const WORKERS: usize = 16;
const CALLS: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn every_token_is_the_callers_users() {
    let oidc = OidcServer::start(OidcOptions::default()).await;
    let clock = Arc::new(OffsetClock::default());
    let faults = Arc::new(Faults::default());
    let store_faults = Arc::clone(&faults);
    let overrides = Overrides {
        clock: Some(clock.clone()),
        wrap_credentials: Some(Box::new(|inner| Arc::new(FaultyStore { inner, faults: store_faults }))),
        ..Overrides::default()
    };
    let broker = Arc::new(BrokerBuilder::new().oidc(&oidc).start_in_process(overrides).await);
    for user in USERS {
        connect(&broker, user, &["mail"]).await;
    }
    faults.pause_after_load.store(10, Ordering::SeqCst);

    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (broker, clock) = (Arc::clone(&broker), Arc::clone(&clock));
            tokio::spawn(async move {
                let mut got = Vec::new();
                for call in 0..CALLS {
                    if worker == 0 && call % 12 == 6 {
                        clock.advance(Duration::from_secs(3600)); // everybody's token has expired
                    }
                    let user = USERS[(worker + call) % USERS.len()];
                    let mut client = if call % 2 == 0 {
                        broker.client("agent").await
                    } else {
                        broker.shared_client("agent").await
                    };
                    let request = GetCredentialRequest {
                        key: Some(key(user, "mail")),
                        ..GetCredentialRequest::default()
                    };
                    let answer = answered(client.get_credential(request).await);
                    let Some(Got::Credential(credential)) = answer.result else {
                        panic!("no token for {user}")
                    };
                    assert_eq!(credential.account.unwrap().subject, subject(user));
                    got.push((user, credential.access_token));
                }
                got
            })
        })
        .collect();
    let mut got = Vec::new();
    for worker in workers {
        got.extend(worker.await.unwrap());
    }

    let owners: HashMap<String, String> = oidc
        .token_requests()
        .await
        .into_iter()
        .filter_map(|request| Some((request.issued_access?, request.user?)))
        .collect();
    assert_eq!(got.len(), WORKERS * CALLS);
    for (user, token) in &got {
        assert_eq!(owners[&digest(token)], subject(user));
    }
    let distinct: BTreeSet<_> = got.iter().map(|(_, token)| token).collect();
    assert!(distinct.len() > USERS.len(), "tokens expired on the way: {}", distinct.len());
    assert!(oidc.refreshes().await.iter().all(|r| !r.presented_before));
}
