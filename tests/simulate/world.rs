//! Several brokers over one database, one permit store and one provider. Brokers die and others start in their place, which
//! take over their journals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use token_broker::application::{Broker, LeaseSettings, Ports, Settings, WatchSettings};
use token_broker::domain::access_policy::{Caller, Principal, Rule};
use token_broker::domain::audit::NoAudit;
use token_broker::domain::coordination::FormerRun;
use token_broker::domain::key::{CallerId, ClaimOwner, ProviderId, TenantId};
use token_broker::domain::provider::{Provider, TimingLimits};
use token_broker::domain::step::Step;
use token_broker::infra::coordination::local::{LocalLeases, LocalPermits, LocalWakeups};
use token_broker::infra::providers::ConfiguredProviders;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::copies::Copies;
use super::dice::Dice;
use super::fakes::MemoryStore;
use super::faults::{Fault, Faults, Plan};
use super::link::{Link, SimClock};
use super::ports::{JournalPort, OAuthPort, PermitsPort, PlainCipher, WakeupsPort};
use super::provider::SimProvider;
use super::provider_by_hand::provider_at;
use super::store_port::StorePort;

pub(crate) const HTTP_DEADLINE: Duration = Duration::from_secs(16);
pub(crate) const SETTLE: Duration = Duration::from_secs(60);
/// The longest pause of a broker: with the rest it must end before a claim settles.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A broker that has died is replaced within this time.
const RESTART: Duration = Duration::from_secs(10);
/// An outage lasts at most this long.
const OUTAGE: Duration = Duration::from_secs(20);

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The brokers as they are.
    Real,
    /// The permit is a lock with an expiry, and no claim is recorded.
    LockOnly,
}

/// One replica.
#[derive(Clone)]
struct Site {
    broker: Arc<Broker>,
    link: Arc<Link>,
    journal: Arc<JournalPort>,
    /// Journals that were taken over and are not replayed yet.
    former: Vec<FormerRun>,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    pub(crate) protocol: Protocol,
    pub(crate) store: MemoryStore,
    pub(crate) provider: SimProvider,
    pub(crate) wakeups: LocalWakeups,
    pub(crate) copies: Copies,
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) began: Instant,
    permits: Mutex<Arc<LocalPermits>>,
    permits_away_until: Mutex<Instant>,
    database_away_until: Mutex<Instant>,
    sites: Mutex<Vec<Site>>,
    deaths: mpsc::UnboundedSender<usize>,
    crashes: Mutex<VecDeque<(Step, u32)>>,
    pub(crate) dead: Mutex<Vec<ClaimOwner>>,
    /// Database commits that were lost.
    pub(crate) rollbacks: Mutex<u32>,
}

pub(crate) fn provider_id() -> ProviderId {
    ProviderId::new("acme").unwrap()
}

fn provider() -> Provider {
    let mut provider = provider_at("https://as.example");
    provider.id = provider_id();
    provider.refresh.expiry_margin = Duration::from_secs(2);
    provider
}

pub(crate) fn caller() -> Principal {
    let (id, tenant) = (CallerId::new("agents").unwrap(), TenantId::new("tenant").unwrap());
    Caller::new(id, tenant, vec![Rule::everything()]).into()
}

fn settings() -> Settings {
    Settings {
        public_base_url: "https://broker.example".parse().unwrap(),
        return_urls: Vec::new(),
        refresh_ahead: Duration::from_secs(8),
        active_window: Duration::from_hours(24),
        provider_concurrency: 32,
        timings: TimingLimits { http_deadline: HTTP_DEADLINE, strict_settle: SETTLE },
        flow_lifetime: Duration::from_mins(10),
        max_wait: Duration::from_millis(800),
        leases: LeaseSettings::default(),
        watches: WatchSettings::default(),
        configured_callers: Vec::new(),
        bindings: Vec::new(),
        login: None,
    }
}

