//! Key rotation under load, on three replicas: how many rows a second are moved to the new data key, what callers notice of
//! it, and how it goes on when the replica that works is killed.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client as Browser;
use token_broker::r#gen::v1::{ListDataKeysRequest, Reencryption, RotateDataKeysRequest};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::stage::{Scene, Stage};
use super::stats::{millis, percentile};
use crate::clients::{self, AdminClient};
use crate::clock;
use crate::history::{Answer, Call, Micros, Question};

const REPLICAS: usize = 3;
const LIFE: Duration = Duration::from_hours(1);
const LATENCY: Duration = Duration::from_millis(20);
/// Callers, each with one call at a time at a random replica; an eighth of the calls asks for a refresh.
const CALLERS: u32 = 8;
const PACE: Duration = Duration::from_millis(20);
/// How long the load is watched without a rotation, for comparison.
const BEFORE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_mins(20);
/// Callers that read every credential at the end.
const READERS: usize = 24;

/// A rotation as it went.
struct Rotation {
    /// From the call to the first moved row, and to the last.
    began: Duration,
    moved: Duration,
    /// From the call to the end of a pass that found nothing to do.
    done: Duration,
    renewed: u64,
    passes: i64,
    unreadable: i64,
    /// From the kill to the next row that was moved.
    resumed: Option<Duration>,
    killed: Option<usize>,
    from: Micros,
    to: Micros,
}

/// Whether no call failed that had to succeed, and every row can be read.
pub(crate) async fn run(credentials: u32) -> bool {
    let stage = Stage::set(Scene {
        replicas: REPLICAS,
        life: (LIFE, LIFE),
        latency: LATENCY,
        refresh_ahead: Duration::ZERO,
        credentials,
        pace: PACE,
    })
    .await;
    stage.import(0..credentials).await;
    println!("keys: {REPLICAS} replicas, {credentials} credentials, {CALLERS} callers");
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(clients::work(Arc::clone(&stage.load), caller));
    }
    let from = clock::now();
    sleep(BEFORE).await;
    let mut good = report_calls(&stage, "without a rotation", from, clock::now(), None);
    let quiet = rotate(&stage, credentials, false).await;
    good &= report("rotation", &stage, &quiet, credentials);
    let killed = rotate(&stage, credentials, true).await;
    good &= report("rotation, the replica that works killed halfway", &stage, &killed, credentials);
    stage.load.stop.cancel();
    callers.join_all().await;
    let unreadable = read_all(&stage, credentials).await;
    println!("  read in the end: {credentials} credentials, {unreadable} without a token");
    let (doubles, ended) = stage.doubles();
    good &= unreadable == 0 && doubles == 0 && ended == 0;
    good &= stage.strike().await;
    println!("keys: {}", if good { "no call failed, every row can be read" } else { "FAILED" });
    good
}

async fn progress(admins: &mut [AdminClient]) -> Option<Reencryption> {
    // The one that was killed does not answer for a while.
    for admin in admins {
        let request = ListDataKeysRequest { all_tenants: true, ..ListDataKeysRequest::default() };
        if let Ok(answer) = admin.list_data_keys(request).await {
            return answer.into_inner().reencryption;
        }
    }
    None
}

async fn rotate(stage: &Stage, credentials: u32, kill: bool) -> Rotation {
    let mut admins = clients::admins(&stage.site);
    let renewed_before = renewed(stage).await;
    let (began, from) = (Instant::now(), clock::now());
    let request = RotateDataKeysRequest { all_tenants: true, ..RotateDataKeysRequest::default() };
    let rotated = admins[0].rotate_data_keys(request).await.unwrap().into_inner().rotated;
    assert_eq!(rotated.len(), 1, "one tenant");
    let first_pass = progress(&mut admins).await.unwrap().pass + 1;
    let mut rotation = Rotation {
        began: Duration::ZERO,
        moved: Duration::ZERO,
        done: Duration::ZERO,
        renewed: 0,
        passes: 0,
        unreadable: 0,
        resumed: None,
        killed: None,
        from,
        to: from,
    };
    let mut killed_at: Option<(Instant, i64)> = None;
    loop {
        sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < PATIENCE, "the rotation does not end");
        let Some(now) = progress(&mut admins).await else { continue };
        if now.pass >= first_pass && now.renewed > 0 && rotation.began.is_zero() {
            rotation.began = began.elapsed();
        }
        if now.pass == first_pass {
            let so_far = u64::try_from(now.renewed).unwrap();
            if so_far > rotation.renewed {
                (rotation.renewed, rotation.moved) = (so_far, began.elapsed());
            }
            if kill && killed_at.is_none() && now.renewed > i64::from(credentials / 3) {
                let counts = renewed(stage).await;
                let gains =
                    counts.iter().zip(&renewed_before).map(|(now, before)| now.saturating_sub(*before));
                let worker =
                    gains.enumerate().max_by_key(|(_, gain)| *gain).map_or(0, |(replica, _)| replica);
                assert!(stage.fleet.kill(worker).await);
                // What it had done is what the next one finds.
                let at_kill = progress(&mut admins).await.map_or(now.renewed, |now| now.renewed);
                killed_at = Some((Instant::now(), at_kill));
                rotation.killed = Some(worker);
            }
        }
        if let Some((at, renewed)) = killed_at
            && rotation.resumed.is_none()
            && (now.renewed > renewed || now.pass > first_pass)
        {
            rotation.resumed = Some(at.elapsed());
        }
        rotation.unreadable = rotation.unreadable.max(now.unreadable);
        if !now.under_way {
            rotation.passes = now.pass - first_pass + 1;
            rotation.done = began.elapsed();
            rotation.to = clock::now();
            return rotation;
        }
    }
}

