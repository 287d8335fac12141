//! The `OutboxStore` port.

use async_trait::async_trait;
use jiff::Timestamp;

use super::SqliteStore;
use crate::domain::key::OutboxId;
use crate::domain::ports::{OutboxStore, PendingRevocation, RevocationOutcome, StoreError};
use crate::infra::storage::codec::{array, micros, outcome_text};
use crate::infra::storage::revocation_row::{RevocationRow, bind_revocation, revocation_columns};

/// The id is random: the same id again is the same revocation, sent again after an unclear answer.
const ENQUEUE: &str = "
    INSERT INTO revocations (
        id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed, refresh_sealed, attempts, created_at, next_attempt_at, configuration
    )
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT (id) DO NOTHING";

const TAKE: &str = concat!(
    "UPDATE revocations SET attempts = attempts + 1, next_attempt_at = ?3
    WHERE id = ?1 AND finished_at IS NULL AND next_attempt_at <= ?2
    RETURNING ",
    revocation_columns!()
);

const DUE: &str = "
    SELECT id FROM revocations
    WHERE finished_at IS NULL AND next_attempt_at <= ?1
    ORDER BY next_attempt_at, rowid
    LIMIT ?2";

const POSTPONE: &str = "UPDATE revocations SET next_attempt_at = ?2 WHERE id = ?1 AND finished_at IS NULL";

const FINISH: &str = "
    UPDATE revocations SET finished_at = ?3, outcome = ?2, access_sealed = NULL, refresh_sealed = NULL
    WHERE id = ?1 AND finished_at IS NULL";

const DELETE_FINISHED: &str = "DELETE FROM revocations WHERE finished_at < ?1";

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError> {
        let query = bind_revocation!(sqlx::query(ENQUEUE), &revocation);
        self.write(query).await.map(|_| ())
    }

    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError> {
        let query = sqlx::query(TAKE).bind(&id.as_bytes()[..]).bind(micros(now)).bind(micros(lease_until));
        let row: Option<RevocationRow> = self.write_one(query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError> {
        let rows: Vec<(Vec<u8>,)> = self.read_all(sqlx::query(DUE).bind(micros(now)).bind(limit)).await?;
        rows.iter().map(|(id,)| array(id).map(OutboxId::from_bytes)).collect()
    }

    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError> {
        let query = sqlx::query(POSTPONE).bind(&id.as_bytes()[..]).bind(micros(next_attempt_at));
        self.write(query).await.map(|_| ())
    }

    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let query =
            sqlx::query(FINISH).bind(&id.as_bytes()[..]).bind(outcome_text(outcome)).bind(micros(now));
        self.write(query).await.map(|_| ())
    }

    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(sqlx::query(DELETE_FINISHED).bind(micros(before))).await
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[ENQUEUE, TAKE, DUE, POSTPONE, FINISH, DELETE_FINISHED];