impl World {
    /// Brokers included; faults come as the seed says.
    pub(crate) fn start(seed: u64, protocol: Protocol, length: Duration) -> Arc<Self> {
        let dice = Dice::new(seed);
        let plan = Plan::draw(&dice, length);
        let began = Instant::now();
        let (deaths, died) = mpsc::unbounded_channel();
        let world = Arc::new(Self {
            dice,
            protocol,
            store: MemoryStore::default(),
            provider: SimProvider::default(),
            wakeups: LocalWakeups::default(),
            copies: Copies::default(),
            violations: Mutex::default(),
            began,
            permits: Mutex::new(Arc::new(LocalPermits::new(Arc::new(SimClock(began))))),
            permits_away_until: Mutex::new(began),
            database_away_until: Mutex::new(began),
            sites: Mutex::default(),
            deaths,
            crashes: Mutex::new(plan.crashes.iter().copied().collect()),
            dead: Mutex::default(),
            rollbacks: Mutex::new(0),
            faults: Faults::new(plan),
        });
        for site in 0..world.faults.plan.brokers {
            let broker = world.new_site(site, Vec::new());
            world.sites.lock().unwrap().push(broker);
        }
        tokio::spawn(restart(Arc::clone(&world), died));
        tokio::spawn(strike(Arc::clone(&world)));
        world
    }

    fn new_site(self: &Arc<Self>, site: usize, former: Vec<FormerRun>) -> Site {
        let mut owner = [0; 16];
        token_broker::domain::ports::Entropy::fill(&self.dice, &mut owner);
        let owner = ClaimOwner::from_random(owner);
        let crash = if self.faults.are_over() { None } else { self.crashes.lock().unwrap().pop_front() };
        let link = Link::new(self, owner, site, crash);
        let clock = Arc::new(SimClock(self.began));
        let journal = JournalPort::new(Arc::clone(&link));
        let store = Arc::new(StorePort(Arc::clone(&link)));
        let ports = Ports {
            audit: Arc::new(NoAudit),
            audit_archive: None,
            clock: clock.clone(),
            entropy: Arc::new(SharedDice(Arc::clone(self))),
            credentials: store.clone(),
            // No consent in a browser takes part.
            flows: Arc::new(MemoryStore::default()),
            outbox: store,
            // Nobody watches.
            events: Arc::new(MemoryStore::default()),
            callers: Arc::new(MemoryStore::default()),
            tenants: Arc::new(MemoryStore::default()),
            provider_configs: Arc::new(MemoryStore::default()),
            cipher: Arc::new(PlainCipher),
            oauth: Arc::new(OAuthPort(Arc::clone(&link))),
            providers: Arc::new(ConfiguredProviders::of([Arc::new(provider())])),
            permits: Arc::new(PermitsPort(Arc::clone(&link))),
            journal: journal.clone(),
            wakeups: Arc::new(WakeupsPort(Arc::clone(&link))),
            leases: Arc::new(LocalLeases::new(clock)),
            steps: link.clone(),
        };
        let broker = Broker::new(ports, settings(), owner, TaskTracker::new());
        if !former.is_empty() {
            broker.begin_replay();
            tokio::spawn(replay(Arc::clone(self), site, Arc::clone(&broker), former.clone()));
        }
        tokio::spawn(background(Arc::clone(self), Arc::clone(&broker), Arc::clone(&link)));
        Site { broker, link, journal, former }
    }

    /// One of the replicas, dead or alive.
    pub(crate) fn any_broker(&self) -> Arc<Broker> {
        let sites = self.sites.lock().unwrap();
        let chosen = usize::try_from(self.dice.below(sites.len() as u64)).unwrap();
        Arc::clone(&sites[chosen].broker)
    }

    fn any_link(&self) -> Arc<Link> {
        let sites = self.sites.lock().unwrap();
        let chosen = usize::try_from(self.dice.below(sites.len() as u64)).unwrap();
        Arc::clone(&sites[chosen].link)
    }

    /// A replica has died.
    pub(crate) fn died(&self, site: usize) {
        // Nobody restarts it when the run has ended.
        let _ = self.deaths.send(site);
    }

    pub(crate) fn permits(&self) -> Arc<LocalPermits> {
        Arc::clone(&self.permits.lock().unwrap())
    }

    pub(crate) fn permits_are_away(&self) -> bool {
        *self.permits_away_until.lock().unwrap() > Instant::now()
    }

    pub(crate) fn database_is_away(&self) -> bool {
        *self.database_away_until.lock().unwrap() > Instant::now()
    }

