//! Signals, readiness and the drain: `NOT_SERVING` first, then no new connections, then a bounded wait for what is under
//! way, then the database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::Database;
use crate::application::Broker;
use crate::application::audit::{AuditArchive, AuditLog};
use crate::application::keys::Keys;
use crate::domain::coordination::PermitStore;
use crate::domain::data_key::FOLLOW_EVERY;
use crate::domain::ports::{DeadOwners, StoreHealth};
use crate::infra::journal::Former;
use crate::telemetry::metrics::{PERMIT_STORE_UP, STORE_UP};

/// How often the database is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A database that takes longer is not there.
const PING_LIMIT: Duration = Duration::from_secs(1);
/// How often the background work runs.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often old audit rows are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How long connections may stay when no call is under way any more.
const LINGER: Duration = Duration::from_secs(1);
/// How long the last write to the database file may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// The broker's own services in the health protocol; the empty name is the whole server.
const SERVICES: [&str; 3] = ["", "tokenbroker.v1.TokenBrokerService", "tokenbroker.v1.AdminService"];

/// Tells everybody whether the broker can serve.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub(crate) reporter: HealthReporter,
    pub(crate) ready: watch::Sender<bool>,
}

impl Readiness {
    pub(crate) async fn set(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
        self.ready.send_replace(ready);
    }

    /// Ends the health protocol's watches, which would otherwise keep their connections open for good.
    async fn end_watches(&mut self) {
        for service in SERVICES {
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// What is wrong, if anything.
async fn problem<E: ToString>(ping: impl Future<Output = Result<(), E>>, silent: &str) -> Option<String> {
    match timeout(PING_LIMIT, ping).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(silent.to_owned()),
    }
}

/// Keeps readiness true to the database.
pub(crate) async fn watch_store(store: Arc<dyn StoreHealth>, readiness: Readiness, upkeep: impl Fn() + Send) {
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        upkeep();
        let problem = problem(store.ping(), "the database does not answer in time").await;
        let up = problem.is_none();
        metrics::gauge!(STORE_UP).set(if up { 1.0 } else { 0.0 });
        if *readiness.ready.borrow() == up {
            continue;
        }
        if let Some(problem) = problem {
            tracing::error!(problem, "not ready");
        } else {
            tracing::info!("ready again");
        }
        readiness.set(up).await;
    }
}

/// Tells by metric and log whether the permit store answers. Without it the broker serves on: the claims keep tokens safe,
/// at the price of waiting.
pub(crate) async fn watch_permits(permits: Arc<dyn PermitStore>, stop: CancellationToken) {
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_up = true;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let problem = problem(permits.ping(), "the permit store does not answer in time").await;
        let up = problem.is_none();
        metrics::gauge!(PERMIT_STORE_UP).set(if up { 1.0 } else { 0.0 });
        match problem {
            Some(problem) if was_up => tracing::warn!(problem, "degraded: refreshes go by claim alone"),
            None if !was_up => tracing::info!("the permit store is back"),
            _ => {}
        }
        was_up = up;
    }
}

/// Runs the background work until it is cancelled; a round that has begun is finished.
pub(crate) async fn sweep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        broker.sweep().await;
    }
}

/// Refreshes ahead of expiry until it is cancelled. Where a round left something behind, another follows as soon as there is
/// room.
pub(crate) async fn refresh_ahead(broker: Arc<Broker>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut more = false;
    loop {
        let next = async {
            tokio::select! {
                _ = ticks.tick() => true,
                () = broker.background_refresh_ended(), if more => false,
            }
        };
        let Some(all) = stop.run_until_cancelled(next).await else { return };
        more = if all { broker.refresh_due().await } else { broker.refresh_backlog().await };
    }
}

/// Removes audit rows that need not be kept any longer, until it is cancelled.
pub(crate) async fn prune_audit(archive: Arc<AuditArchive>, stop: CancellationToken) {
    let mut ticks = interval(PRUNE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(archive.prune()).await {
            tracing::error!(%error, "old audit rows could not be removed");
        }
    }
}

/// Learns of data keys that were replaced or deleted, until it is cancelled.
pub(crate) async fn follow_keys(keys: Arc<Keys>, stop: CancellationToken) {
    let mut ticks = interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        keys.follow().await;
    }
}

/// Moves rows to the active data keys, where nobody else does, until it is cancelled; a step that has begun is finished.
pub(crate) async fn move_rows(keys: Arc<Keys>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = keys.work().await;
        stop.run_until_cancelled(sleep(pause)).await;
    }
    keys.stop_working().await;
}

