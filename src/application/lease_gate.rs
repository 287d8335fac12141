//! Between leases and what ends tokens: refreshes and revocations.

use std::time::Duration;

use super::error::{BrokerError, Precondition};
use super::{Broker, metrics};
use crate::domain::coordination::Wake;
use crate::domain::credential::Credential;
use crate::domain::key::CredentialId;
use crate::domain::provider::Provider;
use crate::domain::refresh_policy::Demand;

/// Whether a refresh may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseGate {
    /// Nobody is in its way.
    Go,
    /// The last of the running leases ends then at the latest, and none of them is prolonged any more. Earlier if they
    /// are released: [`Wake::Credential`] tells.
    WaitFor(Duration),
}

/// Not a refresh that is asked for because the token was refused: it takes nothing from anybody, and caps nothing.
pub(super) fn waits_for_leases(demand: Demand) -> bool {
    !matches!(demand, Demand::NewerThan(_))
}

impl Broker {
    /// A gate before the claim. Leases hold up a refresh only where it would end the token that their holders use, and
    /// only while that token lives: a refresh that somebody asks for because the token was refused, or that comes when it
    /// has expired, takes nothing from anybody. Once a refresh waits, leases are capped, so that the wait has an end.
    /// Without an answer of the lease store the refresh goes on: its holders get a 401 and call Refresh.
    pub async fn leases_allow(&self, provider: &Provider, row: &Credential, demand: Demand) -> LeaseGate {
        if !provider.refresh.kills_access || !waits_for_leases(demand) {
            return LeaseGate::Go;
        }
        let Some(tokens) = row.tokens() else { return LeaseGate::Go };
        let now = self.ports.clock.now();
        if !tokens.access_life.is_valid_for(now, Duration::ZERO, provider.refresh.expiry_margin) {
            return LeaseGate::Go;
        }
        match self.ports.leases.cap(row.id).await {
            Ok(Duration::ZERO) => LeaseGate::Go,
            Ok(longest) => {
                metrics::lease("capped");
                LeaseGate::WaitFor(longest)
            }
            Err(error) => {
                tracing::warn!(credential = %row.id, %error, "a refresh does not know of leases");
                LeaseGate::Go
            }
        }
    }

    /// The refresh that leases were capped for is over, or did not come about.
    pub async fn leases_settled(&self, provider: &Provider, id: CredentialId) {
        if provider.refresh.kills_access
            && let Err(error) = self.ports.leases.uncap(id).await
        {
            // The cap is forgotten by itself.
            tracing::warn!(credential = %id, %error, "leases stay capped for a while");
        }
    }

    /// Refuses while the credential is in use. What is not known does not hold up a revocation.
    pub(super) async fn refuse_if_leased(&self, row: &Credential) -> Result<(), BrokerError> {
        if row.tokens().is_none() {
            return Ok(());
        }
        match self.ports.leases.count(row.id).await {
            Ok(0) => Ok(()),
            Ok(leases) => Err(BrokerError::FailedPrecondition(Precondition::Leased { leases })),
            Err(error) => {
                tracing::warn!(credential = %row.id, %error, "a revocation does not know of leases");
                Ok(())
            }
        }
    }

    /// The credential is revoked: nobody has a lease of it any more.
    pub(super) async fn end_leases(&self, id: CredentialId) {
        match self.ports.leases.end_all(id).await {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(credential = %id, ended, "leases ended by a revocation");
                self.ports.wakeups.publish(Wake::Credential(id)).await;
            }
            // Their holders learn from the row when they renew.
            Err(error) => tracing::warn!(credential = %id, %error, "leases could not be ended"),
        }
    }
}
