//! All replicas are replaced, one after the other, twice, while clients in Python and Node ask for tokens that live for
//! seconds. The clients retry UNAVAILABLE as their gRPC service config says, and nothing else.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::stage::{Scene, Stage};
use crate::clients::key_of;
use crate::history::CredentialNo;

const CREDENTIALS: CredentialNo = 40;
const ROUNDS: usize = 2;
/// Before the first, and between two.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether no call failed and no token was presented twice.
pub(crate) async fn run() -> bool {
    let stage = Stage::set(Scene {
        replicas: 3,
        life: (Duration::from_secs(6), Duration::from_secs(10)),
        latency: Duration::from_millis(300),
        refresh_ahead: Duration::from_mins(5),
        credentials: CREDENTIALS,
        pace: Duration::ZERO,
    })
    .await;
    stage.import(0..CREDENTIALS).await;
    let mut clients = [start(&stage, "python", "load.py"), start(&stage, "node", "load.mjs")];
    for (_, client) in &mut clients {
        // It says so when its first call is answered.
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).await.unwrap();
    }
    sleep(PAUSE).await;
    let (began, before) = (Instant::now(), stage.provider.book.presented());
    for _ in 0..ROUNDS {
        for replica in 0..stage.fleet.size() {
            stage.fleet.restart(replica).await;
            stage.fleet.wait_until_all_are_ready().await;
            sleep(PAUSE).await;
        }
    }
    let (took, refreshes) = (began.elapsed(), stage.provider.book.presented() - before);
    println!(
        "restart: {} replicas replaced {ROUNDS} times in {:.0} s under load; {refreshes} refreshes meanwhile",
        stage.fleet.size(),
        took.as_secs_f64()
    );
    let mut good = true;
    for (name, client) in clients {
        let report = finish(client).await;
        println!("  {name}: {report}");
        good &= report["failed"] == serde_json::json!({}) && report["calls"].as_u64() > Some(0);
    }
    let (doubles, ended) = stage.doubles();
    println!("  refresh tokens presented again: {doubles}; grants ended by that: {ended}");
    good &= doubles == 0 && ended == 0;
    good &= stage.strike().await;
    println!("restart: {}", if good { "no call failed, no refresh was made twice" } else { "FAILED" });
    good
}

/// A client that asks until its standard input ends.
fn start(stage: &Stage, program: &str, script: &str) -> (String, Child) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program_path = match program {
        "python" => root.join("target/test-tools/python/bin/python"),
        _ => root.join("target/test-tools/node"),
    };
    let addresses: Vec<_> = stage.site.replicas.iter().map(|r| format!("127.0.0.1:{}", r.grpc)).collect();
    let keys: Vec<_> = (0..CREDENTIALS)
        .map(key_of)
        .map(|key| {
            serde_json::json!({
                "provider": key.provider, "user_id": key.user_id, "service": key.service, "account": key.account,
            })
        })
        .collect();
    let child = Command::new(program_path)
        .arg(root.join("benches/replicas").join(script))
        .arg(format!("ipv4:{}", addresses.join(",")))
        .arg(Value::from(keys).to_string())
        .env("TOKEN_BROKER_API_KEY", &stage.site.api_key)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    (program.to_owned(), child)
}

async fn finish(mut client: Child) -> Value {
    drop(client.stdin.take());
    let mut text = String::new();
    client.stdout.take().unwrap().read_to_string(&mut text).await.unwrap();
    client.wait().await.unwrap();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
