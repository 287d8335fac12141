//! Step 3's gates: the provider's circuit breaker, a bulkhead that bounds what one brown-out can make ambiguous, and the
//! journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::single_flight::FlightEnd;
use super::{Broker, metrics};
use crate::domain::breaker::Signal;
use crate::domain::circuit::{Circuit, Shut};
use crate::domain::credential::RefreshFailure;
use crate::domain::key::TenantId;
use crate::domain::ports::ProviderFailure;
use crate::domain::provider::{AppKey, Provider, Rotation};

/// So many troubles in a row open the circuit of a provider where each of them keeps a user waiting.
const STRICT_THRESHOLD: u32 = 3;
/// So many do elsewhere.
const THRESHOLD: u32 = 5;

/// How soon to come back when a provider's endpoints are not known.
const GATE_RETRY: Duration = Duration::from_secs(1);

/// The right to one call.
pub(super) struct Slot {
    gate: Arc<Gate>,
    /// For whom.
    tenant: TenantId,
    /// Held until the answer is there.
    place: Option<OwnedSemaphorePermit>,
    /// It finds out whether the provider is back; until then everybody else is refused.
    probes: bool,
}

struct Gate {
    app: AppKey,
    places: Arc<Semaphore>,
    circuit: Mutex<Circuit>,
}

/// So many gates are kept, of the operator's providers and of tenants' own. Beyond that, tenants' own that nobody is in are made anew
/// when they are needed: first those that are open to all, then the others.
const KEPT: usize = 4_096;

/// One gate for each app: what one tenant's app runs into holds up no other.
pub(super) struct Gates {
    places: usize,
    gates: Mutex<HashMap<AppKey, Arc<Gate>>>,
}

impl Broker {
    /// The provider is known, and there is a place; the journal can be written.
    pub(super) async fn pass_gates(&self, provider: &Provider, tenant: &TenantId) -> Result<Slot, FlightEnd> {
        let shut = |why, retry_after| FlightEnd::ProviderUnavailable { why, retry_after };
        // A discovered endpoint is looked up now: after the claim the request must leave at once.
        if let Err(failure) = self.ports.oauth.endpoints(provider).await {
            tracing::warn!(provider = %provider.id, %failure, "the provider's endpoints could not be discovered");
            return Err(shut(RefreshFailure::ProviderUnavailable, GATE_RETRY));
        }
        if let Err(error) = self.ports.journal.ready().await {
            tracing::error!(%error, "the journal can't be written: no refresh begins");
            metrics::journal_error();
            return Err(FlightEnd::StorageUnavailable);
        }
        self.gates
            .pass(provider, tenant, || self.ports.clock.monotonic(), self.settings.max_wait)
            .await
            .map_err(|refused| shut(refused.why, refused.retry_after))
    }
}

impl Gates {
    /// `places`: calls at a time per provider.
    pub(super) fn new(places: usize) -> Self {
        Self { places, gates: Mutex::default() }
    }

    /// Waits for a place, at most `patience`; refused at once while the circuit is open.
    pub(super) async fn pass(
        &self,
        provider: &Provider,
        tenant: &TenantId,
        now: impl Fn() -> Duration,
        patience: Duration,
    ) -> Result<Slot, Shut> {
        let gate = self.gate(provider, now());
        gate.circuit().admits(tenant, now())?;
        let place = tokio::time::timeout(patience, Arc::clone(&gate.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Shut { why: RefreshFailure::ProviderUnavailable, retry_after: patience });
        };
        // It may have opened meanwhile; and only who has a place can be the probe.
        let probes = gate.circuit().admit(tenant, now())?;
        Ok(Slot { gate, tenant: tenant.clone(), place: Some(place), probes })
    }

    /// How many calls the background may begin: a quarter of the places stays free for readers.
    pub(super) fn room_for_background(&self, provider: &Provider, now: Duration) -> usize {
        let gate = self.gate(provider, now);
        if gate.circuit().admits_some(now).is_err() {
            return 0;
        }
        gate.places.available_permits().saturating_sub(self.places / 4)
    }

    /// Whether nobody knows of a call that would be answered: see [`Circuit::is_in_doubt`].
    pub(super) fn are_in_doubt(&self, provider: &Provider, now: Duration) -> bool {
        self.gate(provider, now).circuit().is_in_doubt()
    }

    fn gate(&self, provider: &Provider, now: Duration) -> Arc<Gate> {
        let app = provider.app();
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&app) {
            return Arc::clone(gate);
        }
        if gates.len() >= KEPT {
            let stays =
                |app: &AppKey, gate: &Arc<Gate>| app.configuration.is_none() || Arc::strong_count(gate) > 1;
            gates.retain(|app, gate| stays(app, gate) || gate.circuit().admits_some(now).is_err());
            if gates.len() >= KEPT {
                gates.retain(|app, gate| stays(app, gate));
            }
        }
        let threshold = match provider.refresh.rotation {
            Rotation::Strict => STRICT_THRESHOLD,
            Rotation::None | Rotation::Grace(_) => THRESHOLD,
        };
        let gate = Arc::new(Gate {
            app: app.clone(),
            places: Arc::new(Semaphore::new(self.places)),
            circuit: Mutex::new(Circuit::new(threshold, app.configuration.is_none())),
        });
        gates.insert(app, Arc::clone(&gate));
        gate
    }
}

impl Gate {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, tenant: &TenantId, now: Duration, signal: Signal, why: RefreshFailure) {
        let mut circuit = self.circuit();
        let (before, was_in_doubt) = (circuit.is_open(), circuit.is_in_doubt());
        circuit.record(tenant, now, signal, why);
        let (after, in_doubt) = (circuit.is_open(), circuit.is_in_doubt());
        drop(circuit);
        if in_doubt != was_in_doubt {
            metrics::circuit(&self.app, in_doubt);
        }
        let AppKey { provider, configuration } = &self.app;
        let configuration = configuration.map(|(id, _)| id.to_string());
        if before != after {
            if after {
                tracing::error!(%provider, configuration, ?why, "the circuit opens: the provider is left alone");
            } else {
                tracing::info!(%provider, configuration, "the circuit closes");
            }
        } else if !after && matches!(signal, Signal::ClientRejected | Signal::RetryAfter(_)) {
            tracing::error!(%provider, %tenant, ?why, "the circuit opens for one tenant: no other was told so");
        }
    }
}

impl Slot {
    /// The call is over.
    pub(super) fn done(&mut self, now: Duration, failure: Option<ProviderFailure>) {
        self.place = None;
        self.probes = false;
        let (signal, why) = match failure {
            None | Some(ProviderFailure::InvalidGrant | ProviderFailure::Refused) => {
                (Signal::Answered, RefreshFailure::ProviderUnavailable)
            }
            Some(ProviderFailure::ClientRejected) => (Signal::ClientRejected, RefreshFailure::ClientRejected),
            Some(ProviderFailure::NotSent | ProviderFailure::Ambiguous) => {
                (Signal::Trouble, RefreshFailure::ProviderUnavailable)
            }
            // Without a Retry-After the limit may be that of one user.
            Some(ProviderFailure::RateLimited { retry_after: None }) => {
                (Signal::Answered, RefreshFailure::RateLimited)
            }
            Some(ProviderFailure::RateLimited { retry_after: Some(after) }) => {
                (Signal::RetryAfter(after), RefreshFailure::RateLimited)
            }
        };
        self.gate.record(&self.tenant, now, signal, why);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.probes {
            // Nothing was sent: another may probe. The time of the opening is over by now.
            self.gate.circuit().give_back(&self.tenant, Duration::ZERO);
        }
    }
}
