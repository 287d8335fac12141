//! Callers at four replicas ask at one moment for a token that has expired: one call to the provider, one answer for all,
//! hardly later than the provider's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::stage::{Scene, Stage};
use super::stats::{millis, percentile};
use crate::clients::{self, Client};
use crate::history::{Answer, Question};

const REPLICAS: usize = 4;
/// Callers at each replica.
const CALLERS: [usize; 2] = [50, 250];
const ROUNDS: usize = 20;
/// The provider's latency, which is the floor: nobody can have the token before.
const LATENCY: Duration = Duration::from_millis(200);
const LIFE: Duration = Duration::from_secs(3);

/// Whether each round had one call and one answer.
pub(crate) async fn run() -> bool {
    let stage = Stage::set(Scene {
        replicas: REPLICAS,
        life: (LIFE, LIFE),
        latency: LATENCY,
        // Nobody else refreshes it meanwhile.
        refresh_ahead: Duration::ZERO,
        credentials: 1,
        pace: Duration::ZERO,
    })
    .await;
    stage.import(0..1).await;
    println!(
        "storm: {REPLICAS} replicas, one expired token, provider latency {} ms, {ROUNDS} rounds",
        millis(LATENCY)
    );
    println!(
        "  callers  calls/round  different answers  last answer, ms      over the provider's, ms   ratio"
    );
    println!(
        "                                           median     max       median     max            median"
    );
    let mut good = true;
    for callers in CALLERS {
        let clients = connections(&stage, callers).await;
        let (mut last, mut over) = (Vec::new(), Vec::new());
        let (mut calls, mut different) = (0, 0);
        for _ in 0..ROUNDS {
            sleep(LIFE).await;
            let before = stage.provider.book.presented();
            let (took, answers) = round(&clients).await;
            let presentations = stage.provider.book.presentations();
            calls = calls.max(presentations.len() - before);
            good &= presentations.len() == before + 1;
            different = different.max(answers.len());
            let own = presentations.last().map_or(0, |p| p.ended - p.began);
            last.push(took);
            over.push(took.saturating_sub(Duration::from_micros(own)));
        }
        good &= different == 1;
        let median = percentile(&mut last, 50);
        println!(
            "  {:>7}  {calls:>11}  {different:>17}  {:>9.1}  {:>7.1}  {:>9.1}  {:>7.1}  {:>14.2}",
            callers * REPLICAS,
            millis(median),
            millis(percentile(&mut last, 100)),
            millis(percentile(&mut over, 50)),
            millis(percentile(&mut over, 100)),
            median.as_secs_f64() / LATENCY.as_secs_f64(),
        );
    }
    let (doubles, ended) = stage.doubles();
    good &= doubles == 0 && ended == 0;
    good &= stage.strike().await;
    println!("storm: {}", if good { "one call and one answer in every round" } else { "FAILED" });
    good
}

/// A connection for every ten callers, as processes of some callers each have; connected.
async fn connections(stage: &Stage, callers: usize) -> Vec<Client> {
    let mut all = Vec::new();
    for _ in 0..callers.div_ceil(10) {
        for mut client in clients::clients(&stage.site) {
            clients::ask(&mut client, 0, Question::Read).await;
            all.extend((0..10).map(|_| client.clone()));
        }
    }
    all
}

/// All at once. The time from the first question to the last answer, and the answers.
async fn round(clients: &[Client]) -> (Duration, BTreeSet<String>) {
    let barrier = Arc::new(Barrier::new(clients.len() + 1));
    let mut callers = JoinSet::new();
    for client in clients {
        let (mut client, barrier) = (client.clone(), Arc::clone(&barrier));
        callers.spawn(async move {
            barrier.wait().await;
            let answer = clients::ask(&mut client, 0, Question::Read).await;
            assert!(matches!(answer, Answer::Token { .. }), "{answer:?}");
            format!("{answer:?}")
        });
    }
    barrier.wait().await;
    let began = Instant::now();
    let answers = callers.join_all().await.into_iter().collect();
    (began.elapsed(), answers)
}
