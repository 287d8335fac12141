//! AcquireLease, RenewLease, ReleaseLease.
//!
//! A lease says that a token is in use until a time. It is advice: at a provider where a refresh ends the token before,
//! refreshes wait for it (`lease_gate.rs`), and a revocation without force is refused. It never keeps a caller from its
//! token: without an answer of the lease store the token is handed out with a lease that is marked as unprotected. What is
//! lost with the lease store costs one 401 and one Refresh.
//!
//! A lease is registered before the token is read that goes with it. So whatever refresh does not see the lease has ended
//! by then, or its claim is in the row already.

use std::sync::Arc;
use std::time::Duration;

use super::endings::later;
use super::error::{BrokerError, LostLease, Precondition};
use super::target::Target;
use super::token_answer::Reading;
use super::types::{
    AccessGrant, AcquireInput, AuthorizationRequired, ConsentReason, LeaseAnswer, LeaseTarget, LeaseView,
    RenewInput,
};
use super::{Broker, metrics};
use crate::domain::access_policy::{Action, Principal};
use crate::domain::coordination::{CoordinationError, LeaseTerm, Wake};
use crate::domain::key::{CredentialId, LeaseId};
use crate::domain::refresh_policy::Demand;
use crate::domain::scope::ScopeSet;

/// How long leases stand.
#[derive(Debug, Clone, Copy)]
pub struct LeaseSettings {
    /// Unless the caller says otherwise.
    pub default_ttl: Duration,
    /// Whatever the caller says.
    pub max_ttl: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self { default_ttl: Duration::from_secs(60), max_ttl: Duration::from_secs(600) }
    }
}

/// How often a lease is asked for while a refresh is about to begin.
const ATTEMPTS: u32 = 3;

impl Broker {
    /// A token that is left alone for a while, or the need to consent.
    pub async fn acquire_lease(
        self: &Arc<Self>,
        principal: &Principal,
        input: AcquireInput,
    ) -> Result<LeaseAnswer, BrokerError> {
        let target = self.target(principal, Action::AcquireLease, input.key, &input.scopes).await?;
        let required = target.service_scopes.union(&input.scopes);
        let wanted = self.lease_time(input.ttl);
        let time_left = input.time_left;
        // Where a refresh takes nothing from anybody the token may as well be one that outlives the lease.
        let needed =
            if target.provider.refresh.kills_access { input.min_ttl } else { input.min_ttl.max(wanted) };
        let lease = LeaseId::from_random(self.random());
        let mut granted = None;
        for _ in 0..ATTEMPTS {
            let grant = match self.read(&target, Demand::ValidFor(needed), &required, time_left).await? {
                Ok(grant) => grant,
                Err(required) => return Ok(LeaseAnswer::AuthorizationRequired(required)),
            };
            let Some(id) = self.credential_id(&target).await? else { continue };
            let ttl = self.within_life(&target, &grant, wanted);
            match self.ports.leases.acquire(id, lease, ttl).await {
                Ok(Some(term)) => granted = Some((id, term)),
                // A refresh is about to begin, and nobody stands in its way: its token will do.
                Ok(None) => {
                    self.await_refresh(id, time_left).await;
                    continue;
                }
                Err(error) => lease_store_failed(&error),
            }
            break;
        }
        let grant = match self.read(&target, Demand::ValidFor(Duration::ZERO), &required, time_left).await? {
            Ok(grant) => grant,
            Err(required) => {
                if let Some((id, _)) = granted {
                    self.give_back_lease(id, lease).await;
                }
                return Ok(LeaseAnswer::AuthorizationRequired(required));
            }
        };
        metrics::lease(if granted.is_some() { "acquired" } else { "unprotected" });
        let lease = self.view_lease(&target, &grant, lease, granted.map(|(_, term)| term), wanted);
        Ok(LeaseAnswer::Leased { grant, lease })
    }

