//! The command line, through the real binary.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use token_broker::config::DEFAULT_FILE;
use token_broker::r#gen::v1::{CredentialKey, ImportCredentialRequest};

use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker, answered, binary};
use crate::support::browser::{Answer, Browser};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::oidc::{OidcOptions, OidcServer};

/// Exit code, standard output and standard error.
fn parts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn run_in(folder: &Path, args: &[&str]) -> (i32, String, String) {
    parts(&binary(folder, args).output().await.unwrap())
}

async fn run(broker: &TestBroker, args: &[&str]) -> (i32, String, String) {
    parts(&broker.site().run(args).await)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

async fn import(broker: &TestBroker, service: &str, user: &str, access: &str) {
    let request = ImportCredentialRequest {
        key: Some(CredentialKey {
            provider: "hostile".to_owned(),
            user_id: user.to_owned(),
            service: service.to_owned(),
            account: String::new(),
        }),
        access_token: access.to_owned(),
        refresh_token: "canary-refresh-token".to_owned(),
        expire_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        ..ImportCredentialRequest::default()
    };
    answered(broker.client("agent").await.import_credential(request).await);
}

// ---- without a broker ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn help_has_examples_and_exit_codes_and_a_wrong_command_line_is_2() {
    let folder = TempDir::new().unwrap();
    let (code, help, _) = run_in(folder.path(), &["--help"]).await;
    assert_eq!(code, 0);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    for command in [
        "serve",
        "init",
        "migrate",
        "config",
        "healthcheck",
        "connect",
        "get",
        "list",
        "refresh",
        "revoke",
        "watch",
        "callers",
        "keys",
        "tenants",
        "providers",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command} is in {help}");
        let (code, own, _) = run_in(folder.path(), &[command, "--help"]).await;
        assert!(code == 0 && own.contains("Examples:"), "{command}: {own}");
    }
    for args in [&["nonsense"][..], &[], &["get", "google"], &["get", "a", "b", "-u", "c", "--api-key", "k"]]
    {
        assert_eq!(run_in(folder.path(), args).await.0, 2, "{args:?}");
    }
}

#[tokio::test]
async fn init_makes_a_broker_that_runs_and_is_healthy() {
    let folder = TempDir::new().unwrap();
    let (code, out, err) = run_in(folder.path(), &["init", "--output", "json"]).await;
    assert_eq!(code, 0, "{err}");
    let key = json(&out)["api_key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("tb_") && key.len() == 46, "{key}");
    for file in ["token-broker.toml", "vault.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let config = std::fs::read_to_string(folder.path().join("token-broker.toml")).unwrap();
    assert!(!config.contains(&key) && config.contains("# ---- The gRPC listener"), "{config}");

    let bindings = "bindings = [\"confirm\", \"app\"]";
    assert!(config.contains(bindings) && config.contains("the weaker one comes first"), "{config}");

    // A second one changes nothing.
    let before = ["token-broker.toml", "vault.key"].map(|f| std::fs::read(folder.path().join(f)).unwrap());
    let (code, _, err) = run_in(folder.path(), &["init"]).await;
    assert!(code == 1 && err.contains("is there already"), "{err}");
    std::fs::remove_file(folder.path().join("token-broker.toml")).unwrap();
    assert_eq!(run_in(folder.path(), &["init"]).await.0, 1);
    assert!(!folder.path().join("token-broker.toml").exists());
    std::fs::write(folder.path().join("token-broker.toml"), &before[0]).unwrap();
    assert_eq!(std::fs::read(folder.path().join("vault.key")).unwrap(), before[1]);

    let ports = BrokerBuilder::new().write().ports;
    let mut serve = binary(folder.path(), &["serve"]);
    for (name, port) in [("GRPC", ports.grpc), ("PUBLIC", ports.public), ("OPERATIONS", ports.operations)] {
        serve.env(format!("TOKEN_BROKER_{name}__LISTEN"), format!("127.0.0.1:{port}"));
    }
    let mut serve =
        serve.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(serve.stdout.take().unwrap()));
    let line = lines.next_line().await.unwrap().unwrap();
    assert_eq!(json(&line)["listening"]["grpc"], format!("127.0.0.1:{}", ports.grpc));

    let endpoint = format!("http://127.0.0.1:{}", ports.grpc);
    let (code, out, _) = run_in(folder.path(), &["healthcheck", "--endpoint", &endpoint]).await;
    assert_eq!((code, out.trim()), (0, "SERVING"));
    let unknown = ["healthcheck", "--endpoint", &endpoint, "--service", "no.such.Service"];
    assert_eq!(run_in(folder.path(), &unknown).await.0, 1);
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, format!("{key}\n")).unwrap();
    let list = ["list", "--endpoint", &endpoint, "--api-key-file", "key", "--output", "json"];
    let (code, out, err) = run_in(folder.path(), &list).await;
    assert_eq!((code, json(&out)), (0, Value::Array(vec![])), "{err}");
    serve.kill().await.unwrap();
    assert_eq!(run_in(folder.path(), &["healthcheck", "--endpoint", &endpoint]).await.0, 1);
    let (code, _, err) = run_in(folder.path(), &list).await;
    assert!(code == 7 && err.contains("no broker answers at"), "{err}");
}

