//! The end of a data key.
//!
//! What is deleted here can't be brought back, and with it every ciphertext that it made. So a data key goes only when a
//! whole pass has found no row with it that began after anything outside the database had died that could bring such a
//! ciphertext into a row: the permit store keeps successors for a day, and a journal is replayed when its process starts
//! again, however late that is. A journal that is older than `retire_after` does not bring its tokens back.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Keys, TableRows, Whose, administered};
use crate::application::endings::later;
use crate::application::error::{BrokerError, NotFound, Precondition};
use crate::domain::access_policy::Principal;
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, RowsPerKey};

/// Why a data key is not retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is the active one of its tenant: rotate first.
    Active,
    /// It makes fingerprints: those that are stored could not be compared any more.
    Fingerprints,
    /// It was superseded too lately.
    TooEarly {
        /// When it may be retired.
        until: Timestamp,
    },
    /// Whether rows are left is not known yet: a pass is under way, or was begun by this call.
    Counting,
    /// Rows are left. Another pass was asked for.
    InUse {
        /// How many.
        rows: TableRows,
    },
}

impl Keys {
    /// Deletes a superseded data key that nothing needs any more.
    pub async fn retire(&self, principal: &Principal, id: DataKeyId) -> Result<(), BrokerError> {
        administered(principal, Whose::Own)?;
        let now = self.ports.clock.now();
        let key = self.ports.data_keys.data_key(id).await?;
        // Another tenant's is not there, for who may not administer it.
        let key = key.filter(|key| administered(principal, Whose::Of(key.tenant.clone())).is_ok());
        let key = key.ok_or(BrokerError::NotFound(NotFound::DataKey))?;
        if key.purpose == DataKeyPurpose::Fingerprint {
            return refuse(Refusal::Fingerprints);
        }
        let Some(superseded_at) = key.superseded_at else { return refuse(Refusal::Active) };
        let until = later(superseded_at, self.settings.retire_after);
        if now <= until {
            return refuse(Refusal::TooEarly { until });
        }
        let state = self.ports.rows.reencryption().await?;
        if state.place.is_some() || state.requested_at.is_some() {
            return refuse(Refusal::Counting);
        }
        if state.began_at.is_none_or(|began| began < until) {
            self.ports.rows.request_reencryption(now).await?;
            return refuse(Refusal::Counting);
        }
        let counted = self.ports.rows.rows_per_key(state.pass).await?;
        let rows = TableRows::of(&counted, id);
        if rows != TableRows::default() {
            self.ports.rows.request_reencryption(now).await?;
            return refuse(Refusal::InUse { rows });
        }
        let before = earlier(now, self.settings.retire_after);
        if !self.ports.data_keys.retire_data_key(id, before).await? {
            return Err(BrokerError::NotFound(NotFound::DataKey));
        }
        tracing::warn!(data_key = %uuid::Uuid::from_bytes(id), tenant = %key.tenant, "a data key was retired");
        Ok(())
    }
}

fn refuse(refusal: Refusal) -> Result<(), BrokerError> {
    Err(BrokerError::FailedPrecondition(Precondition::KeyInUse(refusal)))
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

impl TableRows {
    /// A data key's.
    pub(super) fn of(counted: &RowsPerKey, id: DataKeyId) -> Self {
        use crate::domain::data_key::SealedTable;
        let rows = |table| counted.get(&(id, table)).copied().unwrap_or_default();
        Self {
            credentials: rows(SealedTable::Credentials),
            flows: rows(SealedTable::Flows),
            revocations: rows(SealedTable::Revocations),
            provider_configs: rows(SealedTable::ProviderConfigs),
            user_keys: rows(SealedTable::UserKeys),
        }
    }
}
