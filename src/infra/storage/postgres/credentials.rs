//! The `CredentialStore` port: reads and claims here, the rest in `lineage.rs`, `grants.rs` and `listing.rs`.

use async_trait::async_trait;
use jiff::Timestamp;

use super::events::record;
use super::grants::lock_of_key;
use super::session::Again;
use super::{PgStore, Query, distance, now_or, scan_now_or};
use crate::domain::credential::{Credential, Epoch, Fingerprint, Generation, ReauthReason};
use crate::domain::event::{Change, NewEvent, Standing};
use crate::domain::key::{CredentialId, CredentialKey};
use crate::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, LineageWrite, ListQuery, NewGrant,
    Persisted, Release, RevokeWrite, RevokedRow, StoreError, StoredGrant,
};
use crate::domain::user_key::{UserDeleted, UserDeletion};
use crate::infra::storage::codec::{array, micros, reauth_reason_text, refresh_failure_text, time};
use crate::infra::storage::credential_row::{CredentialRow, credential_columns};

const BY_KEY: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5"
);

const BY_ID: &str = concat!("SELECT ", credential_columns!(), " FROM credentials WHERE id = $1");

const CLAIM_FOR_REFRESH: &str = concat!(
    "UPDATE credentials SET
        status = 'refreshing', epoch = epoch + 1, claim_owner = $5,
        claim_deadline = $6 + ",
    now_or!("$8"),
    ", settle_at = $7 + ",
    now_or!("$8"),
    ", not_before = NULL, last_error = NULL, updated_at = ",
    now_or!("$8"),
    " WHERE id = $1 AND status = 'active' AND rt_fingerprint = $2 AND generation = $3 AND epoch = $4
    RETURNING epoch"
);

const CLAIM_FOR_SETTLE: &str = concat!(
    "UPDATE credentials SET
        epoch = epoch + 1, claim_owner = $5,
        claim_deadline = $6 + ",
    now_or!("$8"),
    ", settle_at = $7 + ",
    now_or!("$8"),
    ", updated_at = ",
    now_or!("$8"),
    " WHERE id = $1 AND status = 'refreshing' AND rt_fingerprint = $2 AND generation = $3 AND epoch = $4
        AND settle_at <= ",
    now_or!("$8"),
    " RETURNING epoch"
);

/// `greatest` leaves NULL out, but a `next_refresh_at` of NULL means never.
const RELEASE_CLAIM: &str = concat!(
    "UPDATE credentials SET
        status = 'active', claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        not_before = $4 + ",
    now_or!("$7"),
    ", failures = coalesce($5, failures), last_error = $6, updated_at = ",
    now_or!("$7"),
    ", next_refresh_at = CASE WHEN next_refresh_at IS NOT NULL THEN greatest(next_refresh_at, $4 + ",
    now_or!("$7"),
    ") END
    WHERE id = $1 AND status = 'refreshing' AND epoch = $2 AND claim_owner = $3"
);

const MARK_NEEDS_REAUTH: &str = concat!(
    "UPDATE credentials SET
        status = 'needs_reauth', claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, reauth_reason = $4, next_refresh_at = NULL, updated_at = ",
    now_or!("$5"),
    " WHERE id = $1 AND status = 'refreshing' AND epoch = $2 AND rt_fingerprint = $3
    RETURNING generation"
);

const DUE_FOR_SETTLE: &str = concat!(
    "SELECT id FROM credentials
    WHERE status = 'refreshing' AND settle_at <= ",
    scan_now_or!("$1"),
    " ORDER BY settle_at
    LIMIT $2"
);

/// Rows are locked in the order of their ids wherever a statement waits for several, so that no two wait for each other.
const SETTLE_EARLY: &str = "
    WITH abandoned AS (
        SELECT id FROM credentials
        WHERE status = 'refreshing' AND claim_owner = $1 AND settle_at > claim_deadline
        ORDER BY id
        FOR NO KEY UPDATE
    )
    UPDATE credentials SET settle_at = claim_deadline
    FROM abandoned
    WHERE credentials.id = abandoned.id AND status = 'refreshing' AND claim_owner = $1 AND settle_at > claim_deadline";

const SETTLE_OTHERS_EARLY: &str = "
    WITH abandoned AS (
        SELECT id FROM credentials
        WHERE status = 'refreshing' AND claim_owner <> $1 AND settle_at > claim_deadline
        ORDER BY id
        FOR NO KEY UPDATE
    )
    UPDATE credentials SET settle_at = claim_deadline
    FROM abandoned
    WHERE credentials.id = abandoned.id AND status = 'refreshing' AND claim_owner <> $1 AND settle_at > claim_deadline";

/// A row that somebody works on is left out, not waited for. `MATERIALIZED`, so that it is chosen once: a join could run
/// the choice for each row, and choose more. Two statements, since the planner knows how many rows have no configuration only
/// where it is asked so.
macro_rules! reserve_due {
    ($configuration:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
        SELECT id, next_refresh_at AS due_at FROM credentials
        WHERE provider = $1 AND status = 'active' AND ",
            $configuration,
            " AND next_refresh_at <= ",
            scan_now_or!("$2"),
            " ORDER BY next_refresh_at
        LIMIT $4
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE credentials SET next_refresh_at = $3 + ",
            now_or!("$2"),
            " FROM due
    WHERE credentials.id = due.id
    RETURNING credentials.id, coalesce(used_at, created_at), due_at"
        )
    };
}
const RESERVE_DUE: &str = reserve_due!("configuration IS NULL");
const RESERVE_DUE_OF_OWN: &str = reserve_due!("configuration = $5");