#[tokio::test]
async fn config_prints_checks_and_shows_with_secrets_masked() {
    let site = BrokerBuilder::new()
        .provider("google", "google", ("client", "canary-secret"), &[])
        .env("TOKEN_BROKER_OAUTH__FLOW_LIFETIME", "5m")
        .write();
    let (code, out, _) = parts(&site.run(&["config", "default"]).await);
    assert_eq!((code, out.as_str()), (0, DEFAULT_FILE));
    let (code, out, err) = parts(&site.run(&["config", "check"]).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 providers, 1 callers"), "{out}");
    assert!(!site.database.exists());
    for format in ["human", "json"] {
        let (code, out, _) = parts(&site.run(&["config", "show", "--output", format]).await);
        assert_eq!(code, 0);
        assert!(!out.contains("canary"), "{out}");
        assert!(out.contains("[secret]") && out.contains("TOKEN_BROKER_OAUTH__FLOW_LIFETIME"), "{out}");
    }
    std::fs::write(site.config_path(), "[grpc]\nlisten = 1\nlisen = 2\n").unwrap();
    let (code, out, err) = parts(&site.run(&["config", "check"]).await);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("token-broker.toml:2") && err.contains("token-broker.toml:3"), "{err}");
    let (code, _, err) = parts(&site.run(&["config", "check", "--output", "json"]).await);
    assert!(code == 3 && json(&err)["error"]["message"].as_str().unwrap().contains("grpc.lisen"), "{err}");
}

#[tokio::test]
async fn callers_new_makes_a_key_whose_hash_lets_it_in() {
    let site = BrokerBuilder::new().write();
    let args = [
        "callers",
        "new",
        "team.a",
        "--tenant",
        "acme",
        "--action",
        "list_credentials",
        "--any-provider",
        "--user",
        "alice",
        "--user-prefix",
        "team-a/",
        "--assert-user-id",
        "--output",
        "json",
    ];
    let (code, out, err) = parts(&site.run(&args).await);
    assert_eq!(code, 0, "{err}");
    let made = json(&out);
    let key = made["api_key"].as_str().unwrap();
    assert_eq!(made["key_sha256"], hex::encode(Sha256::digest(key.as_bytes())));

    let config = std::fs::read_to_string(site.config_path()).unwrap();
    assert!(!config.contains(key));
    std::fs::write(site.config_path(), format!("{config}\n{}", made["config"].as_str().unwrap())).unwrap();
    let (code, out, err) = parts(&site.run(&["callers", "list", "--output", "json"]).await);
    assert_eq!(code, 0, "{err}");
    let listed = json(&out);
    let caller = listed.as_array().unwrap().iter().find(|c| c["id"] == "team.a").unwrap();
    let allow = serde_json::json!([{
        "actions": ["list_credentials"],
        "providers": "any",
        "services": "any",
        "scopes": "any",
        "users": [{ "exact": "alice" }, { "prefix": "team-a/" }],
        "assert_user_id": true,
    }]);
    assert_eq!(caller["allow"], allow);
    for (user, code, says) in [("alice", 0, "allow[0]"), ("bob", 8, "no rule")] {
        let can = ["callers", "can", "team.a", "list_credentials", "--user", user, "--output", "json"];
        let (exit, out, err) = parts(&site.run(&can).await);
        assert_eq!((exit, json(&out)["decided_by"].as_str()), (code, Some(says)), "{out}{err}");
    }
    let (code, out, _) = parts(&site.run(&["callers", "can", "team.a", "revoke", "--user", "alice"]).await);
    assert!(code == 8 && out.contains("allow[0] does not name the action"), "{out}");
    assert_eq!(parts(&site.run(&["callers", "can", "nobody", "revoke"]).await).0, 9);

    let (code, _, err) = parts(&site.run(&["callers", "new", "A B"]).await);
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = parts(&site.run(&["callers", "new", "a", "--action", "fly"]).await);
    assert!(code == 2 && err.contains("get_credential"), "{err}");
    // Nothing named is nothing allowed.
    let (_, out, _) = parts(&site.run(&["callers", "new", "a"]).await);
    assert!(out.contains("[callers.a]") && !out.contains("allow"), "{out}");
    let (code, _, err) = parts(&site.run(&["callers", "new", "a", "--any-action", "--own"]).await);
    assert!(code == 2 && err.contains("providers: names nothing"), "{err}");
}

