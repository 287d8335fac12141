//! The example clients in other languages, which know the broker by its proto or by reflection only, go through the whole
//! tour against a real broker process and a strict provider.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::broker::BrokerBuilder;
use crate::support::browser::{Answer, Browser};
use crate::support::oidc::{OidcOptions, OidcServer, node};

/// How long a client may be silent. Far beyond what it takes.
const PATIENCE: Duration = Duration::from_mins(1);

const EXPECTED: &str = "\
get: authorization required, NOT_CONNECTED
consent: COMPLETED
get: token of generation 1 for alice@example.test
api: 200
refresh: token of generation 2 for alice@example.test
refresh again: token of generation 2 for alice@example.test
api: 200
list: alice at oidc, mail: ACTIVE
revoke: REVOKED
api: 401
get: authorization required, REVOKED";

/// Runs a client as agent; the test is the user who opens the link.
async fn tour(program: &Path, script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let oidc = OidcServer::start(OidcOptions::default()).await;
    let broker = BrokerBuilder::new().oidc(&oidc).spawn_process().await;
    let mut client = Command::new(program)
        .arg(root.join("tests/clients").join(script))
        .arg(broker.grpc_address())
        .args(["--provider", "oidc", "--service", "mail", "--user", "alice"])
        .args(["--api", &format!("{}/me", oidc.issuer())])
        .env("TOKEN_BROKER_API_KEY", broker.api_key("agent"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("run `tests/setup` first");
    let mut output = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) =
        tokio::time::timeout(PATIENCE, output.next_line()).await.expect("the client goes on").unwrap()
    {
        if let Some(link) = line.strip_prefix("link: ") {
            let page = Browser::new().consent(link, "alice", Answer::Allow).await;
            assert_eq!(page.status, 200, "{}", page.text());
        } else {
            said.push(line);
        }
    }
    assert_eq!(said.join("\n"), EXPECTED);
    assert!(client.wait().await.unwrap().success());

    let refreshes = oidc.refreshes().await;
    assert_eq!(refreshes.len(), 1, "two reports of one generation are one refresh: {refreshes:?}");
    assert_eq!(oidc.revocations().await[0].presented, refreshes[0].issued_refresh);
}

#[tokio::test]
async fn python_by_reflection_alone() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python/bin/python");
    tour(&python, "python/tour.py").await;
}

#[tokio::test]
async fn node_by_the_proto_alone() {
    tour(&node(), "node/tour.mjs").await;
}