const RESCHEDULE: &str = "UPDATE credentials SET next_refresh_at = $2 WHERE id = $1 AND status = 'active'";

const MARK_USED: &str = "
    WITH used AS (
        SELECT id FROM credentials
        WHERE id = ANY($1) AND (used_at IS NULL OR used_at < $2)
        ORDER BY id
        FOR NO KEY UPDATE
    )
    UPDATE credentials SET used_at = $2
    FROM used
    WHERE credentials.id = used.id AND (used_at IS NULL OR used_at < $2)";

/// A statement whose first five parameters are the key's.
pub(super) fn with_key<'q>(sql: &'static str, key: &'q CredentialKey) -> Query<'q> {
    sqlx::query(sql)
        .bind(key.tenant.as_str())
        .bind(key.provider.as_str())
        .bind(key.user.as_str())
        .bind(key.grant.as_str())
        .bind(key.account.as_str())
}

impl PgStore {
    async fn claim(&self, sql: &'static str, request: &ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        let query = || {
            sqlx::query(sql)
                .bind(&request.id.as_bytes()[..])
                .bind(&request.fingerprint.0[..])
                .bind(request.generation)
                .bind(request.epoch)
                .bind(&request.claim.owner.as_bytes()[..])
                .bind(distance(request.now, request.claim.deadline))
                .bind(distance(request.now, request.claim.settle_at))
                .bind(self.now(request.now))
        };
        Ok(self.one::<(Epoch,)>(Again::Never, query).await?.map(|(epoch,)| epoch))
    }
}

#[async_trait]
impl CredentialStore for PgStore {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        let row: Option<CredentialRow> = self.one(Again::Once, || with_key(BY_KEY, key)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        let query = || sqlx::query(BY_ID).bind(&id.as_bytes()[..]);
        let row: Option<CredentialRow> = self.one(Again::Once, query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.claim(CLAIM_FOR_REFRESH, &request).await
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.claim(CLAIM_FOR_SETTLE, &request).await
    }

    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        self.persist(write).await
    }

    async fn release_claim(&self, release: Release) -> Result<bool, StoreError> {
        let Release { id, epoch, owner, back_off, now } = release;
        let query = || {
            sqlx::query(RELEASE_CLAIM)
                .bind(&id.as_bytes()[..])
                .bind(epoch)
                .bind(&owner.as_bytes()[..])
                .bind(back_off.map(|back_off| distance(now, back_off.not_before)))
                .bind(back_off.map(|back_off| i64::from(back_off.failures)))
                .bind(back_off.map(|back_off| refresh_failure_text(back_off.last)))
                .bind(self.now(now))
        };
        Ok(self.write(Again::Never, query).await? == 1)
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        fingerprint: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        // The key of a row never changes.
        let Some(row) = self.load_by_id(id).await? else { return Ok(false) };
        let mut transaction = self.begin(lock_of_key(&row.key)).await?;
        let query = sqlx::query(MARK_NEEDS_REAUTH)
            .bind(&id.as_bytes()[..])
            .bind(epoch)
            .bind(&fingerprint.0[..])
            .bind(reauth_reason_text(reason))
            .bind(self.now(now));
        let Some((generation,)) = transaction.one::<(Generation,)>(query).await? else {
            transaction.roll_back().await?;
            return Ok(false);
        };
        let change = Change::NeedsReauth { was: Standing::Connected, reason, generation };
        record(&mut transaction, &NewEvent { key: row.key, change, at: now }).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        self.store_new_grant(grant).await
    }

    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError> {
        self.revoke(&revoke).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        self.page(query).await
    }

    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError> {
        let query = || sqlx::query(DUE_FOR_SETTLE).bind(self.now(now)).bind(i64::from(limit));
        let rows: Vec<(Vec<u8>,)> = self.all(Again::Once, query).await?;
        rows.iter().map(|(id,)| array(id).map(CredentialId::from_bytes)).collect()
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        let (sql, owner) = match dead {
            DeadOwners::One(dead) => (SETTLE_EARLY, dead),
            DeadOwners::AllBut(alive) => (SETTLE_OTHERS_EARLY, alive),
        };
        self.write(Again::Once, || sqlx::query(sql).bind(&owner.as_bytes()[..])).await
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        let query = || {
            let own = request.configuration.map(|id| id.as_bytes().to_vec());
            let query = sqlx::query(if own.is_some() { RESERVE_DUE_OF_OWN } else { RESERVE_DUE })
                .bind(request.provider.as_str())
                .bind(self.now(request.now))
                .bind(distance(request.now, request.until))
                .bind(i64::from(request.limit));
            if own.is_some() { query.bind(own) } else { query }
        };
        let rows: Vec<(Vec<u8>, i64, i64)> = self.all(Again::Never, query).await?;
        let mut due = rows
            .into_iter()
            .map(|(id, used_at, due_at)| {
                let id = CredentialId::from_bytes(array(&id)?);
                Ok(DueCredential { id, used_at: time(used_at)?, due_at: time(due_at)? })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        // An update answers in no order.
        due.sort_by_key(|due| due.due_at);
        Ok(due)
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        let query = || sqlx::query(RESCHEDULE).bind(&id.as_bytes()[..]).bind(at.map(micros));
        self.write(Again::Once, query).await.map(|_| ())
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        let query = || {
            let ids: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
            sqlx::query(MARK_USED).bind(ids).bind(micros(now))
        };
        self.write(Again::Once, query).await.map(|_| ())
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        self.delete_data_of(deletion).await
    }
}