#[tokio::test]
async fn providers_are_listed_shown_and_those_configured() {
    let site = BrokerBuilder::new().provider("mail", "google", ("client", "canary-secret"), &[]).write();
    let (code, out, err) = parts(&site.run(&["providers", "list", "--output", "json"]).await);
    assert_eq!(code, 0, "{err}");
    assert!(json(&out).as_array().unwrap().iter().any(|d| d["id"] == "google" && d["source"] == "built-in"));
    let (code, out, _) = parts(&site.run(&["providers", "show", "google"]).await);
    assert!(code == 0 && out.contains("gmail"), "{out}");
    let (code, _, err) = parts(&site.run(&["providers", "show", "nobody"]).await);
    assert!(code == 9 && err.contains("providers list"), "{err}");
    for format in ["human", "json"] {
        let (code, out, _) = parts(&site.run(&["providers", "configured", "--output", format]).await);
        assert_eq!(code, 0);
        assert!(out.contains("mail") && !out.contains("canary"), "{out}");
    }
    // The catalogue needs no configuration.
    let folder = TempDir::new().unwrap();
    assert_eq!(run_in(folder.path(), &["providers", "list"]).await.0, 0);
}

#[tokio::test]
async fn migrate_tells_before_it_does() {
    let site = BrokerBuilder::new().write();
    let (code, out, _) = parts(&site.run(&["migrate", "--check"]).await);
    assert!(code == 13 && out.contains("pending"), "{out}");
    assert!(!site.database.exists());
    let (code, out, _) = parts(&site.run(&["migrate"]).await);
    assert!(code == 0 && out.contains("applied now"), "{out}");
    let (code, out, _) = parts(&site.run(&["migrate", "--check", "--output", "json"]).await);
    assert_eq!((code, &json(&out)[0]["status"]), (0, &Value::from("applied")));
}

// ---- with a broker ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn tokens_are_masked_unless_asked_for() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new()
        .hostile(&provider)
        .provider("canary", "google", ("client", "canary-client-secret"), &[])
        .set("log.level", "trace")
        .spawn_process()
        .await;
    let token = format!("canary-{}", "x".repeat(40));
    import(&broker, "files", "alice", &token).await;

    let get = ["get", "hostile", "files", "-u", "alice"];
    let (code, out, err) = run(&broker, &get).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("cana…") && !out.contains("canary"), "{out}");
    let (_, out, _) = run(&broker, &[&get[..], &["--output", "json"]].concat()).await;
    assert!(json(&out)["access_token"].is_null() && !out.contains("canary"), "{out}");
    let (_, out, _) = run(&broker, &[&get[..], &["--output", "json", "--show-token"]].concat()).await;
    assert_eq!(json(&out)["access_token"], token);
    assert_eq!(json(&out)["generation"], 1);
    let (_, out, _) = run(&broker, &[&get[..], &["--show-token"]].concat()).await;
    assert!(out.contains(&token), "{out}");

    provider.push_at("/token", Reply::tokens(&format!("canary-{}", "y".repeat(40)), "canary-refresh-2"));
    let refresh = ["refresh", "hostile", "files", "-u", "alice", "--generation", "1"];
    let (code, out, err) = run(&broker, &refresh).await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("canary") && out.contains("generation      2"), "{out}");

    let (code, out, _) = run(&broker, &["list"]).await;
    assert!(code == 0 && out.contains("alice") && out.contains("ACTIVE") && !out.contains("canary"), "{out}");

    provider.push_at("/revoke", Reply::status(200));
    let revoke = ["revoke", "hostile", "files", "-u", "alice", "--output", "json"];
    let (code, out, _) = run(&broker, &revoke).await;
    assert_eq!((code, &json(&out)["provider_revocation"]), (0, &Value::from("REVOKED")));
    let (code, out, _) = run(&broker, &revoke).await;
    assert_eq!((code, &json(&out)["deleted"]), (0, &Value::from(false)));
    let (code, out, _) = run(&broker, &get).await;
    assert!(code == 10 && out.contains("REVOKED"), "{out}");
    // At trace level, with every crate's own trace asked for.
    let (logs, vault_key) =
        (broker.logs(), std::fs::read_to_string(broker.site().path().join("vault.key")).unwrap());
    for secret in ["canary-", broker.api_key("agent"), &vault_key, "client-secret-1"] {
        assert!(!logs.contains(secret), "{secret} is in {logs}");
    }
}