/// Replays what dead processes left in the journal; what is not replayed at the end is found again at the next start.
/// `others`: whose claims may be settled early after that, beside those of the replayed runs.
pub(crate) async fn replay(
    broker: Arc<Broker>,
    former: Vec<Former>,
    others: Option<DeadOwners>,
    stop: CancellationToken,
) {
    for run in former {
        if stop.run_until_cancelled(broker.replay(run.run())).await.is_none() {
            return;
        }
        if let Err(error) = run.forget().await {
            tracing::error!(%error, "a replayed journal could not be deleted; it will be replayed again");
        }
    }
    if let Some(others) = others
        && stop.run_until_cancelled(broker.settle_early(others)).await.is_none()
    {
        return;
    }
    broker.end_replay();
}

/// A broker that serves.
pub struct Running {
    /// Where callers come to.
    pub grpc_addr: SocketAddr,
    /// Where operators' tools come to, if not to `grpc_addr`.
    pub admin_addr: Option<SocketAddr>,
    /// Where browsers come to.
    pub public_addr: SocketAddr,
    /// Where orchestrators come to.
    pub operations_addr: SocketAddr,
    pub(crate) parts: Parts,
}

/// What has to be ended.
pub(crate) struct Parts {
    pub(crate) readiness: Readiness,
    /// Ends the listeners for callers and browsers, and the background work.
    pub(crate) stop: CancellationToken,
    /// Ends the listener for orchestrators, last.
    pub(crate) stop_operations: CancellationToken,
    pub(crate) watcher: JoinHandle<()>,
    /// The listeners for callers and browsers, and the background work.
    pub(crate) servers: Vec<JoinHandle<()>>,
    pub(crate) operations: JoinHandle<()>,
    pub(crate) tasks: TaskTracker,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) database: Database,
    pub(crate) announce: Duration,
    pub(crate) drain: Duration,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All that was under way has ended.
    Completely,
    /// The time was up: calls were cut off, or rows of the audit log.
    CutOff,
}

impl Running {
    /// Ends it in order. Answers when the database is closed.
    pub async fn shutdown(self) -> Drained {
        let Parts {
            mut readiness,
            stop,
            stop_operations,
            watcher,
            servers,
            operations,
            tasks,
            audit,
            database,
            announce,
            drain,
        } = self.parts;
        // Nothing may turn readiness on again.
        watcher.abort();
        let _ = watcher.await;
        readiness.set(false).await;
        tracing::info!(announce_ms = millis(announce), drain_ms = millis(drain), "draining");
        sleep(announce).await;

        let deadline = Instant::now() + drain;
        stop.cancel();
        readiness.end_watches().await;
        tasks.close();
        let (mut outcome, mut abandoned) = (Drained::Completely, Vec::new());
        // Calls and requests are waited for, connections are not: one that is open for nothing, or has sent half a
        // request, would hold up every shutdown. They get a moment to send what is done, and to begin what had arrived.
        let _ = timeout_at(deadline, tasks.wait()).await;
        let linger = Instant::now() + LINGER;
        for mut server in servers {
            if timeout_at(linger, &mut server).await.is_err() {
                abandoned.push(server);
            }
        }
        if timeout_at(deadline.max(Instant::now()), tasks.wait()).await.is_err() {
            tracing::error!(under_way = tasks.len(), "work under way is cut off");
            outcome = Drained::CutOff;
        }
        for server in abandoned {
            server.abort();
        }

        stop_operations.cancel();
        operations.abort();
        if timeout(CLOSE_LIMIT, audit.close()).await.is_err() {
            tracing::error!(
                "the audit log could not be written to its end: rows of answered calls may be missing"
            );
            outcome = Drained::CutOff;
        }
        if timeout(CLOSE_LIMIT, database.close()).await.is_err() {
            tracing::warn!("the database did not close in time; it is checked when it is opened again");
        }
        match outcome {
            Drained::Completely => tracing::info!("stopped"),
            Drained::CutOff => tracing::error!("stopped before all was done"),
        }
        outcome
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// SIGTERM and SIGINT (elsewhere: Ctrl-C). From its making on they end nothing by themselves; neither does SIGHUP, which only has
/// certificates read again.
pub struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    _hangup: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Catches the signals.
    pub fn catch() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                _hangup: signal(SignalKind::hangup())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            // There is no console to be interrupted from.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() -> std::io::Result<()> {
    StopSignals::catch()?.next().await;
    Ok(())
}

/// Serves until a signal, then drains. A second signal ends the wait.
pub async fn run_until_stopped(running: Running, mut signals: StopSignals) -> Drained {
    signals.next().await;
    tokio::select! {
        outcome = running.shutdown() => outcome,
        () = signals.next() => {
            tracing::error!("second signal: stopped at once");
            Drained::CutOff
        }
    }
}
