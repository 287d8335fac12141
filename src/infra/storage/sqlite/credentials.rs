//! The `CredentialStore` port: reads and claims here, the rest in `lineage.rs`, `grants.rs` and `listing.rs`.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::FromRow as _;

use super::error::store_error;
use super::events::record;
use super::{Query, SqliteStore, id_list};
use crate::domain::credential::{Credential, Epoch, Fingerprint, Generation, ReauthReason};
use crate::domain::event::{Change, NewEvent, Standing};
use crate::domain::key::{CredentialId, CredentialKey};
use crate::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, LineageWrite, ListQuery, NewGrant,
    Persisted, Release, RevokeWrite, RevokedRow, StoreError, StoredGrant,
};
use crate::domain::user_key::{UserDeleted, UserDeletion};
use crate::infra::storage::codec::{
    KeyColumns, array, micros, reauth_reason_text, refresh_failure_text, time,
};
use crate::infra::storage::credential_row::{CredentialRow, credential_columns};

const BY_KEY: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5"
);

const BY_ID: &str = concat!("SELECT ", credential_columns!(), " FROM credentials WHERE id = ?1");

const CLAIM_FOR_REFRESH: &str = "
    UPDATE credentials SET
        status = 'refreshing', epoch = epoch + 1, claim_owner = ?5, claim_deadline = ?6, settle_at = ?7,
        not_before = NULL, last_error = NULL, updated_at = ?8
    WHERE id = ?1 AND status = 'active' AND rt_fingerprint = ?2 AND generation = ?3 AND epoch = ?4
    RETURNING epoch";

const CLAIM_FOR_SETTLE: &str = "
    UPDATE credentials SET
        epoch = epoch + 1, claim_owner = ?5, claim_deadline = ?6, settle_at = ?7, updated_at = ?8
    WHERE id = ?1 AND status = 'refreshing' AND rt_fingerprint = ?2 AND generation = ?3 AND epoch = ?4
        AND settle_at <= ?8
    RETURNING epoch";

const RELEASE_CLAIM: &str = "
    UPDATE credentials SET
        status = 'active', claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        not_before = ?4, failures = coalesce(?5, failures), last_error = ?6, updated_at = ?7,
        next_refresh_at = max(next_refresh_at, coalesce(?4, next_refresh_at))
    WHERE id = ?1 AND status = 'refreshing' AND epoch = ?2 AND claim_owner = ?3";

const MARK_NEEDS_REAUTH: &str = "
    UPDATE credentials SET
        status = 'needs_reauth', claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, reauth_reason = ?4, next_refresh_at = NULL, updated_at = ?5
    WHERE id = ?1 AND status = 'refreshing' AND epoch = ?2 AND rt_fingerprint = ?3
    RETURNING tenant, provider, user_id, grant_name, account, generation";

const DUE_FOR_SETTLE: &str = "
    SELECT id FROM credentials
    WHERE status = 'refreshing' AND settle_at <= ?1
    ORDER BY settle_at
    LIMIT ?2";

const SETTLE_EARLY: &str = "
    UPDATE credentials SET settle_at = claim_deadline
    WHERE status = 'refreshing' AND claim_owner = ?1 AND settle_at > claim_deadline";

const SETTLE_OTHERS_EARLY: &str = "
    UPDATE credentials SET settle_at = claim_deadline
    WHERE status = 'refreshing' AND claim_owner <> ?1 AND settle_at > claim_deadline";

/// The index is named, since without statistics the planner may take another for as good. Each has the rows of one kind of app,
/// so that a backlog of the one is not read for the other.
macro_rules! due {
    ($index:literal, $configuration:literal) => {
        concat!(
            "SELECT id, coalesce(used_at, created_at), next_refresh_at FROM credentials INDEXED BY ",
            $index,
            " WHERE provider = ?1 AND status = 'active' AND next_refresh_at <= ?2 AND configuration ",
            $configuration,
            " ORDER BY next_refresh_at
            LIMIT ?3"
        )
    };
}
const DUE: &str = due!("credentials_due_operators", "IS NULL");
const DUE_OF_OWN: &str = due!("credentials_due_own", "= ?4");

const RESERVE: &str =
    "UPDATE credentials SET next_refresh_at = ?2 WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

const RESCHEDULE: &str = "UPDATE credentials SET next_refresh_at = ?2 WHERE id = ?1 AND status = 'active'";

const MARK_USED: &str = "
    UPDATE credentials SET used_at = ?2
    WHERE id IN (SELECT unhex(value) FROM json_each(?1)) AND (used_at IS NULL OR used_at < ?2)";

/// A statement whose first five parameters are the key's.
pub(super) fn with_key<'q>(sql: &'static str, key: &'q CredentialKey) -> Query<'q> {
    sqlx::query(sql)
        .bind(key.tenant.as_str())
        .bind(key.provider.as_str())
        .bind(key.user.as_str())
        .bind(key.grant.as_str())
        .bind(key.account.as_str())
}