#[tokio::test]
async fn failures_have_codes_reasons_and_hints() {
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new()
        .hostile(&provider)
        .caller("nobody", CallerRights::none("acme"))
        .spawn_process()
        .await;

    let (code, _, err) = run(&broker, &["get", "nope", "files", "-u", "alice"]).await;
    assert!(code == 9 && err.starts_with("error: NOT_FOUND ("), "{err}");
    let (code, _, err) = run(&broker, &["get", "hostile", "files", "-u", " alice"]).await;
    assert!(code == 9 && err.contains("INVALID_ARGUMENT") && err.contains("key.user_id"), "{err}");
    let (code, out, _) = run(&broker, &["get", "hostile", "files", "-u", "alice"]).await;
    assert!(code == 10 && out.contains("NOT_CONNECTED"), "{out}");

    let as_key = async |key: &str, args: &[&str]| {
        let file = broker.site().path().join("key");
        std::fs::write(&file, key).unwrap();
        run(&broker, &[args, &["--api-key-file", "key", "--output", "json"]].concat()).await
    };
    let (code, _, err) = as_key(broker.api_key("nobody"), &["list"]).await;
    assert_eq!((code, &json(&err)["error"]["code"]), (8, &Value::from("PERMISSION_DENIED")), "{err}");
    let (code, _, err) = as_key("tb_canary", &["list"]).await;
    assert_eq!((code, &json(&err)["error"]["code"]), (8, &Value::from("UNAUTHENTICATED")), "{err}");
    assert!(!err.contains("canary"));
    assert!(json(&err)["error"]["hint"].as_str().unwrap().contains("TOKEN_BROKER_API_KEY"), "{err}");
    assert_eq!(as_key("", &["list"]).await.0, 2);
    // The key stays on this machine unless told otherwise.
    let far = ["list", "--endpoint", "http://broker.example.com:50051"];
    let (code, _, err) = run(&broker, &far).await;
    assert!(code == 2 && err.contains("in the clear"), "{err}");
    // A command line is no place for a password, and an error is none either.
    let with_password = ["list", "--endpoint", "https://user:canary@127.0.0.1:1"];
    let (code, _, err) = run(&broker, &with_password).await;
    assert!(code == 2 && err.contains("user name") && !err.contains("canary"), "{err}");

    import(&broker, "files", "alice", "token").await;
    provider.push_at("/token", Reply::status(503));
    let refresh = ["refresh", "hostile", "files", "-u", "alice", "--generation", "1"];
    let (code, out, err) = run(&broker, &refresh).await;
    assert!(code == 7 && err.contains("UNAVAILABLE") && err.contains("try again in"), "{code} {out} {err}");
}

#[tokio::test]
async fn tls_is_spoken_and_checked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/tls");
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let broker = BrokerBuilder::new()
        .set("grpc.tls_certificate_file", file("server.crt"))
        .set("grpc.tls_key_file", file("server.key"))
        .spawn_process()
        .await;
    let port = broker.site().ports.grpc;
    let (https, ca) = (format!("https://localhost:{port}"), file("ca.crt"));
    let (code, out, err) = run(&broker, &["healthcheck", "--endpoint", &https, "--ca-file", &ca]).await;
    assert_eq!((code, out.trim()), (0, "SERVING"), "{err}");
    let (code, _, err) = run(&broker, &["list", "--endpoint", &https, "--ca-file", &ca]).await;
    assert_eq!(code, 0, "{err}");
    // An authority that the system does not know, and no TLS at all.
    assert_eq!(run(&broker, &["list", "--endpoint", &https]).await.0, 7);
    assert_eq!(run(&broker, &["list", "--endpoint", &format!("http://localhost:{port}")]).await.0, 7);
}

