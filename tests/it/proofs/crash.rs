//! `kill -9` in the middle of mixed operations, again and again: what was acknowledged is there, and no token is lost
//! but those whose provider call was in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::refresh_response::Result as Refreshed;
use token_broker::r#gen::v1::{
    AuthorizationRequiredReason as Reason, Credential, CredentialKey, GetCredentialRequest,
    ImportCredentialRequest, RefreshRequest, RevokeRequest,
};

use tonic_types::StatusExt as _;

use crate::support::broker::{BrokerBuilder, Client, TestBroker, answered};
use crate::support::consent::key_at;
use crate::support::token_server::TokenServer;

const ROUNDS: u32 = 10;
const OPERATIONS: u32 = 1_000;
const WORKERS: u32 = 8;

/// A small generator with a seed that the test prints: a failure can be repeated as far as the crash allows.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the broker has acknowledged of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledged {
    Connected { generation: i64 },
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Import,
    Get,
    Refresh,
    Revoke,
}

/// A user of one worker, with a grant at the server.
#[derive(Debug)]
struct User {
    id: String,
    grant: usize,
    acknowledged: Option<Acknowledged>,
    /// Sent and not answered when the broker died.
    in_flight: Option<Operation>,
}

impl User {
    fn key(&self) -> CredentialKey {
        key_at("strict", &self.id, "api")
    }
}

/// Counts operations over all workers and tells when it is time to kill.
struct Count {
    done: AtomicU32,
    kill_at: u32,
    reached: watch::Sender<bool>,
}

/// One operation. `Err`: no answer.
async fn perform(
    client: &mut Client,
    server: &TokenServer,
    user: &mut User,
    operation: Operation,
) -> Result<Acknowledged, tonic::Status> {
    Ok(match operation {
        Operation::Import => {
            let (grant, access_token, refresh_token) = server.grant();
            user.grant = grant;
            let request = ImportCredentialRequest {
                key: Some(user.key()),
                access_token,
                refresh_token,
                ..ImportCredentialRequest::default()
            };
            let stored = client.import_credential(request).await?.into_inner().credential.unwrap();
            Acknowledged::Connected { generation: stored.generation }
        }
        Operation::Get => {
            let request = GetCredentialRequest { key: Some(user.key()), ..GetCredentialRequest::default() };
            let Some(Got::Credential(got)) = client.get_credential(request).await?.into_inner().result else {
                panic!("{user:?}: no token")
            };
            Acknowledged::Connected { generation: got.generation }
        }
        Operation::Refresh => {
            let Some(Acknowledged::Connected { generation }) = user.acknowledged else { unreachable!() };
            let request = RefreshRequest { key: Some(user.key()), expected_generation: generation };
            let answer = client.refresh(request).await?.into_inner().result;
            let Some(Refreshed::Credential(got)) = answer else { panic!("{user:?}: no token") };
            assert!(got.generation > generation);
            Acknowledged::Connected { generation: got.generation }
        }
        Operation::Revoke => {
            assert!(
                client
                    .revoke(RevokeRequest { key: Some(user.key()), ..Default::default() })
                    .await?
                    .into_inner()
                    .deleted
            );
            Acknowledged::Revoked
        }
    })
}

/// Works on users of its own until the broker is gone.
async fn work(
    mut client: Client,
    server: Arc<TokenServer>,
    count: Arc<Count>,
    name: String,
    seed: u64,
) -> Vec<User> {
    let mut dice = Dice(seed);
    let mut users: Vec<User> = Vec::new();
    loop {
        // A few users each, so that every kind of operation meets every state.
        if users.len() < 4 || dice.roll(8) == 0 {
            let id = format!("{name}-{}", users.len());
            users.push(User { id, grant: 0, acknowledged: None, in_flight: None });
        }
        let chosen = usize::try_from(dice.roll(users.len() as u64)).unwrap();
        let user = &mut users[chosen];
        let operation = match (user.acknowledged, dice.roll(10)) {
            (None | Some(Acknowledged::Revoked), _) => Operation::Import,
            (Some(Acknowledged::Connected { .. }), 0..5) => Operation::Refresh,
            (Some(Acknowledged::Connected { .. }), 5..8) => Operation::Get,
            (Some(Acknowledged::Connected { .. }), _) => Operation::Revoke,
        };
        user.in_flight = Some(operation);
        let Ok(acknowledged) = perform(&mut client, &server, user, operation).await else {
            users.retain(|user| user.acknowledged.is_some() || user.in_flight.is_some());
            return users;
        };
        user.acknowledged = Some(acknowledged);
        user.in_flight = None;
        if count.done.fetch_add(1, Ordering::SeqCst) + 1 == count.kill_at {
            count.reached.send_replace(true);
        }
    }
}

/// What became of a user whose operation was in flight.
#[derive(Default, Debug)]
struct Tally {
    operations: u32,
    users: usize,
    in_flight: usize,
    lost_in_flight: usize,
}

