//! The `OutboxStore` port.

use async_trait::async_trait;
use jiff::Timestamp;

use super::PgStore;
use super::flows::BATCH;
use super::session::Again;
use crate::domain::key::OutboxId;
use crate::domain::ports::{OutboxStore, PendingRevocation, RevocationOutcome, StoreError};
use crate::infra::storage::codec::{array, micros, outcome_text};
use crate::infra::storage::revocation_row::{RevocationRow, bind_revocation, revocation_columns};

/// The id is random: the same id again is the same revocation, sent again after an unclear answer.
const ENQUEUE: &str = concat!(
    "INSERT INTO revocations (",
    revocation_columns!(),
    ")
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO NOTHING"
);

const TAKE: &str = concat!(
    "UPDATE revocations SET attempts = attempts + 1, next_attempt_at = $3
    WHERE id = $1 AND finished_at IS NULL AND next_attempt_at <= $2
    RETURNING ",
    revocation_columns!()
);

const DUE: &str = "
    SELECT id FROM revocations
    WHERE finished_at IS NULL AND next_attempt_at <= $1
    ORDER BY next_attempt_at, inserted
    LIMIT $2";

const POSTPONE: &str = "UPDATE revocations SET next_attempt_at = $2 WHERE id = $1 AND finished_at IS NULL";

const FINISH: &str = "
    UPDATE revocations SET finished_at = $3, outcome = $2, access_sealed = NULL, refresh_sealed = NULL
    WHERE id = $1 AND finished_at IS NULL";

const DELETE_FINISHED: &str = "
    DELETE FROM revocations WHERE id = ANY (ARRAY(
        SELECT id FROM revocations WHERE finished_at < $1 ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))";

#[async_trait]
impl OutboxStore for PgStore {
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError> {
        let query = || bind_revocation!(sqlx::query(ENQUEUE), &revocation);
        self.write(Again::Once, query).await.map(|_| ())
    }

    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError> {
        let query = || sqlx::query(TAKE).bind(&id.as_bytes()[..]).bind(micros(now)).bind(micros(lease_until));
        let row: Option<RevocationRow> = self.one(Again::Never, query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError> {
        let query = || sqlx::query(DUE).bind(micros(now)).bind(i64::from(limit));
        let rows: Vec<(Vec<u8>,)> = self.all(Again::Once, query).await?;
        rows.iter().map(|(id,)| array(id).map(OutboxId::from_bytes)).collect()
    }

    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError> {
        let query = || sqlx::query(POSTPONE).bind(&id.as_bytes()[..]).bind(micros(next_attempt_at));
        self.write(Again::Once, query).await.map(|_| ())
    }

    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let query =
            || sqlx::query(FINISH).bind(&id.as_bytes()[..]).bind(outcome_text(outcome)).bind(micros(now));
        self.write(Again::Once, query).await.map(|_| ())
    }

    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.in_batches(|| sqlx::query(DELETE_FINISHED).bind(micros(before)).bind(BATCH)).await
    }
}