    /// For whoever looks at one seed.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        tracing::info!("{:?}: {what}", self.began.elapsed());
    }

    pub(crate) fn happened(&self, fault: Fault) {
        self.note(format_args!("{fault:?}"));
        self.faults.happened(fault);
    }

    pub(crate) fn violated(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    /// Whether every replica lives and has replayed what it took over.
    pub(crate) fn is_whole(&self) -> bool {
        self.sites.lock().unwrap().iter().all(|site| !site.link.is_dead() && site.former.is_empty())
    }

    /// From now on nothing goes wrong.
    pub(crate) fn end_faults(&self) {
        self.faults.end();
        let now = Instant::now();
        *self.permits_away_until.lock().unwrap() = now;
        *self.database_away_until.lock().unwrap() = now;
        for site in self.sites.lock().unwrap().iter() {
            site.link.heal();
        }
    }

    /// Lets go of the brokers, which know the world that knows them.
    pub(crate) fn take_down(&self) {
        self.sites.lock().unwrap().clear();
    }

    fn strike_with(&self, fault: Fault) {
        let until = |most| Instant::now() + self.dice.up_to(most);
        match fault {
            Fault::PermitsWiped => {
                *self.permits.lock().unwrap() = Arc::new(LocalPermits::new(Arc::new(SimClock(self.began))));
                self.copies.permits_wiped();
            }
            Fault::PermitsUnreachable => *self.permits_away_until.lock().unwrap() = until(OUTAGE),
            Fault::DatabaseAway => *self.database_away_until.lock().unwrap() = until(OUTAGE),
            Fault::Pause => self.any_link().stand_still(self.dice.up_to(LONGEST_PAUSE)),
            Fault::JournalFull => self.any_link().fill_disk(self.dice.up_to(OUTAGE)),
            Fault::Crash => self.any_link().kill(),
            Fault::DatabaseRolledBack => {
                // A consent that is lost with its commit is the user's to repeat: only the refreshes' and the revocations'
                // are healed.
                let rolled_back = self.store.rollback_last_commit(|before, after| {
                    let grants = |rows: &[token_broker::domain::credential::Credential]| {
                        rows.iter().map(|row| (row.id, row.grant_id)).collect::<BTreeMap<_, _>>()
                    };
                    before != after && grants(before) == grants(after)
                });
                if !rolled_back {
                    return;
                }
                *self.rollbacks.lock().unwrap() += 1;
            }
            other => unreachable!("{other:?} is no event"),
        }
        self.happened(fault);
    }
}

/// The broker's randomness.
struct SharedDice(Arc<World>);

impl token_broker::domain::ports::Entropy for SharedDice {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.dice.fill(buffer);
    }
}

/// The planned events.
async fn strike(world: Arc<World>) {
    for (at, fault) in world.faults.plan.events.clone() {
        tokio::time::sleep_until(world.began + at).await;
        if world.faults.are_over() {
            return;
        }
        world.strike_with(fault);
    }
}

/// Starts a broker in the place of each that has died.
async fn restart(world: Arc<World>, mut died: mpsc::UnboundedReceiver<usize>) {
    while let Some(site) = died.recv().await {
        sleep(world.dice.between(Duration::from_millis(500), RESTART)).await;
        let Some(old) = world.sites.lock().unwrap().get(site).cloned() else { return };
        world.dead.lock().unwrap().push(old.link.owner);
        let mut former = old.former;
        former.push(old.journal.left_behind());
        let new = world.new_site(site, former);
        if let Some(place) = world.sites.lock().unwrap().get_mut(site) {
            *place = new;
        }
    }
}

async fn replay(world: Arc<World>, site: usize, broker: Arc<Broker>, former: Vec<FormerRun>) {
    for run in &former {
        broker.replay(run).await;
    }
    broker.end_replay();
    if let Some(place) = world.sites.lock().unwrap().get_mut(site)
        && Arc::ptr_eq(&place.broker, &broker)
    {
        place.former.clear();
    }
}

/// What every replica does by itself, less often than in earnest.
async fn background(world: Arc<World>, broker: Arc<Broker>, link: Arc<Link>) {
    while !link.is_dead() {
        sleep(world.dice.between(Duration::from_secs(6), Duration::from_secs(20))).await;
        broker.sweep().await;
        broker.refresh_due().await;
    }
}
