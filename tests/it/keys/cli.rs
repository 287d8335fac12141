//! `keys` of the command line at real processes, one of which is killed while it moves rows: of users and of a tenant's own app.

use std::time::Duration;

use serde_json::Value;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::{
    ClientAuthentication, CreateProviderConfigurationRequest, CredentialKey, GetCredentialRequest,
    ImportCredentialRequest, RefreshRequest,
};

use crate::own_apps::last_client;
use crate::support::broker::{BrokerBuilder, TestBroker, answered};
use crate::support::hostile::{HostileServer, Reply};

const USERS: u32 = 250;
/// Moving rows, with the waits of a rotation and of a dead worker's lease.
const PATIENCE: Duration = Duration::from_mins(3);

fn key(n: u32) -> CredentialKey {
    // The last one is connected by the tenant's own app.
    let provider = if n == USERS - 1 { "own" } else { "hostile" };
    CredentialKey {
        provider: provider.to_owned(),
        user_id: format!("user-{n}"),
        service: "files".to_owned(),
        account: String::new(),
    }
}

async fn run(broker: &TestBroker, args: &[&str]) -> (i32, String) {
    let args = [&["keys"], args, &["--output", "json"]].concat();
    let output = broker.site().run(&args).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let out = if output.status.success() { text(&output.stdout) } else { text(&output.stderr) };
    (output.status.code().unwrap(), out)
}

async fn status(broker: &TestBroker) -> Value {
    let (code, out) = run(broker, &["status", "--all-tenants"]).await;
    assert_eq!(code, 0, "{out}");
    serde_json::from_str(&out).unwrap()
}

async fn wait(broker: &TestBroker, reached: impl Fn(&Value) -> bool) -> Value {
    let reached = async {
        loop {
            let status = status(broker).await;
            if reached(&status) {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("it is reached in time")
}

async fn read_all(broker: &TestBroker) {
    let mut client = broker.client("agent").await;
    for n in 0..USERS {
        let request = GetCredentialRequest { key: Some(key(n)), ..GetCredentialRequest::default() };
        match answered(client.get_credential(request).await).result {
            Some(Got::Credential(got)) => assert_eq!(got.access_token, format!("access-{n}")),
            _ => panic!("user {n} has no token"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_moves_rows_is_followed_by_one_that_goes_on() {
    let server = HostileServer::start().await;
    let broker = BrokerBuilder::new()
        .set("callers.agent.admin", vec!["manage_keys", "manage_providers"])
        .set("callers.agent.all_tenants", true)
        .set("vault.reencrypt_rows_per_second", 50)
        .hostile(&server)
        .spawn_process()
        .await;
    let own = CreateProviderConfigurationRequest {
        provider: "own".to_owned(),
        definition: "test-hostile".to_owned(),
        client_id: "own-app".to_owned(),
        authentication: Some(ClientAuthentication {
            client_secret: "canary-own-secret".to_owned(),
            ..ClientAuthentication::default()
        }),
        ..CreateProviderConfigurationRequest::default()
    };
    answered(broker.admin("agent").await.create_provider_configuration(own).await);
    let mut client = broker.client("agent").await;
    for n in 0..USERS {
        let request = ImportCredentialRequest {
            key: Some(key(n)),
            access_token: format!("access-{n}"),
            refresh_token: format!("refresh-{n}"),
            expire_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
            ..ImportCredentialRequest::default()
        };
        answered(client.import_credential(request).await);
    }
    let before = status(&broker).await;
    let (code, out) = run(&broker, &["rotate"]).await;
    assert_eq!(code, 0, "{out}");
    let rotated: Value = serde_json::from_str(&out).unwrap();
    let new = rotated[0]["data_key"].as_str().unwrap().to_owned();
    let old =
        before["data_keys"].as_array().unwrap().iter().find(|key| key["purpose"] == "ENCRYPTION").unwrap();
    let old = old["id"].as_str().unwrap().to_owned();
    assert_ne!(old, new);
    wait(&broker, |status| status["reencryption"]["renewed"].as_u64() >= Some(100)).await;
    broker.kill().await;
    broker.restart().await;
    read_all(&broker).await;
    let resumed = status(&broker).await;
    assert!(resumed["reencryption"]["renewed"].as_u64() >= Some(100), "{resumed}");
    assert_eq!(resumed["reencryption"]["pass"], 1, "it goes on: {resumed}");
    let done = wait(&broker, |status| status["reencryption"]["under_way"] == false).await;
    let rows = |id: &str| {
        let keys = done["data_keys"].as_array().unwrap();
        let rows = &keys.iter().find(|key| key["id"] == id).unwrap()["rows"];
        ["credentials", "provider_configurations"].map(|table| rows[table].as_u64().unwrap())
    };
    assert_eq!((rows(&old), rows(&new)), ([0, 0], [u64::from(USERS), 1]), "{done}");
    assert_eq!(done["reencryption"]["unreadable"], 0);
    // By a process that remembers nothing: tokens open, and so does the secret of the tenant's own app.
    broker.kill().await;
    broker.restart().await;
    read_all(&broker).await;
    server.push(Reply::tokens("access-new", "refresh-new"));
    let refresh = RefreshRequest { key: Some(key(USERS - 1)), expected_generation: 1 };
    answered(broker.client("agent").await.refresh(refresh).await);
    assert_eq!(last_client(&server), ("own-app".to_owned(), "canary-own-secret".to_owned()));
    // Refusals say why, and change nothing.
    let (code, error) = run(&broker, &["retire", &old]).await;
    assert!(code == 9 && error.contains("DATA_KEY_TOO_YOUNG"), "{code}: {error}");
    let (code, error) = run(&broker, &["retire", &new]).await;
    assert!(code == 9 && error.contains("DATA_KEY_ACTIVE"), "{code}: {error}");
    let (code, error) = run(&broker, &["retire", "nonsense"]).await;
    assert!(code == 9 && error.contains("data_key"), "{code}: {error}");
    let (code, out) = run(&broker, &["rewrap"]).await;
    assert!(code == 0 && out.contains("\"rewrapped\": 0"), "{out}");
    assert!(broker.terminate().await.success());
}