#[tokio::test]
async fn connect_waits_for_the_user() {
    let oidc = OidcServer::start(OidcOptions::default()).await;
    let broker = BrokerBuilder::new().oidc(&oidc).spawn_process().await;
    for (answer, code, status) in [(Answer::Allow, 0, "COMPLETED"), (Answer::Deny, 11, "DENIED")] {
        let user = "alice";
        let args =
            ["connect", "oidc", "-u", user, "-s", "mail", "-s", "calendar", "--wait", "--output", "json"];
        let mut command = broker.site().command(&args);
        command
            .env("TOKEN_BROKER_ENDPOINT", format!("http://{}", broker.grpc_address()))
            .env("TOKEN_BROKER_API_KEY", broker.api_key("agent"))
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
        let started = json(&lines.next_line().await.unwrap().unwrap());
        Browser::new().consent(started["authorization_url"].as_str().unwrap(), user, answer).await;
        let ended = json(&lines.next_line().await.unwrap().unwrap());
        assert_eq!(ended["status"], status);
        assert_eq!(child.wait().await.unwrap().code(), Some(code));
    }
    let (code, out, err) = run(&broker, &["get", "oidc", "mail", "-u", "alice"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("calendar.read"), "{out}");
}

#[tokio::test]
async fn watch_prints_a_line_for_each_event_and_goes_on_behind_a_cursor() {
    use tokio::io::AsyncBufReadExt as _;
    let provider = HostileServer::start().await;
    let broker = BrokerBuilder::new().hostile(&provider).spawn_process().await;
    let watch = |args: &[&str]| {
        let mut command = broker.site().command(args);
        command
            .env("TOKEN_BROKER_ENDPOINT", format!("http://127.0.0.1:{}", broker.site().ports.grpc))
            .env("TOKEN_BROKER_API_KEY", broker.api_key("agent"))
            .stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    // The place before anything happened, by the API itself.
    let mut client = broker.client("agent").await;
    let request = token_broker::r#gen::v1::WatchCredentialsRequest::default();
    let mut stream = client.watch_credentials(request).await.unwrap().into_inner();
    let start = stream.message().await.unwrap().unwrap().cursor;
    import(&broker, "files", "alice", "canary-access-token").await;
    import(&broker, "files", "bob", "canary-access-token").await;
    let (_child, mut lines) = watch(&["watch", "--cursor", &start, "--output", "json"]);
    let first = json(&lines.next_line().await.unwrap().unwrap());
    assert_eq!((first["user_id"].as_str(), first["old"].as_str()), (Some("alice"), Some("NOT_CONNECTED")));
    assert_eq!((first["new"].as_str(), first["generation"].as_i64()), (Some("CONNECTED"), Some(1)));
    assert_eq!(json(&lines.next_line().await.unwrap().unwrap())["user_id"], "bob");
    let cursor = first["cursor"].as_str().unwrap();
    let (_child, mut lines) = watch(&["watch", "-u", "bob", "--cursor", cursor]);
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("bob") && line.contains("NOT_CONNECTED -> CONNECTED"), "{line}");
    // A broker that comes again is watched again.
    let (_child, mut lines) = watch(&["watch", "--cursor", cursor, "--output", "json"]);
    assert_eq!(json(&lines.next_line().await.unwrap().unwrap())["user_id"], "bob");
    broker.terminate().await;
    broker.restart().await;
    import(&broker, "files", "carol", "canary-access-token").await;
    assert_eq!(json(&lines.next_line().await.unwrap().unwrap())["user_id"], "carol");

    // When nobody reads any more, it ends.
    let (mut child, lines) = watch(&["watch", "--cursor", &start, "--output", "json"]);
    drop(lines);
    assert!(child.wait().await.unwrap().success());

    let (code, _, err) = run(&broker, &["watch", "--cursor", "no-cursor", "--output", "json"]).await;
    assert_eq!((code, json(&err)["error"]["reason"].as_str()), (9, Some("INVALID_ARGUMENT")));
}
