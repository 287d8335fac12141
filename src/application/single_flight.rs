//! One refresh per credential in this process: everybody else waits for its end and reads the row again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::domain::credential::RefreshFailure;
use crate::domain::key::CredentialId;

/// How a flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlightEnd {
    /// The row says it all.
    SeeRow,
    /// The database did not answer before anything was sent.
    StorageUnavailable,
    /// The provider's endpoints are not known, or it is left alone for a while; nothing was claimed or sent.
    ProviderUnavailable {
        /// Why not.
        why: RefreshFailure,
        /// When to come back.
        retry_after: Duration,
    },
    /// The token was presented, and what came of it is not known before this time.
    OutcomeUnknown {
        /// When it is settled.
        settle_at: Timestamp,
    },
    /// Another replica has it, for longer than readers wait.
    Elsewhere,
    /// Callers hold leases of a token that is alive, and that a refresh would end.
    Leased {
        /// When the last of them ends.
        retry_after: Duration,
    },
    /// The row's secrets do not open.
    DataLoss,
    /// The task panicked, or was ended with the process.
    Broken,
}

/// Somebody's refresh.
#[derive(Clone)]
pub(super) struct Flight(watch::Receiver<Option<FlightEnd>>);

impl Flight {
    /// Waits for its end.
    pub(super) async fn end(mut self) -> FlightEnd {
        match self.0.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(FlightEnd::Broken),
            // The sender is gone without a word: the task panicked.
            Err(_) => FlightEnd::Broken,
        }
    }
}

/// The refreshes under way in this process.
#[derive(Default)]
pub(super) struct Flights {
    running: Arc<Mutex<HashMap<CredentialId, Flight>>>,
}

/// Takes the flight off the list, also when its task panics.
struct Landing {
    running: Arc<Mutex<HashMap<CredentialId, Flight>>>,
    id: CredentialId,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Flights {
    /// The refresh of this credential that is under way, if any.
    #[cfg(test)]
    fn current(&self, id: CredentialId) -> Option<Flight> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Joins the refresh that is under way, or starts one in a task of its own: a caller that hangs up ends nothing.
    pub(super) fn join_or_start<F>(
        &self,
        tasks: &TaskTracker,
        id: CredentialId,
        work: impl FnOnce() -> F,
    ) -> Flight
    where
        F: Future<Output = FlightEnd> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let flight = Flight(receiver);
        match self.running.lock().unwrap_or_else(PoisonError::into_inner).entry(id) {
            Entry::Occupied(running) => return running.get().clone(),
            Entry::Vacant(free) => free.insert(flight.clone()),
        };
        // The list is unlocked by now: a runtime that is stopping drops the task while it is spawned, and the landing
        // locks the list.
        let landing = Landing { running: Arc::clone(&self.running), id };
        let work = work();
        tasks.spawn(async move {
            let end = work.await;
            // Off the list before the word is out: whoever hears it and must ask again starts a new one.
            drop(landing);
            sender.send_replace(Some(end));
        });
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn id() -> CredentialId {
        CredentialId::from_random([7; 16])
    }

    #[tokio::test]
    async fn joiners_share_one_flight_and_the_next_starts_anew() {
        let (flights, tasks) = (Flights::default(), TaskTracker::new());
        let (release, gate) = watch::channel(false);
        let runs = Arc::new(AtomicU32::new(0));
        let start = || {
            let (mut gate, runs) = (gate.clone(), Arc::clone(&runs));
            flights.join_or_start(&tasks, id(), || async move {
                runs.fetch_add(1, Ordering::SeqCst);
                gate.wait_for(|open| *open).await.unwrap();
                FlightEnd::SeeRow
            })
        };
        let joined: Vec<_> = (0..50).map(|_| start()).collect();
        assert!(flights.current(id()).is_some());
        release.send_replace(true);
        for flight in joined {
            assert_eq!(flight.end().await, FlightEnd::SeeRow);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flights.current(id()).is_none());
        assert_eq!(start().end().await, FlightEnd::SeeRow);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_runtime_that_has_stopped_ends_the_flight_at_once() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            let handle = runtime.handle().clone();
            drop(runtime);
            let _entered = handle.enter();
            let (flights, tasks) = (Flights::default(), TaskTracker::new());
            // The runtime drops the task before `spawn` returns.
            flights.join_or_start(&tasks, id(), || async { FlightEnd::SeeRow });
            done.send(flights.current(id()).is_none()).unwrap();
        });
        assert_eq!(ended.recv_timeout(std::time::Duration::from_secs(10)), Ok(true), "it waits for itself");
    }

    #[tokio::test]
    async fn a_panic_ends_the_flight_for_everybody() {
        let (flights, tasks) = (Flights::default(), TaskTracker::new());
        let flight = flights.join_or_start(&tasks, id(), || async { panic!("on purpose") });
        assert_eq!(flight.end().await, FlightEnd::Broken);
        assert!(flights.current(id()).is_none());
    }
}
