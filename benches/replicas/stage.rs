//! What every measurement stands on: servers, a provider, replicas of the product.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::backing::Backing;
use crate::clients::Load;
use crate::deeds::{Clerk, Desk, Way};
use crate::fleet::{Build, Fleet};
use crate::history::{CredentialNo, Outcome, Rules};
use crate::provider::{Provider, Settings};
use crate::record::Record;
use crate::site::{Site, Times};

/// How many import at a time.
const CLERKS: u32 = 24;
/// What a server of a gigabyte has; and the counts and plans of its statements.
const POSTGRES: &str =
    "-c shared_buffers=512MB -c max_wal_size=4GB -c shared_preload_libraries=pg_stat_statements,auto_explain";

/// How a measurement is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) replicas: usize,
    /// How long an access token lives: at least, and at most.
    pub(crate) life: (Duration, Duration),
    /// How long the provider takes for a refresh.
    pub(crate) latency: Duration,
    pub(crate) refresh_ahead: Duration,
    /// How many credentials there are at most.
    pub(crate) credentials: u32,
    /// Between two calls of one client.
    pub(crate) pace: Duration,
}

/// All of it, running.
pub(crate) struct Stage {
    pub(crate) provider: Provider,
    pub(crate) backing: Arc<Backing>,
    pub(crate) site: Arc<Site>,
    pub(crate) record: Arc<Record>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) load: Arc<Load>,
    keepers: Vec<JoinHandle<Option<ExitStatus>>>,
}

impl Stage {
    pub(crate) async fn set(scene: Scene) -> Self {
        let times = Times {
            http_deadline: Duration::from_secs(5),
            strict_settle: Duration::from_secs(30),
            refresh_ahead: scene.refresh_ahead,
        };
        let provider = Provider::start(Settings {
            seed: 0,
            life: scene.life,
            grace: Duration::from_secs(30),
            deadline: times.http_deadline,
            latency: scene.latency,
        })
        .await;
        let backing = Arc::new(Backing::servers(POSTGRES).await);
        let site = Arc::new(Site::write(scene.replicas, times, &backing, &provider));
        let record = Arc::new(Record::default());
        let fleet = Fleet::new(Arc::clone(&site), Arc::clone(&record), Build::Product);
        let keepers = fleet.start().await;
        let load = Arc::new(Load {
            site: Arc::clone(&site),
            record: Arc::clone(&record),
            desk: Desk::default(),
            credentials: scene.credentials,
            seed: 0,
            pace: scene.pace,
            stop: CancellationToken::new(),
        });
        Self { provider, backing, site, record, fleet, load, keepers }
    }

    /// Imports these credentials.
    pub(crate) async fn import(&self, credentials: std::ops::Range<CredentialNo>) {
        let mut clerks = JoinSet::new();
        for number in 0..CLERKS {
            let mut clerk = Clerk::new(&self.load, &self.provider.book, number);
            let mine = credentials.clone().skip(number as usize).step_by(CLERKS as usize);
            clerks.spawn(async move {
                for credential in mine {
                    assert!(clerk.connect(credential, Way::Import(false)).await, "credential {credential}");
                }
            });
        }
        clerks.join_all().await;
    }

    /// Presentations beyond one for each refresh token, and grants that ended by one.
    pub(crate) fn doubles(&self) -> (usize, usize) {
        let grants = self.provider.book.grants();
        let mut presentations = self.provider.book.presentations();
        // Whose refresh token stays the same presents it again and again.
        presentations.retain(|p| grants[&p.grant].rules != Rules::Steady);
        let mut tokens: Vec<_> = presentations.iter().map(|p| (p.grant, p.issue)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let ended = presentations.iter().filter(|p| p.outcome == Outcome::Reuse).count();
        (presentations.len() - tokens.len(), ended)
    }

    /// Ends it in order. Whether nothing happened that should not have.
    pub(crate) async fn strike(self) -> bool {
        let ends = self.fleet.stop(self.keepers).await;
        let in_order = ends.iter().all(|end| end.is_some_and(|status| status.success()));
        if !in_order {
            println!("the replicas ended with {ends:?}");
        }
        in_order && self.record.incidents().is_empty()
    }
}

/// What this machine is, for the head of a report.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
    format!("{cores} cores ({model}); servers, provider, replicas and callers share them")
}
