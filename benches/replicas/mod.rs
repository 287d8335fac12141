//! `make bench`: what several replicas cost and bear, measured over real processes with Postgres, Redis and a provider on
//! this machine. Each figure stands beside its floor of the same run; figures of different machines say nothing of each
//! other. Part of the harness in `tests/chaos`, whose fleet, provider and clients these measurements use.

mod ahead;
mod keys;
mod outage;
mod plans;
mod restart;
mod stage;
mod stats;
mod storm;

use clap::ValueEnum;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    /// Many callers at all replicas ask for one token that has expired.
    Storm,
    /// The background refreshes many credentials; what that costs with few and with many rows.
    Ahead,
    /// All replicas are replaced under load from Python and Node.
    Restart,
    /// Redis, then Postgres, are gone for a while under load.
    Outage,
    /// A data key is replaced under load, twice; once the replica that moves the rows is killed.
    Keys,
}

/// Runs it. Whether what it relies on held; what it measured is printed.
pub(crate) async fn run(measurement: Measurement, credentials: u32, rows: u32) -> bool {
    println!("{}", stage::machine());
    match measurement {
        Measurement::Storm => storm::run().await,
        Measurement::Ahead => ahead::run(credentials, rows).await,
        Measurement::Restart => restart::run().await,
        Measurement::Outage => outage::run().await,
        Measurement::Keys => keys::run(credentials).await,
    }
}
