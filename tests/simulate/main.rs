//! The refresh protocol, simulated: the brokers' own code under virtual time, with every call's duration and every fault
//! drawn from a seed. A failure names its seed: `SEED=… cargo test --test simulate the_seed`. More seeds: `make simulate`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test a panic is the report; the lint allows it in #[test] functions, not in their helpers"
)]

mod clients;
mod copies;
mod dice;
#[path = "../support/fakes/mod.rs"]
mod fakes;
mod faults;
mod invariants;
mod link;
mod ports;
mod provider;
#[path = "../it/support/provider.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod provider_by_hand;
#[path = "../support/splitmix.rs"]
mod splitmix;
mod store_port;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use clients::Clients;
use faults::Counts;
use world::{Protocol, World};

/// How long faults happen.
const LENGTH: Duration = Duration::from_secs(100);
/// Rounds of reads until everything has come to rest.
const ROUNDS: u32 = 40;
/// How many clients call at a time.
const CLIENTS: usize = 2;

struct Outcome {
    violations: Vec<String>,
    counts: Counts,
    losses: u64,
}

/// One run.
fn run(seed: u64, protocol: Protocol) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::start(seed, protocol, LENGTH);
        let outcome = live(&world).await;
        world.take_down();
        outcome
    })
}

async fn live(world: &Arc<World>) -> Outcome {
    let clients = Clients::new(world);
    let users = world.faults.plan.users;
    for user in 0..users {
        clients.consent(user).await;
    }
    let until = world.began + LENGTH;
    let callers: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&clients).live(until))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    world.end_faults();
    // To rest: each access token runs out, so that every row meets the provider once more.
    let settled = Instant::now() + provider::ACCESS_LIFE + Duration::from_secs(5);
    let mut unrest = None;
    for _ in 0..ROUNDS {
        sleep(Duration::from_secs(15)).await;
        for user in 0..users {
            clients.read(user).await;
        }
        unrest =
            world.unrest(users).or_else(|| (!world.is_whole()).then(|| "a replica is not back".to_owned()));
        if unrest.is_none() && Instant::now() > settled {
            break;
        }
    }
    if let Some(unrest) = unrest {
        world.violated(format!("no rest: {unrest}"));
    }
    let losses = world.check_at_rest(&clients.histories());
    Outcome { violations: world.violations.lock().unwrap().clone(), counts: world.faults.counts(), losses }
}

/// Runs seeds on all cores until one fails. Answers what happened in all.
fn run_all(seeds: std::ops::Range<u64>) -> (Counts, u64) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            let (mut counts, mut losses) = (Counts::new(), 0);
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= seeds.end {
                    return (counts, losses);
                }
                let outcome = run(seed, Protocol::Real);
                let list = outcome.violations.join("\n");
                assert!(list.is_empty(), "SEED={seed} cargo test --test simulate the_seed\n{list}");
                for (fault, count) in outcome.counts {
                    *counts.entry(fault).or_default() += count;
                }
                losses += outcome.losses;
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = (Counts::new(), 0);
        for worker in workers {
            let (counts, losses) = worker.join().unwrap();
            for (fault, count) in counts {
                *all.0.entry(fault).or_default() += count;
            }
            all.1 += losses;
        }
        all
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var_os(variable).map(|value| value.to_str().unwrap().parse().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "shown with --nocapture: what the runs were worth")]
fn the_invariants_hold_under_every_fault() {
    let count = number("SEEDS").unwrap_or(10_000);
    let first = number("FIRST_SEED").unwrap_or(0);
    let (counts, losses) = run_all(first..first + count);
    println!("{count} runs from seed {first}; {losses} grants died inside the window; faults: {counts:?}");
    // A fault that never happened proves nothing.
    if count >= 10_000 {
        let missing: Vec<_> = faults::all().into_iter().filter(|fault| !counts.contains_key(fault)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
        assert!(losses > 0, "nothing ever died inside the window");
    }
}

#[test]
fn the_seed() {
    let Some(seed) = number("SEED") else { return };
    // What the brokers log, between what happens to them.
    tracing_subscriber::fmt().without_time().with_target(false).with_max_level(tracing::Level::INFO).init();
    let violations = run(seed, Protocol::Real).violations;
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        let [one, two] = [0, 1].map(|_| run(seed, Protocol::Real));
        assert_eq!(
            (one.counts, one.violations, one.losses),
            (two.counts, two.violations, two.losses),
            "{seed}"
        );
    }
}

#[test]
fn a_lock_alone_is_caught() {
    let caught = (0..300).find(|seed| {
        let violations = run(*seed, Protocol::LockOnly).violations;
        violations.iter().any(|violation| violation.starts_with("I1"))
    });
    assert!(caught.is_some(), "300 runs did not find that a lock with an expiry is no claim");
}
