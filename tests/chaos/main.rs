//! `make chaos`: real broker processes over real Postgres and Redis, a provider that ends a grant when a refresh token comes
//! back, faults of every kind, and a history checker. See `docs/CHAOS.md`.
//!
//! `make cluster` shows the same topology without faults; `make bench` measures it (`benches/replicas`).
//!
//! `cargo test` runs this too, like every test target, and finds nothing to do: a run takes minutes and wants its own
//! arguments. What is pure in it is tested by `tests/it/chaos_history`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a harness: a panic is its report, and it prints what it finds"
)]

mod backing;
mod broker;
mod clients;
mod clock;
mod cluster;
mod deeds;
mod dice;
#[path = "../support/engines/mod.rs"]
mod engines;
mod faults;
mod fleet;
mod history;
#[path = "../../benches/replicas/mod.rs"]
mod measurements;
mod naive;
mod provider;
mod record;
mod report;
mod rows;
mod run;
mod site;
#[path = "../support/splitmix.rs"]
mod splitmix;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Fault injection for the refresh protocol.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Arguments {
    /// How long faults are dealt, in seconds.
    #[arg(long)]
    duration: Option<u64>,
    /// Decides what happens; a random one if there is none.
    #[arg(long)]
    seed: Option<u64>,
    /// How many credentials.
    #[arg(long, default_value_t = 200)]
    credentials: u32,
    /// How many replicas.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// The broker that takes no claim: the checks must find it out.
    #[arg(long)]
    naive: bool,
    /// One replica over SQLite, without Postgres and Redis.
    #[arg(long)]
    sqlite: bool,
    /// Keep the folder with configuration and logs.
    #[arg(long)]
    keep: bool,
    /// Instead: three replicas of the product to look at.
    #[arg(long)]
    cluster: bool,
    /// Instead: a measurement, as `make bench` makes them.
    #[arg(long)]
    measure: Option<measurements::Measurement>,
    /// How many rows the database has at last, for the measurement that fills it.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// Be one of the broker processes, with this configuration.
    #[arg(long, hide = true)]
    broker: Option<PathBuf>,
    /// Where that process writes the steps it reaches.
    #[arg(long, hide = true, requires = "broker")]
    steps: Option<PathBuf>,
    /// The steps it dies at.
    #[arg(long, hide = true, default_value = "")]
    orders: String,
}

fn main() -> ExitCode {
    let asked = |argument: String| {
        ["--duration", "--cluster", "--measure", "--broker", "--help"].iter().any(|a| argument.starts_with(a))
    };
    if !std::env::args().any(asked) {
        println!("chaos: `make chaos` and `make cluster` run this");
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    if let (Some(config), Some(steps)) = (arguments.broker, arguments.steps) {
        let Arguments { naive, orders, .. } = arguments;
        return broker::run(&broker::Arguments { config, steps, naive, orders });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if arguments.cluster {
        return if runtime.block_on(cluster::run()) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(measurement) = arguments.measure {
        let good = runtime.block_on(measurements::run(measurement, arguments.credentials, arguments.rows));
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let plan = run::Plan {
        duration: std::time::Duration::from_secs(arguments.duration.unwrap_or(300)),
        seed: arguments.seed.unwrap_or_else(|| clock::now() % 1_000_000),
        credentials: arguments.credentials,
        replicas: if arguments.sqlite { 1 } else { arguments.replicas },
        naive: arguments.naive,
        sqlite: arguments.sqlite,
        keep: arguments.keep,
    };
    let good = runtime.block_on(run::run(plan));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
