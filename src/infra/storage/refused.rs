//! What it means that a guarded statement found no row: the same for every database.

use jiff::Timestamp;

use super::codec::{flow_status, time};
use crate::domain::credential::{Credential, CredentialState};
use crate::domain::flow::FlowStatus;
use crate::domain::ports::{Consumed, LineageWrite, Persisted, StoreError};

/// A write by descent that did not pass, by the row of its grant as it is.
pub(super) fn lineage(row: Credential, write: &LineageWrite) -> Persisted {
    let stored = match &row.state {
        CredentialState::Revoked => return Persisted::Revoked,
        CredentialState::Active { tokens, .. }
        | CredentialState::Refreshing { tokens, .. }
        | CredentialState::NeedsReauth { tokens, .. } => tokens.refresh.as_ref(),
    };
    let same = stored.zip(write.tokens.refresh.as_ref()).is_some_and(|(stored, written)| {
        stored.fingerprint == written.fingerprint && stored.epoch == write.epoch
    });
    if same { Persisted::AlreadyStored(Box::new(row)) } else { Persisted::Superseded }
}

/// A flow that could not be consumed, by its columns as they are.
pub(super) fn consumption(
    found: Option<(String, Option<String>, i64)>,
    now: Timestamp,
) -> Result<Consumed, StoreError> {
    let Some((status, failure, expires_at)) = found else { return Ok(Consumed::Unknown) };
    Ok(Consumed::Spent(match flow_status(&status, failure.as_deref())? {
        FlowStatus::Pending | FlowStatus::Returned if time(expires_at)? <= now => FlowStatus::Expired,
        status => status,
    }))
}