/// The broker's answer for a user. Whose refresh was in flight asks for it again, as a client does, until its outcome is
/// known: after the time that the broker tells, or when a token is presented.
async fn answer(broker: &TestBroker, server: &TokenServer, user: &User) -> Result<Credential, Reason> {
    let mut client = broker.shared_client("agent").await;
    let (Some(Acknowledged::Connected { generation }), Some(Operation::Refresh)) =
        (user.acknowledged, user.in_flight)
    else {
        let request = GetCredentialRequest { key: Some(user.key()), ..GetCredentialRequest::default() };
        return match answered(client.get_credential(request).await).result.unwrap() {
            Got::Credential(got) => Ok(got),
            Got::AuthorizationRequired(required) => Err(required.reason()),
        };
    };
    let mut presented = server.presented();
    loop {
        presented.borrow_and_update();
        let request = RefreshRequest { key: Some(user.key()), expected_generation: generation };
        match client.refresh(request).await {
            Ok(answer) => {
                return match answer.into_inner().result.unwrap() {
                    Refreshed::Credential(got) => Ok(got),
                    Refreshed::AuthorizationRequired(required) => Err(required.reason()),
                };
            }
            Err(status) => {
                let details = status.get_error_details();
                let reason = details.error_info().unwrap().reason.as_str();
                // Until the dead process's claim has passed its deadline, somebody may be at work on it.
                assert!(["OUTCOME_UNKNOWN", "REFRESH_IN_PROGRESS"].contains(&reason), "{reason}");
                // The journal may have the answer, which then comes without a presentation: as long as the broker says.
                let again = details.retry_info().unwrap().retry_delay.unwrap();
                let _ = tokio::time::timeout(again, presented.changed()).await;
            }
        }
    }
}

async fn check(broker: &TestBroker, server: &TokenServer, user: &User, tally: &mut Tally) {
    tally.users += 1;
    tally.in_flight += usize::from(user.in_flight.is_some());
    match answer(broker, server, user).await {
        Ok(got) => {
            assert_eq!(
                server.accepts(&got.access_token),
                Some(user.grant),
                "{user:?}: a live token of its own"
            );
            match (user.acknowledged, user.in_flight) {
                (
                    Some(Acknowledged::Connected { generation }),
                    None | Some(Operation::Get | Operation::Revoke),
                ) => {
                    assert_eq!(got.generation, generation, "{user:?}");
                }
                (Some(Acknowledged::Connected { generation }), Some(Operation::Refresh)) => {
                    assert_eq!(got.generation, generation + 1, "{user:?}");
                }
                (None | Some(Acknowledged::Revoked), Some(Operation::Import)) => {}
                other => panic!("{user:?}: a token in spite of {other:?}"),
            }
        }
        Err(reason) => match (reason, user.acknowledged, user.in_flight) {
            (Reason::NotConnected, None, Some(Operation::Import))
            | (Reason::Revoked, Some(Acknowledged::Revoked), None | Some(Operation::Import))
            | (Reason::Revoked, Some(Acknowledged::Connected { .. }), Some(Operation::Revoke)) => {}
            // The documented window: the provider had rotated, and the answer died with the process.
            (
                Reason::RefreshTokenRejected,
                Some(Acknowledged::Connected { .. }),
                Some(Operation::Refresh),
            ) => {
                tally.lost_in_flight += 1;
            }
            (reason, ..) => panic!("{user:?}: no token: {}", reason.as_str_name()),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "what the kills hit is this proof's number")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let server = Arc::new(TokenServer::start().await);
    let broker = BrokerBuilder::new()
        .set("log.level", "warn")
        .definition(&server.definition())
        .provider("strict", "strict", ("client", "canary-client-secret"), &[])
        .spawn_process()
        .await;
    let mut dice = Dice(0x5eed);
    let (mut users, mut tally) = (Vec::new(), Tally::default());
    for round in 0..ROUNDS {
        let (reached, mut time_to_kill) = watch::channel(false);
        let kill_at = 1 + u32::try_from(dice.roll(u64::from(OPERATIONS) - 1)).unwrap();
        let count = Arc::new(Count { done: AtomicU32::new(0), kill_at, reached });
        let mut workers: Vec<JoinHandle<Vec<User>>> = Vec::new();
        for worker in 0..WORKERS {
            let client = broker.client("agent").await;
            let name = format!("user-{round}-{worker}");
            workers.push(tokio::spawn(work(
                client,
                server.clone(),
                count.clone(),
                name,
                dice.roll(u64::MAX),
            )));
        }
        time_to_kill.wait_for(|reached| *reached).await.unwrap();
        broker.kill().await;
        for worker in workers {
            users.extend(worker.await.unwrap());
        }
        tally.operations += count.done.load(Ordering::SeqCst);
        broker.restart().await;
    }
    for user in &users {
        check(&broker, &server, user, &mut tally).await;
        let grant = server.look(user.grant);
        // Only the one last presentation of a refresh that was in flight may be a second one.
        assert!(grant.reuses <= u32::from(user.in_flight == Some(Operation::Refresh)), "{user:?} {grant:?}");
    }
    assert!(tally.in_flight > 0, "the kills hit nothing: {tally:?}");
    // `cargo test -- --nocapture` shows what the kills hit.
    println!("{ROUNDS} kills: {tally:?}");
}
