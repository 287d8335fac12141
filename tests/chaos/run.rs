//! A run from its beginning to its verdict.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backing::Backing;
use crate::clients::{self, Load};
use crate::clock::{self, micros};
use crate::deeds::{Clerk, Desk, Way};
use crate::dice::Dice;
use crate::faults::Dealer;
use crate::fleet::{Build, Fleet};
use crate::history::{History, Limits};
use crate::provider::{Book, Mood, Provider, Settings};
use crate::record::Record;
use crate::report::{self, Report};
use crate::site::{Site, Times};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) credentials: u32,
    pub(crate) replicas: usize,
    pub(crate) naive: bool,
    pub(crate) sqlite: bool,
    pub(crate) keep: bool,
}

/// Short, so that a run of a minute sees unknown outcomes settled. Dispatch (2 s), deadline and a pause fit into the settling
/// time.
const TIMES: Times = Times {
    http_deadline: Duration::from_secs(2),
    strict_settle: Duration::from_secs(9),
    refresh_ahead: Duration::from_mins(5),
};
/// Beyond a claim's deadline of 4 s; with dispatch and deadline below the settling time.
const PAUSE: (Duration, Duration) = (Duration::from_millis(3000), Duration::from_millis(4500));
/// 80 calls a second in all.
const CLIENTS: u32 = 24;
const CLIENT_PACE: Duration = Duration::from_millis(300);
const CLERKS: u32 = 3;
const CLERK_PACE: Duration = Duration::from_millis(150);
/// From the end of a disturbance to the next.
const DISTURBANCE_PACE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(1500));
/// From one order to die at a step to the next.
const DEATH_PACE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_millis(2000));
/// How long a read of a valid token may take, two cores being shared by everything.
const READ_LIMIT: Duration = Duration::from_millis(2000);
/// A taken revocation is nobody else's for 90 s, so that one whose process was killed takes that long.
const REST_LIMIT: Duration = Duration::from_secs(150);
/// The naive build need not come to rest.
const NAIVE_REST_LIMIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Whether it is as it should be.
pub(crate) async fn run(plan: Plan) -> bool {
    println!("chaos: {plan:?}");
    let provider = Provider::start(Settings {
        seed: plan.seed,
        life: (Duration::from_secs(10), Duration::from_secs(20)),
        grace: Duration::from_secs(30),
        deadline: TIMES.http_deadline,
        latency: Duration::ZERO,
    })
    .await;
    let backing = Arc::new(if plan.sqlite { Backing::sqlite() } else { Backing::servers("").await });
    let mut site = Site::write(plan.replicas, TIMES, &backing, &provider);
    if plan.keep {
        println!("chaos: the folder is {}", site.keep().display());
    }
    let site = Arc::new(site);
    let record = Arc::new(Record::default());
    let build = if plan.naive { Build::Naive } else { Build::Obedient };
    let fleet = Fleet::new(Arc::clone(&site), Arc::clone(&record), build);
    let keepers = fleet.start().await;
    let stop = CancellationToken::new();
    let load = Arc::new(Load {
        site: Arc::clone(&site),
        record: Arc::clone(&record),
        desk: Desk::default(),
        credentials: plan.credentials,
        seed: plan.seed,
        pace: CLIENT_PACE,
        stop: stop.clone(),
    });
    connect_all(&load, &provider.book).await;
    println!("chaos: {} credentials are connected", plan.credentials);

    let began = clock::now();
    provider.book.set_mood(Mood::Bad);
    let mut workers = JoinSet::new();
    for client in 0..CLIENTS {
        workers.spawn(clients::work(Arc::clone(&load), client));
    }
    for clerk in 0..CLERKS {
        workers.spawn(Clerk::new(&load, &provider.book, clerk).work(CLERK_PACE));
    }
    let dealer = |purpose, pace| Dealer {
        fleet: Arc::clone(&fleet),
        backing: Arc::clone(&backing),
        book: Arc::clone(&provider.book),
        record: Arc::clone(&record),
        dice: Dice::new(plan.seed, purpose),
        pace,
        pause: PAUSE,
    };
    workers.spawn(dealer("disturbances", DISTURBANCE_PACE).deal(stop.clone()));
    // A short run has to see every fault, too; a long one leaves the replicas more time to work.
    let calmer = u32::try_from(plan.duration.as_secs() / 60).unwrap_or(1).clamp(1, 3);
    let pace = (DEATH_PACE.0 * calmer, DEATH_PACE.1 * calmer);
    workers.spawn(dealer("deaths", pace).order_deaths(stop.clone()));
    let interrupted = wait(plan.duration).await;
    stop.cancel();
    // The clerks end what they have begun, and the dealer a fault.
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            record.incident(format!("a part of the harness failed: {error}"));
        }
    }
    provider.book.set_mood(Mood::Calm);
    let lasted = Duration::from_micros(clock::now() - began);

    println!("chaos: waiting for rest");
    fleet.wait_until_all_serve().await;
    fleet.wait_until_all_are_ready().await;
    let limit = if plan.naive { NAIVE_REST_LIMIT } else { REST_LIMIT };
    rest(&backing, &provider.book, &record, limit).await;
    for (replica, end) in fleet.stop(keepers).await.into_iter().enumerate() {
        if !end.is_some_and(|status: ExitStatus| status.success()) {
            record.incident(format!("replica {replica} did not end in order: {end:?}"));
        }
    }
    let history = history(&site, &backing, &provider.book, &record, &fleet).await;
    if plan.keep {
        // For a look at what happened to one credential: `grep 'credential: 12,'`.
        std::fs::write(site.folder().join("history"), history.lines()).unwrap();
    }
    let report = Report::of(&plan, lasted, &history, &record);
    if interrupted {
        println!("chaos: interrupted");
    }
    report::publish(&report);
    report.good()
}

