//! A stream of WatchCredentials ends with the rights of its caller, as operators change them at a running broker.

use std::sync::Arc;
use std::time::Duration;

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use tonic::{Code, Status, Streaming};

use crate::support::broker::{AdminClient, BrokerBuilder, CallerRights, TestBroker, answered, reason};
use crate::support::clock::ManualClock;
use crate::support::hostile::HostileServer;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

type Watch = Streaming<pb::WatchCredentialsResponse>;

fn may(actions: &[&str]) -> pb::CallerSettings {
    let names = actions.iter().map(|name| (*name).to_owned()).collect();
    pb::CallerSettings {
        allow: vec![pb::AllowRule {
            actions: Some(pb::AllowedNames { any: false, names }),
            providers: Some(pb::AllowedNames { any: true, names: vec![] }),
            users: Some(pb::AllowedTexts { any: true, ..Default::default() }),
            assert_user_id: true,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A caller of the database, its key's id, and its stream behind the first message.
async fn watcher(
    broker: &TestBroker,
    ops: &mut AdminClient,
    caller: &str,
    seconds: Option<i64>,
) -> (String, Watch) {
    let settings = Some(may(&["watch_credentials"]));
    let request = pb::CreateCallerRequest { caller: caller.to_owned(), settings, ..Default::default() };
    answered(ops.create_caller(request).await);
    let lifetime = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = pb::CreateApiKeyRequest { caller: caller.to_owned(), lifetime, ..Default::default() };
    let made = answered(ops.create_api_key(request).await);
    let mut client = broker.client_with_key(Some(&made.api_key)).await;
    let mut watch = answered(client.watch_credentials(pb::WatchCredentialsRequest::default()).await);
    watch.message().await.unwrap().unwrap();
    (made.key.unwrap().key_id, watch)
}

async fn end(watch: &mut Watch) -> Status {
    let ended = async {
        loop {
            match watch.message().await {
                Ok(Some(message)) => assert!(message.event.is_none(), "an event"),
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time")
}

#[tokio::test]
async fn a_stream_ends_with_the_rights_of_its_caller() {
    let server = HostileServer::start().await;
    let clock = Arc::new(ManualClock::new());
    let broker = BrokerBuilder::new()
        .hostile(&server)
        .set("authentication.cache_ttl", "0s")
        .caller("ops", CallerRights::none("acme").admin(false))
        .start_in_process(Overrides { clock: Some(clock.clone()), ..Overrides::default() })
        .await;
    let mut ops = broker.admin("ops").await;
    let (_, mut deleted) = watcher(&broker, &mut ops, "deleted", None).await;
    let (key_id, mut revoked) = watcher(&broker, &mut ops, "revoked", None).await;
    let (_, mut over) = watcher(&broker, &mut ops, "over", Some(60)).await;
    let (_, mut narrowed) = watcher(&broker, &mut ops, "narrowed", None).await;
    let (_, mut disabled) = watcher(&broker, &mut ops, "disabled", None).await;
    let (_, mut kept) = watcher(&broker, &mut ops, "kept", None).await;

    let request = pb::DeleteCallerRequest { caller: "deleted".to_owned(), ..Default::default() };
    answered(ops.delete_caller(request).await);
    let request = pb::RevokeApiKeyRequest {
        caller: "revoked".to_owned(),
        key_id,
        ..pb::RevokeApiKeyRequest::default()
    };
    answered(ops.revoke_api_key(request).await);
    let mut update = async |caller: &str, settings: pb::CallerSettings| {
        let request = pb::UpdateCallerRequest {
            caller: caller.to_owned(),
            revision: 1,
            settings: Some(settings),
            ..Default::default()
        };
        answered(ops.update_caller(request).await);
    };
    update("narrowed", may(&["list_providers"])).await;
    update("disabled", pb::CallerSettings { disabled: true, ..may(&["watch_credentials"]) }).await;
    // No event comes. The key of `over` ends by the clock alone.
    clock.advance(Duration::from_secs(60));
    for (watch, code, expected) in [
        (&mut deleted, Code::Unauthenticated, "UNAUTHENTICATED"),
        (&mut revoked, Code::Unauthenticated, "UNAUTHENTICATED"),
        (&mut over, Code::Unauthenticated, "UNAUTHENTICATED"),
        (&mut narrowed, Code::PermissionDenied, "PERMISSION_DENIED"),
        (&mut disabled, Code::PermissionDenied, "CALLER_DISABLED"),
    ] {
        let status = end(watch).await;
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
    }

    let key = pb::CredentialKey {
        provider: "hostile".to_owned(),
        user_id: "alice".to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    };
    let request =
        pb::ImportCredentialRequest { key: Some(key), access_token: "at".to_owned(), ..Default::default() };
    answered(broker.client("agent").await.import_credential(request).await);
    let told = async {
        loop {
            if let Some(event) = kept.message().await.unwrap().unwrap().event {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, told).await.expect("whoever may goes on");
    assert_eq!(event.user_id, "alice");
}
