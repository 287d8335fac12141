//! Start, readiness, drain, end.

use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use token_broker::app::Overrides;
use token_broker::config::Config;
use token_broker::r#gen::v1::get_credential_response::Result as Answer;
use token_broker::r#gen::v1::{
    CredentialKey, GetCredentialRequest, GetCredentialResponse, ImportCredentialRequest,
    ListProvidersRequest, WatchCredentialsRequest, WatchCredentialsResponse,
};
use token_broker::lifecycle::Drained;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::broker::{BrokerBuilder, Client, Site, TestBroker, answered};
use crate::support::hostile::{Gate, HostileServer, Reply};

fn key() -> CredentialKey {
    CredentialKey {
        provider: "hostile".to_owned(),
        user_id: "alice".to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    }
}

fn get_credential() -> GetCredentialRequest {
    GetCredentialRequest { key: Some(key()), ..GetCredentialRequest::default() }
}

/// Stores a credential whose access token is over, so that the next call refreshes it.
async fn import_expired(client: &mut Client) {
    let request = ImportCredentialRequest {
        key: Some(key()),
        access_token: "old-access".to_owned(),
        refresh_token: "old-refresh".to_owned(),
        expire_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..ImportCredentialRequest::default()
    };
    answered(client.import_credential(request).await);
}

type Call = tokio::task::JoinHandle<Result<Response<GetCredentialResponse>, Status>>;

/// A call that waits for the provider, which waits for the gate.
async fn call_under_way(broker: &TestBroker, provider: &HostileServer, gate: &Gate) -> Call {
    provider.push_at("/token", Reply::tokens("new-access", "new-refresh").held_by(gate));
    let mut client = broker.client("agent").await;
    import_expired(&mut client).await;
    let call = tokio::spawn(async move { client.get_credential(get_credential()).await });
    provider.wait_for_requests(1).await;
    call
}

#[tokio::test]
async fn sigterm_tells_not_serving_first_and_lets_calls_end() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).spawn_process().await;
    let mut health = HealthClient::new(broker.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let gate = Gate::default();
    let call = call_under_way(&broker, &provider, &gate).await;

    broker.signal("TERM").await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The watch ends by itself, or it would hold up the shutdown.
    assert!(!matches!(watch.message().await, Ok(Some(_))));
    assert!(!call.is_finished());
    gate.release();

    let Some(Answer::Credential(credential)) = answered(call.await.unwrap()).result else {
        panic!("the call is answered with the token")
    };
    assert_eq!(credential.access_token, "new-access");
    assert!(broker.ended().await.success());

    // What the last call obtained is in the database.
    broker.restart().await;
    let mut client = broker.client("agent").await;
    let again = client.get_credential(get_credential()).await;
    let Some(Answer::Credential(credential)) = answered(again).result else { panic!("the token is stored") };
    assert_eq!(credential.access_token, "new-access");
    assert_eq!(provider.requests_at("/token").len(), 1);
}

/// It asks for certificates to be read again, and ends nothing, certificates or not.
#[tokio::test]
async fn sighup_ends_nothing() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).spawn_process().await;
    for user in ["alice", "bob", "carol"] {
        broker.signal("HUP").await;
        import(&broker, user).await;
    }
    broker.signal("TERM").await;
    assert!(broker.ended().await.success(), "the signals came one after the other");
}