fn report(name: &str, stage: &Stage, rotation: &Rotation, credentials: u32) -> bool {
    let took = rotation.moved.saturating_sub(rotation.began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = rotation.renewed as f64 / took.max(0.001);
    println!(
        "  {name}: first row after {:.0} s, {} rows moved in {took:.1} s, {rate:.0} a second; done after {:.0} s and {} passes; \
         {} rows unreadable",
        rotation.began.as_secs_f64(),
        rotation.renewed,
        rotation.done.as_secs_f64(),
        rotation.passes,
        rotation.unreadable,
    );
    if let (Some(replica), Some(resumed)) = (rotation.killed, rotation.resumed) {
        println!("    replica {replica} killed; another one went on after {:.1} s", resumed.as_secs_f64());
    }
    // A refresh meanwhile has sealed its row with the new key before the pass came to it: that row was not moved.
    let most = rotation.renewed > u64::from(credentials) * 9 / 10;
    report_calls(stage, "meanwhile", rotation.from, rotation.to, rotation.killed)
        && most
        && rotation.unreadable == 0
}

/// Whether none failed. A call that was at a process when it was killed ends with its connection, whatever the process did.
fn report_calls(stage: &Stage, name: &str, from: Micros, to: Micros, killed: Option<usize>) -> bool {
    let calls: Vec<Call> =
        stage.record.calls().into_iter().filter(|call| call.invoked >= from && call.returned <= to).collect();
    let mut took: Vec<_> =
        calls.iter().map(|call| Duration::from_micros(call.returned - call.invoked)).collect();
    let failed: Vec<_> =
        calls.iter().filter(|call| matches!(call.answer, Answer::Failed(_) | Answer::Reauthorize)).collect();
    let excused = |call: &&&Call| {
        killed == Some(call.replica) && matches!(call.answer, Answer::Failed("connection lost"))
    };
    let cut = failed.iter().filter(excused).count();
    println!(
        "    calls {name}: {}, p50 {:.1} ms, p99 {:.1} ms; failed {}{}",
        calls.len(),
        millis(percentile(&mut took, 50)),
        millis(percentile(&mut took, 99)),
        failed.len() - cut,
        if cut > 0 { format!(", and {cut} cut off at the killed replica") } else { String::new() },
    );
    if let Some(call) = failed.iter().find(|call| !excused(call)) {
        println!("    the first that failed: {:?} at replica {}", call.answer, call.replica);
    }
    failed.len() == cut && !calls.is_empty()
}

/// The rows that each replica has moved so far, by its own metrics.
async fn renewed(stage: &Stage) -> Vec<u64> {
    let browser = Browser::builder().no_proxy().build().unwrap();
    let mut all = Vec::new();
    for replica in &stage.site.replicas {
        let url = format!("http://127.0.0.1:{}/metrics", replica.operations);
        let text = match browser.get(&url).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let line = |line: &&str| line.starts_with("token_broker_reencrypted_rows_total{outcome=\"renewed\"}");
        let found = text.lines().find(line).and_then(|line| line.rsplit(' ').next()?.parse().ok());
        all.push(found.unwrap_or_default());
    }
    all
}

/// How many credentials have no token.
async fn read_all(stage: &Stage, credentials: u32) -> usize {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let mut clients = clients::clients(&stage.site);
        readers.spawn(async move {
            let mut without = 0;
            for credential in (0..credentials).skip(reader).step_by(READERS) {
                let replica = (credential as usize / READERS) % clients.len();
                let answer = clients::ask(&mut clients[replica], credential, Question::Read).await;
                without += usize::from(!matches!(answer, Answer::Token { .. }));
            }
            without
        });
    }
    readers.join_all().await.into_iter().sum()
}
