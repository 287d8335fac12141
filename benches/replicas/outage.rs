//! Callers ask three replicas at a steady rate; Redis is gone for half a minute, then Postgres for ten seconds. Nothing is
//! restarted but the server that was gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::stage::{Scene, Stage};
use super::stats::{millis, percentile, ratio};
use crate::clients;
use crate::clock;
use crate::history::{Answer, Call, Micros};

const CREDENTIALS: u32 = 300;
const CLIENTS: u32 = 24;
const PACE: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(20);
const WITHOUT_REDIS: Duration = Duration::from_secs(30);
const WITHOUT_POSTGRES: Duration = Duration::from_secs(10);

/// Whether no grant was lost and all were served again at the end.
pub(crate) async fn run() -> bool {
    let stage = Stage::set(Scene {
        replicas: 3,
        // So that refreshes are always under way, by the background and by readers.
        life: (Duration::from_secs(10), Duration::from_secs(20)),
        latency: Duration::from_millis(20),
        refresh_ahead: Duration::from_mins(5),
        credentials: CREDENTIALS,
        pace: PACE,
    })
    .await;
    stage.import(0..CREDENTIALS).await;
    let mut callers = JoinSet::new();
    for client in 0..CLIENTS {
        callers.spawn(clients::work(Arc::clone(&stage.load), client));
    }
    let mut phases = Vec::new();
    let mut begin = |name: &'static str| phases.push((name, clock::now(), stage.provider.book.presented()));
    begin("before");
    sleep(CALM).await;
    begin("Redis gone for 30 s");
    assert!(stage.backing.restart_redis(WITHOUT_REDIS).await);
    begin("after");
    sleep(CALM).await;
    begin("Postgres gone for 10 s");
    assert!(stage.backing.restart_postgres(WITHOUT_POSTGRES).await);
    begin("after that");
    sleep(CALM * 2).await;
    begin("");
    stage.load.stop.cancel();
    callers.join_all().await;
    let calls = stage.record.calls();
    println!(
        "outage: 3 replicas, {CREDENTIALS} credentials of 10 to 20 s, {CLIENTS} callers, each one call at a time, {} ms apart",
        PACE.as_millis()
    );
    println!(
        "  phase                       s    calls  tokens   refreshes/s  p50, ms  p99, ms  max, ms  failed"
    );
    let mut good = true;
    for pair in phases.windows(2) {
        let ((name, from, presented), (_, to, then)) = (pair[0], pair[1]);
        let lasted = Duration::from_micros(to - from);
        row(name, lasted, then - presented, &within(&calls, from, to));
    }
    for pair in phases.windows(2).filter(|pair| pair[0].0.starts_with("after")) {
        let ((name, from, _), (_, to, _)) = (pair[0], pair[1]);
        // Calls that began before among them.
        let late = calls.iter().filter(|call| failed(call) && (from..to).contains(&call.returned));
        let last = late.map(|call| call.returned - from).max().map(Duration::from_micros);
        let told = last.map_or("none".to_owned(), |last| format!("{:.2} s in", last.as_secs_f64()));
        println!("  {name}: the last failure: {told}");
    }
    let (doubles, ended) = stage.doubles();
    println!("  refresh tokens presented again: {doubles}; grants ended by that: {ended}");
    let (_, last_phase, _) = phases[phases.len() - 2];
    let late = within(&calls, last_phase + clock::micros(CALM), u64::MAX);
    good &= ended == 0 && late.iter().all(|call| !failed(call));
    good &= stage.strike().await;
    println!(
        "outage: {}",
        if good { "no token lost, no call failed in the last 20 s, no restart" } else { "FAILED" }
    );
    good
}

fn failed(call: &Call) -> bool {
    !matches!(call.answer, Answer::Token { .. })
}

fn within(calls: &[Call], from: Micros, to: Micros) -> Vec<&Call> {
    calls.iter().filter(|call| (from..to).contains(&call.invoked)).collect()
}

fn row(name: &str, lasted: Duration, refreshes: usize, calls: &[&Call]) {
    let mut times: Vec<_> =
        calls.iter().map(|call| Duration::from_micros(call.returned - call.invoked)).collect();
    let mut failures: BTreeMap<&'static str, u32> = BTreeMap::new();
    for call in calls {
        match call.answer {
            Answer::Token { .. } => {}
            Answer::Reauthorize => *failures.entry("asked to consent").or_default() += 1,
            Answer::Failed(why) => *failures.entry(why).or_default() += 1,
        }
    }
    let lost: u32 = failures.values().sum();
    let served = calls.len() - lost as usize;
    println!(
        "  {name:<24} {:>4.0}  {:>7}  {:>5.1} %  {:>11.1}  {:>7.1}  {:>7.1}  {:>7.1}  {}",
        lasted.as_secs_f64(),
        calls.len(),
        100.0 * ratio(served, calls.len()),
        f64::from(u32::try_from(refreshes).unwrap()) / lasted.as_secs_f64(),
        millis(percentile(&mut times, 50)),
        millis(percentile(&mut times, 99)),
        millis(percentile(&mut times, 100)),
        failures.iter().map(|(why, count)| format!("{why}: {count}")).collect::<Vec<_>>().join(", "),
    );
}
