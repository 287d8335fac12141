//! The keys of one issuer, kept, renewed and dropped.
//!
//! - They are renewed in the background while the old ones serve; nobody waits but the first.
//! - A token that names a key that is not there makes the broker look for it, at most once in a while, however many such
//!   tokens come: anybody can make up key ids.
//! - An issuer that is down costs nothing while its keys are young enough; then its tokens can't be verified, which is an
//!   outage and not the callers' fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, Shared};

use super::fetch::{KeyAccess, KeyLocation, fetch};
use super::jwks::{Key, Uses};
use crate::domain::ports::Clock;
use crate::infra::outbound::Http;

/// An issuer that failed to tell its keys when there were none is not asked again before.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);
/// A file is so cheap to read that it is read anew as often as the files of TLS.
const FILE_REFRESH: Duration = Duration::from_secs(5);

/// How long keys are kept.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// Keys of this age are renewed.
    pub refresh: Duration,
    /// Keys of this age are good no more, whatever the issuer does or does not.
    pub max_age: Duration,
    /// A key that is not there is looked for at most so often.
    pub unknown_key_pause: Duration,
}

/// There are no keys to verify with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoKeys;

/// The keys that the issuer had at one time.
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// Another for each fetch: what was verified with the keys of one is verified anew with those of the next.
    pub(super) generation: u64,
}

/// See the module. Times are the clock's monotonic ones.
pub(super) struct Keys {
    issuer: String,
    access: KeyAccess,
    uses: Uses,
    http: Http,
    clock: Arc<dyn Clock>,
    times: KeyTimes,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Option<(Arc<KeySet>, Duration)>,
    attempted_at: Option<Duration>,
    generation: u64,
    /// The fetch that everybody waits for who waits.
    running: Option<Shared<BoxFuture<'static, ()>>>,
}

impl Keys {
    pub(super) fn new(
        issuer: String,
        access: KeyAccess,
        uses: Uses,
        http: Http,
        clock: Arc<dyn Clock>,
        times: KeyTimes,
    ) -> Arc<Self> {
        let times = match access.location {
            KeyLocation::File(_) => KeyTimes {
                refresh: times.refresh.min(FILE_REFRESH),
                unknown_key_pause: times.unknown_key_pause.min(FILE_REFRESH),
                ..times
            },
            KeyLocation::Url(_) | KeyLocation::Discovered(_) => times,
        };
        Arc::new(Self { issuer, access, uses, http, clock, times, state: Mutex::default() })
    }

    /// The keys as they are known. Waits only if there are none.
    pub(super) async fn known(self: &Arc<Self>) -> Result<Arc<KeySet>, NoKeys> {
        let running = {
            let mut state = self.state();
            let now = self.clock.monotonic();
            let pause = |attempted: Option<Duration>, pause| {
                attempted.is_none_or(|at| now.saturating_sub(at) >= pause)
            };
            match self.usable(&state, now) {
                Some((set, age)) => {
                    let due = age >= self.times.refresh && state.running.is_none();
                    // A failed renewal is tried again after a tenth of the time.
                    if due && pause(state.attempted_at, self.times.refresh / 10) {
                        let _in_its_own_task = self.begin(&mut state, now);
                    }
                    return Ok(set);
                }
                None => match &state.running {
                    Some(running) => running.clone(),
                    None if pause(state.attempted_at, FAILURE_PAUSE) => self.begin(&mut state, now),
                    None => return Err(NoKeys),
                },
            }
        };
        running.await;
        let state = self.state();
        self.usable(&state, self.clock.monotonic()).map(|(set, _)| set).ok_or(NoKeys)
    }

    /// The keys after a look for one that `set` does not have; the same ones if it is too early for another look.
    pub(super) async fn sought(self: &Arc<Self>, set: Arc<KeySet>) -> Arc<KeySet> {
        let running = {
            let mut state = self.state();
            let now = self.clock.monotonic();
            match &state.set {
                // Somebody else has just looked.
                Some((newer, _)) if newer.generation != set.generation => return Arc::clone(newer),
                _ => {}
            }
            let pause = self.times.unknown_key_pause;
            match &state.running {
                Some(running) => running.clone(),
                None if state.attempted_at.is_some_and(|at| now.saturating_sub(at) < pause) => return set,
                None => self.begin(&mut state, now),
            }
        };
        running.await;
        self.state().set.as_ref().map_or(set, |(set, _)| Arc::clone(set))
    }

    fn usable(&self, state: &State, now: Duration) -> Option<(Arc<KeySet>, Duration)> {
        let (set, fetched_at) = state.set.as_ref()?;
        let age = now.saturating_sub(*fetched_at);
        (age < self.times.max_age).then(|| (Arc::clone(set), age))
    }

    /// In a task of its own: who hangs up while waiting ends it for nobody.
    fn begin(self: &Arc<Self>, state: &mut State, now: Duration) -> Shared<BoxFuture<'static, ()>> {
        state.attempted_at = Some(now);
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.renew().await });
        let running = task.map(|_| ()).boxed().shared();
        state.running = Some(running.clone());
        running
    }

    async fn renew(&self) {
        let fetched = fetch(&self.http, &self.access, self.uses).await;
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!("token_broker_jwks_fetches_total", "issuer" => self.issuer.clone(), "outcome" => outcome)
            .increment(1);
        let mut state = self.state();
        state.running = None;
        match fetched {
            Ok(keys) => {
                state.generation += 1;
                let set = KeySet { keys, generation: state.generation };
                tracing::debug!(issuer = self.issuer, keys = set.keys.len(), "keys fetched");
                state.set = Some((Arc::new(set), self.clock.monotonic()));
            }
            Err(problem) => {
                tracing::warn!(issuer = self.issuer, %problem, "the keys of an issuer could not be fetched");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