/// Of a row that was marked, for its event.
#[derive(Debug, sqlx::FromRow)]
struct MarkedRow {
    #[sqlx(flatten)]
    key: KeyColumns,
    generation: Generation,
}

impl SqliteStore {
    pub(super) async fn credential(&self, query: Query<'_>) -> Result<Option<Credential>, StoreError> {
        self.read_one::<CredentialRow>(query).await?.map(TryInto::try_into).transpose()
    }

    async fn claim(&self, sql: &'static str, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        let query = sqlx::query(sql)
            .bind(&request.id.as_bytes()[..])
            .bind(&request.fingerprint.0[..])
            .bind(request.generation)
            .bind(request.epoch)
            .bind(&request.claim.owner.as_bytes()[..])
            .bind(micros(request.claim.deadline))
            .bind(micros(request.claim.settle_at))
            .bind(micros(request.now));
        Ok(self.write_one::<(Epoch,)>(query).await?.map(|(epoch,)| epoch))
    }
}

#[async_trait]
impl CredentialStore for SqliteStore {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        self.credential(with_key(BY_KEY, key)).await
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        self.credential(sqlx::query(BY_ID).bind(&id.as_bytes()[..])).await
    }

    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.claim(CLAIM_FOR_REFRESH, request).await
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.claim(CLAIM_FOR_SETTLE, request).await
    }

    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        self.persist(write).await
    }

    async fn release_claim(&self, release: Release) -> Result<bool, StoreError> {
        let query = sqlx::query(RELEASE_CLAIM)
            .bind(&release.id.as_bytes()[..])
            .bind(release.epoch)
            .bind(&release.owner.as_bytes()[..])
            .bind(release.back_off.map(|back_off| micros(back_off.not_before)))
            .bind(release.back_off.map(|back_off| back_off.failures))
            .bind(release.back_off.map(|back_off| refresh_failure_text(back_off.last)))
            .bind(micros(release.now));
        Ok(self.write(query).await? == 1)
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        fingerprint: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(MARK_NEEDS_REAUTH)
            .bind(&id.as_bytes()[..])
            .bind(epoch)
            .bind(&fingerprint.0[..])
            .bind(reauth_reason_text(reason))
            .bind(micros(now))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(store_error)?;
        let Some(row) = row else { return Ok(false) };
        let marked = MarkedRow::from_row(&row).map_err(store_error)?;
        let change = Change::NeedsReauth { was: Standing::Connected, reason, generation: marked.generation };
        record(&mut transaction, &NewEvent { key: marked.key.try_into()?, change, at: now }).await?;
        transaction.commit().await.map_err(store_error)?;
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
        let query = sqlx::query(DUE_FOR_SETTLE).bind(micros(now)).bind(limit);
        let rows: Vec<(Vec<u8>,)> = self.read_all(query).await?;
        rows.iter().map(|(id,)| array(id).map(CredentialId::from_bytes)).collect()
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        let (sql, owner) = match dead {
            DeadOwners::One(dead) => (SETTLE_EARLY, dead),
            DeadOwners::AllBut(alive) => (SETTLE_OTHERS_EARLY, alive),
        };
        self.write(sqlx::query(sql).bind(&owner.as_bytes()[..])).await
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        let mut transaction = self.begin().await?;
        let own = request.configuration.map(|id| id.as_bytes().to_vec());
        let query = sqlx::query(if own.is_some() { DUE_OF_OWN } else { DUE })
            .bind(request.provider.as_str())
            .bind(micros(request.now))
            .bind(request.limit);
        let query = if own.is_some() { query.bind(own) } else { query };
        let rows = query.fetch_all(&mut *transaction).await.map_err(store_error)?;
        if rows.is_empty() {
            return Ok(Vec::new()); // dropped, and so rolled back
        }
        let due = rows
            .iter()
            .map(|row| {
                let (id, used_at, due_at) = <(Vec<u8>, i64, i64)>::from_row(row).map_err(store_error)?;
                let id = CredentialId::from_bytes(array(&id)?);
                Ok(DueCredential { id, used_at: time(used_at)?, due_at: time(due_at)? })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        sqlx::query(RESERVE)
            .bind(id_list(due.iter().map(|due| &due.id.as_bytes()[..])))
            .bind(micros(request.until))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok(due)
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        self.write(sqlx::query(RESCHEDULE).bind(&id.as_bytes()[..]).bind(at.map(micros))).await.map(|_| ())
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        self.write(
            sqlx::query(MARK_USED).bind(id_list(ids.iter().map(|id| &id.as_bytes()[..]))).bind(micros(now)),
        )
        .await
        .map(|_| ())
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        self.delete_data_of(deletion).await
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    BY_KEY,
    BY_ID,
    CLAIM_FOR_REFRESH,
    CLAIM_FOR_SETTLE,
    RELEASE_CLAIM,
    MARK_NEEDS_REAUTH,
    DUE_FOR_SETTLE,
    SETTLE_EARLY,
    SETTLE_OTHERS_EARLY,
    DUE,
    RESERVE,
    RESCHEDULE,
    MARK_USED,
];
