//! Step 8 of a refresh: the write that only a descendant of the row's refresh token passes.

use sqlx::FromRow as _;

use super::error::store_error;
use super::events::record;
use super::{Query, SqliteStore};
use crate::domain::credential::Credential;
use crate::domain::event::{Change, NewEvent, Standing};
use crate::domain::ports::{CredentialStore as _, LineageWrite, Persisted, StoreError};
use crate::infra::storage::codec::{micros, status_standing};
use crate::infra::storage::credential_row::{CredentialRow, bind_tokens, credential_columns};
use crate::infra::storage::refused;

/// Not guarded by status (beyond "not revoked") nor by the row's epoch: an answer that descends from the row's token is
/// never thrown away because somebody else has claimed the row, or given it up, meanwhile (I7). The row's epoch follows: a
/// database that lost the claim's commit in a failover would give the same epoch to the next claim, whose answer would
/// then not be younger than the row's. A row that was given up is connected again by it, which is an event: such a write
/// (the last parameter) goes with a transaction.
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
        AND (?16 OR status <> 'needs_reauth')
    RETURNING ",
    credential_columns!()
);

/// Whether a grant was revoked that the row does not have any more. Reads all of the table, but is asked only about an
/// answer that comes after a new consent.
const REVOKED: &str = "SELECT EXISTS (SELECT 1 FROM revocations WHERE grant_id = ?1)";

const STATUS: &str = "SELECT status FROM credentials WHERE id = ?1";

fn statement(write: &LineageWrite, given_up: bool) -> Query<'_> {
    let identity = sqlx::query(PERSIST)
        .bind(&write.id.as_bytes()[..])
        .bind(&write.grant_id.as_bytes()[..])
        .bind(write.epoch)
        .bind(&write.parent_fingerprint.0[..]);
    bind_tokens!(identity, &write.tokens).bind(micros(write.now)).bind(given_up)
}

impl SqliteStore {
    pub(super) async fn persist(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        if let Some(row) = self.write_one::<CredentialRow>(statement(&write, false)).await? {
            return Ok(Persisted::Stored(Box::new(row.try_into()?)));
        }
        if let Some(row) = self.persist_given_up(&write).await? {
            return Ok(Persisted::Stored(Box::new(row)));
        }
        // Nothing that failed the guard can pass it later, so the row may be read apart.
        let Some(row) = self.load_by_id(write.id).await? else { return Ok(Persisted::Revoked) };
        if row.grant_id != write.grant_id {
            let query = sqlx::query(REVOKED).bind(&write.grant_id.as_bytes()[..]);
            let revoked = self.read_one::<(bool,)>(query).await?.is_some_and(|(revoked,)| revoked);
            return Ok(if revoked { Persisted::Revoked } else { Persisted::Superseded });
        }
        Ok(refused::lineage(row, &write))
    }
}

impl SqliteStore {
    /// The same write to a row that was given up. `None`: it does not pass the guard.
    async fn persist_given_up(&self, write: &LineageWrite) -> Result<Option<Credential>, StoreError> {
        let mut transaction = self.begin().await?;
        let status =
            sqlx::query(STATUS).bind(&write.id.as_bytes()[..]).fetch_optional(&mut *transaction).await;
        let Some(status) = status.map_err(store_error)? else { return Ok(None) };
        let (status,) = <(String,)>::from_row(&status).map_err(store_error)?;
        let row = statement(write, true).fetch_optional(&mut *transaction).await.map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        let row: Credential = CredentialRow::from_row(&row).map_err(store_error)?.try_into()?;
        if status_standing(&status)? == Standing::NeedsReauth {
            let change =
                Change::Connected { was: Standing::NeedsReauth, generation: row.generation, flow: None };
            record(&mut transaction, &NewEvent { key: row.key.clone(), change, at: write.now }).await?;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(Some(row))
    }
}

/// For the test of query plans; [`REVOKED`] is not frequent.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[PERSIST, STATUS];
