//! Step 8 of a refresh: the write that only a descendant of the row's refresh token passes.

use super::SqliteStore;
use super::codec::micros;
use super::credential_row::{CredentialRow, bind_tokens, credential_columns};
use crate::domain::credential::CredentialState;
use crate::domain::ports::{CredentialStore as _, LineageWrite, Persisted, StoreError};

/// Not guarded by status (beyond "not revoked") nor by the row's epoch: an answer that descends from the row's token is
/// never thrown away because somebody else has claimed the row, or given it up, meanwhile (I7). The row's epoch follows: a
/// database that lost the claim's commit in a failover would give the same epoch to the next claim, whose answer would
/// then not be younger than the row's.
const PERSIST: &str = concat!(
    "UPDATE credentials SET
        status = 'active', generation = generation + 1, epoch = max(epoch, ?3),
        access_sealed = ?5, access_obtained_at = ?6, access_expires_at = ?7, token_type = ?8,
        profile_sealed = ?9, scopes = ?10, scopes_assumed = ?11,
        rt_sealed = coalesce(?12, rt_sealed), rt_fingerprint = coalesce(?13, rt_fingerprint),
        rt_parent_fingerprint = ?4, rt_epoch = ?3,
        claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, not_before = NULL, last_error = NULL, reauth_reason = NULL, next_refresh_at = ?14, updated_at = ?15
    WHERE id = ?1 AND grant_id = ?2 AND status <> 'revoked' AND rt_epoch < ?3
        AND (rt_fingerprint = ?4 OR rt_parent_fingerprint = ?4)
    RETURNING ",
    credential_columns!()
);

/// Whether a grant was revoked that the row does not have any more. Reads all of the table, but is asked only about an
/// answer that comes after a new consent.
const REVOKED: &str = "SELECT EXISTS (SELECT 1 FROM revocations WHERE grant_id = ?1)";

impl SqliteStore {
    pub(super) async fn persist(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        let tokens = &write.tokens;
        let refresh = tokens.refresh.as_ref();
        let identity = sqlx::query(PERSIST)
            .bind(&write.id.as_bytes()[..])
            .bind(&write.grant_id.as_bytes()[..])
            .bind(write.epoch)
            .bind(&write.parent_fingerprint.0[..]);
        let query = bind_tokens(identity, tokens).bind(micros(write.now));
        if let Some(row) = self.write_one::<CredentialRow>(query).await? {
            return Ok(Persisted::Stored(Box::new(row.try_into()?)));
        }
        // Nothing that failed the guard can pass it later, so the row may be read apart.
        let Some(row) = self.load_by_id(write.id).await? else { return Ok(Persisted::Revoked) };
        if row.grant_id != write.grant_id {
            let query = sqlx::query(REVOKED).bind(&write.grant_id.as_bytes()[..]);
            let revoked = self.read_one::<(bool,)>(query).await?.is_some_and(|(revoked,)| revoked);
            return Ok(if revoked { Persisted::Revoked } else { Persisted::Superseded });
        }
        let stored = match &row.state {
            CredentialState::Revoked => return Ok(Persisted::Revoked),
            CredentialState::Active { tokens, .. }
            | CredentialState::Refreshing { tokens, .. }
            | CredentialState::NeedsReauth { tokens, .. } => tokens.refresh.as_ref(),
        };
        let same = stored.zip(refresh).is_some_and(|(stored, written)| {
            stored.fingerprint == written.fingerprint && stored.epoch == write.epoch
        });
        Ok(if same { Persisted::AlreadyStored(Box::new(row)) } else { Persisted::Superseded })
    }
}

/// For the test of query plans; [`REVOKED`] is not frequent.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[PERSIST];