#[tokio::test]
async fn while_it_announces_its_end_it_goes_on_serving() {
    let provider = HostileServer::start().await;
    let broker =
        BrokerBuilder::new().hostile(&provider).set("shutdown.announce", "30s").spawn_process().await;
    let mut client = broker.client("agent").await;
    import_expired(&mut client).await;
    broker.signal("TERM").await;
    broker.wait_for_log("draining").await;
    provider.push_at("/token", Reply::tokens("new-access", "new-refresh"));
    answered(client.get_credential(get_credential()).await);
    answered(broker.client("agent").await.get_credential(get_credential()).await);
    assert!(get(broker.site().ports.operations, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(broker.site().ports.operations, "/livez").await.starts_with("HTTP/1.1 200"));
    // A second signal ends the wait.
    broker.signal("TERM").await;
    assert_eq!(broker.ended().await.code(), Some(12));
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let provider = HostileServer::start().await;
    let short = |config: &mut Config| config.shutdown.drain = Duration::from_millis(100);
    let broker =
        BrokerBuilder::new().hostile(&provider).start_in_process_with(Overrides::default(), short).await;
    let gate = Gate::default();
    let call = call_under_way(&broker, &provider, &gate).await;
    assert_eq!(broker.shutdown().await, Drained::CutOff);
    // The caller is told, and not left hanging.
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn an_audit_log_that_is_not_written_to_its_end_is_no_complete_stop() {
    let provider = HostileServer::start().await;
    let impatient = |config: &mut Config| config.audit.wait = Duration::from_secs(2);
    let broker =
        BrokerBuilder::new().hostile(&provider).start_in_process_with(Overrides::default(), impatient).await;
    let mut client = broker.client("agent").await;
    answered(client.list_providers(ListProvidersRequest::default()).await);
    std::fs::rename(broker.database(), broker.database().with_extension("aside")).unwrap();
    assert!(client.list_providers(ListProvidersRequest::default()).await.is_err());
    assert_eq!(broker.shutdown().await, Drained::CutOff);
}

#[tokio::test]
async fn connections_that_are_open_for_nothing_hold_up_no_shutdown() {
    let broker = BrokerBuilder::new().set("shutdown.drain", "10m").spawn_process().await;
    let ports = broker.site().ports;
    let mut open = Vec::new();
    for port in [ports.grpc, ports.public, ports.operations] {
        open.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        let mut half = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        half.write_all(b"GET /oauth/callback/x HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        open.push(half);
    }
    // A used connection that is kept alive.
    let _idle = broker.channel().await;
    assert!(get(ports.public, "/").await.starts_with("HTTP/1.1 404"));
    assert!(broker.terminate().await.success());
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_starts_again_on_the_same_folder_after_either_end() {
    let broker = BrokerBuilder::new().spawn_process().await;
    assert!(broker.terminate().await.success());
    broker.restart().await;
    broker.kill().await;
    broker.restart().await;
    broker.signal("INT").await;
    assert!(broker.ended().await.success());
    assert!(broker.logs().contains("\"stopped\""));
}

#[tokio::test]
async fn a_lost_database_is_not_ready() {
    let broker = BrokerBuilder::new().spawn_process().await;
    assert!(get(broker.site().ports.operations, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut health = HealthClient::new(broker.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // Damaged under the running broker: every new read finds that it is no database.
    let size = std::fs::metadata(broker.database()).unwrap().len();
    for path in [broker.database().to_owned(), broker.database().with_extension("db-wal")] {
        std::fs::write(path, vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    }
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(get(broker.site().ports.operations, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(broker.site().ports.operations, "/livez").await.starts_with("HTTP/1.1 200"));
    broker.kill().await;
}

// ---- starts that fail: one clear line, a code of its own, nothing changed --------------------------------------------

/// Starts `serve`, which must end by itself; its exit code and what it says after `error: `.
async fn fails(site: &Site) -> (i32, String) {
    let Output { status, stderr, .. } = site.run(&["serve"]).await;
    let stderr = String::from_utf8(stderr).unwrap();
    let error = stderr.lines().find_map(|line| line.strip_prefix("error: "));
    let error = error.unwrap_or_else(|| panic!("there is an error in: {stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code().unwrap(), error.to_owned())
}

#[tokio::test]
async fn tls_files_that_cannot_be_used_are_named() {
    let tls = |certificate: &str, key: &str| {
        BrokerBuilder::new()
            .set("grpc.tls_certificate_file", certificate)
            .set("grpc.tls_key_file", key)
            .write()
    };
    let (code, error) = fails(&tls("no-such.crt", "no-such.key")).await;
    assert_eq!(code, 3);
    assert!(error.contains("grpc.tls_certificate_file"), "{error}");
    let (code, error) = fails(&tls("token-broker.toml", "token-broker.toml")).await;
    assert_eq!(code, 3);
    assert!(error.contains("grpc.tls_certificate_file"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    for name in ["grpc", "public", "operations"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let site = BrokerBuilder::new().set(&format!("{name}.listen"), address.as_str()).write();
        let (code, error) = fails(&site).await;
        assert_eq!(code, 4);
        assert!(error.contains(&address) && error.contains(&format!("{name}.listen")), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named() {
    for (path, says) in [
        ("/proc/token-broker.db", "/proc/token-broker.db"),
        ("missing/token-broker.db", "does not exist"),
        ("a-folder", "a-folder"),
        ("a-text", "is not a database of the token broker"),
    ] {
        let site = BrokerBuilder::new().set("storage.path", path).write();
        std::fs::create_dir(site.path().join("a-folder")).unwrap();
        let text = "not a database, and longer than the header of one. ".repeat(10);
        std::fs::write(site.path().join("a-text"), &text).unwrap();
        let (code, error) = fails(&site).await;
        assert_eq!(code, 5, "{error}");
        assert!(error.contains(says), "{error}");
        assert_eq!(std::fs::read_to_string(site.path().join("a-text")).unwrap(), text);
    }
}

#[tokio::test]
async fn a_database_in_use_is_left_alone() {
    let broker = BrokerBuilder::new().spawn_process().await;
    let (code, error) = fails(broker.site()).await;
    assert_eq!(code, 5);
    assert!(error.contains("in use by another process"), "{error}");
    assert!(get(broker.site().ports.operations, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_wrong_key_is_an_error_and_loses_nothing() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).spawn_process().await;
    import_expired(&mut broker.client("agent").await).await;
    assert!(broker.terminate().await.success());

    let file = broker.site().path().join("vault.key");
    let right = std::fs::read(&file).unwrap();
    std::fs::write(&file, hex::encode([7; 32])).unwrap();
    let (code, error) = fails(broker.site()).await;
    assert_eq!(code, 6);
    assert!(error.contains("test"), "the key is named: {error}");

    std::fs::write(&file, right).unwrap();
    broker.restart().await;
    provider.push_at("/token", Reply::tokens("new-access", "new-refresh"));
    let answer = answered(broker.client("agent").await.get_credential(get_credential()).await);
    assert!(matches!(answer.result, Some(Answer::Credential(c)) if c.access_token == "new-access"));
}

#[tokio::test]
async fn no_key_and_no_configuration_are_no_start() {
    let site = BrokerBuilder::new().write();
    std::fs::remove_file(site.path().join("vault.key")).unwrap();
    let (code, error) = fails(&site).await;
    assert_eq!(code, 3, "{error}");
    assert!(!site.database.exists());

    std::fs::write(site.config_path(), "").unwrap();
    assert_eq!(fails(&site).await.0, 3);
    let output = site.run(&["serve", "--config", "nowhere.toml"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.toml"));
    assert!(!site.database.exists());
}

#[tokio::test]
async fn providers_and_definitions_are_checked_before_a_database_is_made() {
    let site = BrokerBuilder::new().definition("id = 'x'\nunknown = 1\n").write();
    let Output { status, stderr, .. } = site.run(&["serve"]).await;
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("definition-0.toml:2"), "{stderr}");

    let site = BrokerBuilder::new().provider("mine", "no-such-definition", ("id", "secret"), &[]).write();
    let Output { status, stderr, .. } = site.run(&["serve"]).await;
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("mine") && stderr.contains("no-such-definition"), "{stderr}");
    assert!(!site.database.exists());
}

fn watch_from(cursor: &str) -> WatchCredentialsRequest {
    WatchCredentialsRequest { user_id: String::new(), cursor: cursor.to_owned() }
}

async fn import(broker: &TestBroker, user: &str) {
    let request = ImportCredentialRequest {
        key: Some(CredentialKey { user_id: user.to_owned(), ..key() }),
        access_token: format!("access-of-{user}"),
        ..ImportCredentialRequest::default()
    };
    answered(broker.client("agent").await.import_credential(request).await);
}

/// The next message within a time that no test takes.
async fn next(
    watch: &mut tonic::Streaming<WatchCredentialsResponse>,
) -> Result<Option<WatchCredentialsResponse>, Status> {
    tokio::time::timeout(Duration::from_secs(60), watch.message()).await.expect("it comes in time")
}

/// The user of the next event, and its cursor.
async fn told(watch: &mut tonic::Streaming<WatchCredentialsResponse>) -> (String, String) {
    loop {
        let message = next(watch).await.unwrap().expect("the stream goes on");
        if let Some(event) = message.event {
            return (event.user_id, message.cursor);
        }
    }
}

#[tokio::test]
async fn a_watch_ends_with_the_broker_and_goes_on_without_a_gap() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).spawn_process().await;
    let mut watch =
        broker.client("agent").await.watch_credentials(watch_from("")).await.unwrap().into_inner();
    let first = next(&mut watch).await.unwrap().unwrap();
    assert!(first.event.is_none());
    import(&broker, "alice").await;
    let (user, cursor) = told(&mut watch).await;
    assert_eq!(user, "alice");

    broker.signal("TERM").await;
    // In order: no error, and no waiting for the reader.
    while let Some(message) = next(&mut watch).await.unwrap() {
        assert!(message.event.is_none());
    }
    assert!(broker.ended().await.success());

    broker.restart().await;
    import(&broker, "bob").await;
    let mut watch =
        broker.client("agent").await.watch_credentials(watch_from(&cursor)).await.unwrap().into_inner();
    let (user, cursor) = told(&mut watch).await;
    assert_eq!(user, "bob");
    import(&broker, "carol").await;
    // Not in order: the place is good all the same.
    broker.kill().await;
    broker.restart().await;
    let mut watch =
        broker.client("agent").await.watch_credentials(watch_from(&cursor)).await.unwrap().into_inner();
    assert_eq!(told(&mut watch).await.0, "carol");
}

#[tokio::test]
async fn a_watch_ends_in_order_when_its_connection_is_old() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).set("grpc.max_connection_age", "1s");
    let broker = broker.start_in_process(Overrides::default()).await;
    let mut client = broker.client("agent").await;
    let mut watch = client.watch_credentials(watch_from("")).await.unwrap().into_inner();
    let mut cursor = String::new();
    while let Some(message) = next(&mut watch).await.expect("no error") {
        cursor = message.cursor;
    }
    import(&broker, "alice").await;
    // The same client, on a connection of its own making.
    let mut watch = client.watch_credentials(watch_from(&cursor)).await.unwrap().into_inner();
    assert_eq!(told(&mut watch).await.0, "alice");
}
