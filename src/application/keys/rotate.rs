//! New data keys, and data keys under another key-encryption key.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Keys, Whose, administered};
use crate::application::endings::later;
use crate::application::error::{BrokerError, Precondition};
use crate::domain::access_policy::Principal;
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, Rewrapped};
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;

/// How many data keys are read at one time.
const PAGE: u32 = 1000;
/// How old a tenant's active data key must be before an operator of that tenant alone may have another one.
const BETWEEN_ROTATIONS: Duration = Duration::from_hours(1);
/// How many data keys one call wraps anew: each is up to three calls to key services.
const REWRAPPED_AT_ONCE: u32 = 50;

/// A tenant has another data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Whose.
    pub tenant: TenantId,
    /// The one that is active now.
    pub data_key: DataKeyId,
}

impl Keys {
    /// Gives a tenant, or every tenant that has one, another active data key, and asks for the rows to be moved to it. What
    /// ends halfway has been done as far as it came; again is another rotation, which does no harm.
    pub async fn rotate(&self, principal: &Principal, whose: Whose) -> Result<Vec<Rotated>, BrokerError> {
        let tenants = match administered(principal, whose)? {
            Some(tenant) => {
                self.may_rotate(principal, &tenant).await?;
                BTreeSet::from([tenant])
            }
            None => self.tenants_with_keys().await?,
        };
        // Before and after: a crash in between leaves nothing superseded that nobody moves rows away from.
        self.ports.rows.request_reencryption(self.ports.clock.now()).await?;
        let mut rotated = Vec::new();
        let mut failure = None;
        for tenant in tenants {
            match self.ports.keeper.rotate(&tenant).await {
                Ok(Some(data_key)) => {
                    tracing::info!(%tenant, data_key = %uuid::Uuid::from_bytes(data_key), "a new data key");
                    rotated.push(Rotated { tenant, data_key });
                }
                Ok(None) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.ports.rows.request_reencryption(self.ports.clock.now()).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(rotated),
        }
    }

    /// A pass is over everybody's rows, and what was superseded stays for `vault.retire_after`: an operator of one tenant can't have
    /// both again and again.
    async fn may_rotate(&self, principal: &Principal, tenant: &TenantId) -> Result<(), BrokerError> {
        if principal.caller.admin.all_tenants {
            return Ok(());
        }
        let active = self.ports.data_keys.newest_data_key(tenant, DataKeyPurpose::Encryption).await?;
        let until = active.map(|key| later(key.created_at, BETWEEN_ROTATIONS));
        match until.filter(|until| self.ports.clock.now() < *until) {
            Some(until) => Err(BrokerError::FailedPrecondition(Precondition::RotatedLately { until })),
            None => Ok(()),
        }
    }

    async fn tenants_with_keys(&self) -> Result<BTreeSet<TenantId>, StoreError> {
        let mut tenants = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.ports.data_keys.data_keys(None, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(tenants) };
            after = Some(last.id);
            let active = page
                .into_iter()
                .filter(|key| key.purpose == DataKeyPurpose::Encryption && key.superseded_at.is_none());
            tenants.extend(active.map(|key| key.tenant));
        }
    }

    /// Wraps some of the data keys anew that are not under the active key-encryption key. To be called until there is no more.
    pub async fn rewrap(&self, principal: &Principal) -> Result<Rewrapped, BrokerError> {
        administered(principal, Whose::All)?;
        let rewrapped = self.ports.keeper.rewrap(REWRAPPED_AT_ONCE).await?;
        if rewrapped.done > 0 {
            let kek = self.ports.keeper.active_kek();
            tracing::info!(
                kek,
                done = rewrapped.done,
                failed = rewrapped.failed,
                "data keys were wrapped anew"
            );
        }
        Ok(rewrapped)
    }
}