/// Until the time is up. True: a signal came first; the run is brought to its end. A signal after that ends it at once.
async fn wait(duration: Duration) -> bool {
    let interrupted = tokio::select! {
        () = sleep(duration) => false,
        () = interruption() => true,
    };
    tokio::spawn(async {
        interruption().await;
        // The replicas and servers notice.
        std::process::exit(130);
    });
    interrupted
}

async fn interruption() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Every tenth by a consent, the rest by imports.
async fn connect_all(load: &Arc<Load>, book: &Arc<Book>) {
    let mut clerks = JoinSet::new();
    let count = 4;
    for number in 0..count {
        let mut clerk = Clerk::new(load, book, 100 + number);
        let all = load.credentials;
        clerks.spawn(async move {
            for credential in (number..all).step_by(count as usize) {
                let way = if credential % 10 == 3 { Way::Consent } else { Way::Import(false) };
                assert!(clerk.connect(credential, way).await, "credential {credential} is not connected");
            }
        });
    }
    while let Some(done) = clerks.join_next().await {
        done.unwrap();
    }
}

/// Waits until nothing is left to be done.
async fn rest(backing: &Backing, book: &Book, record: &Record, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let glance = backing.glance().await;
        if let Ok(glance) = &glance
            && glance.refreshing == 0
            && glance.revocations == 0
            && book.under_way() == 0
        {
            return;
        }
        if Instant::now() > deadline {
            let left = glance.map(|glance| (glance.refreshing, glance.revocations));
            record.incident(format!("no rest: refreshing and revocations left: {left:?}"));
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn history(site: &Site, backing: &Backing, book: &Book, record: &Record, fleet: &Fleet) -> History {
    let ids: BTreeMap<String, u32> = match backing.glance().await {
        Ok(glance) => {
            glance.ids.into_iter().filter_map(|(id, account)| Some((id, account.parse().ok()?))).collect()
        }
        Err(error) => {
            record.incident(format!("the rows cannot be read: {error}"));
            BTreeMap::new()
        }
    };
    History {
        limits: Limits {
            http_deadline: micros(TIMES.http_deadline),
            dispatch_within: micros(token_broker::domain::provider::DISPATCH_WITHIN),
            settle: micros(TIMES.strict_settle),
            read: micros(READ_LIMIT),
        },
        grants: book.grants(),
        presentations: book.presentations(),
        calls: record.calls(),
        changes: record.changes(),
        reached: fleet.reached(|id| ids.get(id).copied()).await,
        windows: record.windows(),
        rows: backing.rows(site).await,
    }
}