    /// The token as it is now, and more time.
    pub async fn renew_lease(
        self: &Arc<Self>,
        principal: &Principal,
        input: RenewInput,
    ) -> Result<(Box<AccessGrant>, LeaseView), BrokerError> {
        let LeaseTarget { key, lease } = input.lease;
        let target = self.target(principal, Action::RenewLease, key, &ScopeSet::default()).await?;
        let wanted = self.lease_time(input.ttl);
        let required = target.service_scopes.clone();
        let grant =
            match self.read(&target, Demand::ValidFor(Duration::ZERO), &required, input.time_left).await? {
                Ok(grant) => grant,
                Err(why) => return Err(lost(LostLease::NoToken(why.reason))),
            };
        let Some(id) = self.credential_id(&target).await? else {
            return Err(lost(LostLease::NoToken(ConsentReason::NotConnected)));
        };
        let ttl = self.within_life(&target, &grant, wanted);
        let term = match self.ports.leases.renew(id, lease, ttl).await {
            Ok(Some(term)) => Some(term),
            Ok(None) => return Err(lost(LostLease::Ended)),
            Err(error) => {
                lease_store_failed(&error);
                None
            }
        };
        metrics::lease(if term.is_some() { "renewed" } else { "unprotected" });
        let lease = self.view_lease(&target, &grant, lease, term, wanted);
        Ok((grant, lease))
    }

    /// Whether there was such a lease. A store that does not answer forgets it in time.
    pub async fn release_lease(
        &self,
        principal: &Principal,
        input: LeaseTarget,
    ) -> Result<bool, BrokerError> {
        let target = self.target(principal, Action::ReleaseLease, input.key, &ScopeSet::default()).await?;
        let Some(id) = self.credential_id(&target).await? else { return Ok(false) };
        Ok(self.give_back_lease(id, input.lease).await)
    }

    async fn give_back_lease(&self, id: CredentialId, lease: LeaseId) -> bool {
        let released = self.ports.leases.release(id, lease).await.unwrap_or_else(|error| {
            lease_store_failed(&error);
            false
        });
        if released {
            metrics::lease("released");
            // A refresh may have waited for it.
            self.ports.wakeups.publish(Wake::Credential(id)).await;
        }
        released
    }

    /// The token, or why the user must consent.
    async fn read(
        self: &Arc<Self>,
        target: &Target,
        demand: Demand,
        required: &ScopeSet,
        time_left: Option<Duration>,
    ) -> Result<Result<Box<AccessGrant>, AuthorizationRequired>, BrokerError> {
        match self.read_token(target, demand, required, time_left).await? {
            Reading::Token(grant) => Ok(Ok(grant)),
            Reading::Missing(missing) => Ok(Err(self.explain(target, missing).await?)),
        }
    }

    async fn credential_id(&self, target: &Target) -> Result<Option<CredentialId>, BrokerError> {
        Ok(self.ports.credentials.load(&target.key).await?.map(|row| row.id))
    }

    /// Waits for the refresh that keeps leases away, as long as a reader would.
    async fn await_refresh(self: &Arc<Self>, id: CredentialId, time_left: Option<Duration>) {
        let patience = time_left.map_or(self.settings.max_wait, |left| left.min(self.settings.max_wait));
        let flight = self.start_refresh(id, Demand::Ahead);
        // Its end says nothing that the next attempt does not find out.
        let _ = tokio::time::timeout(patience / ATTEMPTS, flight.end()).await;
    }

    fn lease_time(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.settings.leases.default_ttl).min(self.settings.leases.max_ttl)
    }

    /// A lease ends with its token.
    fn within_life(&self, target: &Target, grant: &AccessGrant, wanted: Duration) -> Duration {
        let Some(end) = grant.expires_at else { return wanted };
        let left = Duration::try_from(end.duration_since(self.ports.clock.now())).unwrap_or_default();
        wanted.min(left.saturating_sub(target.provider.refresh.expiry_margin))
    }

    fn view_lease(
        &self,
        target: &Target,
        grant: &AccessGrant,
        id: LeaseId,
        term: Option<LeaseTerm>,
        wanted: Duration,
    ) -> LeaseView {
        let lasts = term.map_or_else(|| self.within_life(target, grant, wanted), |term| term.lasts);
        LeaseView {
            id,
            expires_at: later(self.ports.clock.now(), lasts),
            capped: term.is_some_and(|term| term.capped),
            unprotected: term.is_none(),
        }
    }
}

fn lost(why: LostLease) -> BrokerError {
    metrics::lease("lost");
    BrokerError::FailedPrecondition(Precondition::LeaseLost(why))
}

fn lease_store_failed(error: &CoordinationError) {
    tracing::warn!(%error, "the lease store does not answer");
}
