//! The `FlowStore` port.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::FromRow as _;

use super::credentials::with_key;
use super::error::store_error;
use super::events::{OF_EXPIRED_PENDING_FLOWS, OF_EXPIRED_RETURNED_FLOWS, OF_INTERRUPTED_FLOWS, record};
use super::{Query, SqliteStore};
use crate::domain::event::{Change, FlowCause, NewEvent};
use crate::domain::flow::{Flow, FlowStatus, SecretHash, StateHash};
use crate::domain::key::{CredentialKey, FlowId, ProviderId, TenantId, UserId};
use crate::domain::ports::{CancelledFlows, Consumed, FlowStore, HeldCode, StoreError};
use crate::infra::storage::codec::{flow_status_texts, micros};
use crate::infra::storage::flow_row::{
    FlowRow, bind_flow, cancelled_flows, flow_columns, json_endpoints, waited_as,
};
use crate::infra::storage::refused;

/// What becomes of a flow that is ended while it is under way: one that waited past its end has expired, and says so.
macro_rules! cancelled_status {
    () => {
        "CASE WHEN status <> 'exchanging' AND expires_at <= ?4 THEN 'expired' ELSE 'cancelled' END"
    };
}
/// Of a tenant, and of one of its users if there is one.
macro_rules! under_way {
    () => {
        "(
        SELECT id FROM flows
        WHERE tenant = ?1 AND (?2 IS NULL OR user_id = ?2) AND status IN ('pending', 'returned', 'exchanging')
        ORDER BY provider, user_id, grant_name, account, created_at LIMIT ?3
    )"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO flows (",
    flow_columns!(),
    ")
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
        ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29
    WHERE ?30 > (
        SELECT count(*) FROM flows
        WHERE tenant = ?2 AND provider = ?3 AND user_id = ?4 AND status = 'pending' AND expires_at > ?20
    )"
);

const BY_ID: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE id = ?1 AND tenant = ?2");

const LATEST: &str = concat!(
    "SELECT ",
    flow_columns!(),
    " FROM flows
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
    ORDER BY created_at DESC, rowid DESC
    LIMIT 1"
);

const PENDING: &str = concat!(
    "SELECT ",
    flow_columns!(),
    " FROM flows INDEXED BY flows_pending_of_user
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
        AND status = 'pending' AND expires_at > ?6
    ORDER BY expires_at DESC, rowid DESC"
);

const OF_STATE: &str =
    concat!("SELECT ", flow_columns!(), " FROM flows WHERE state_hash = ?1 AND provider = ?2");

const OF_LINK: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE link_hash = ?1");

const OF_BROWSER: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE id = ?1");

const ADMIT: &str = "
    UPDATE flows SET browser_hash = ?2 WHERE id = ?1 AND status = 'pending' AND expires_at > ?3";

const CONSUME: &str = concat!(
    "UPDATE flows SET status = 'exchanging', exchange_began_at = ?3
    WHERE state_hash = ?1 AND provider = ?2 AND status = 'pending' AND expires_at > ?3 AND browser_hash = ?4
    RETURNING ",
    flow_columns!()
);

const HOLD: &str = concat!(
    "UPDATE flows SET status = 'returned', code_sealed = ?4, completion_hash = ?5
    WHERE state_hash = ?1 AND provider = ?2 AND status = 'pending' AND expires_at > ?3
    RETURNING ",
    flow_columns!()
);

/// What the code was is known to whoever read the row before.
const REDEEM: &str = concat!(
    "UPDATE flows SET status = 'exchanging', exchange_began_at = ?2, code_sealed = NULL
    WHERE id = ?1 AND status = 'returned' AND expires_at > ?2 AND completion_hash = ?3
    RETURNING ",
    flow_columns!()
);

const STATUS: &str = "SELECT status, failure, expires_at FROM flows WHERE state_hash = ?1 AND provider = ?2";

const STATUS_BY_ID: &str = "SELECT status, failure, expires_at FROM flows WHERE id = ?1";

const END: &str = concat!(
    "UPDATE flows SET status = ?2, failure = ?3, ended_at = ?4
    WHERE id = ?1 AND status = ?5 AND status IN ('pending', 'exchanging')
    RETURNING ",
    flow_columns!()
);

/// A flow past its end has expired already, and says so.
const CANCEL: &str = concat!(
    "UPDATE flows SET
        status = CASE WHEN expires_at <= ?3 THEN 'expired' ELSE 'cancelled' END,
        ended_at = min(expires_at, ?3),
        code_sealed = NULL
    WHERE id = ?1 AND tenant = ?2 AND status IN ('pending', 'returned')
    RETURNING ",
    flow_columns!()
);

/// Those that [`CANCEL_ALL`] ends, with the events, one each.
const OF_CANCELLED: &str = concat!(
    "INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, flow_id, client_state, created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', status, ",
    cancelled_status!(),
    ", id, client_state, ?4
    FROM flows WHERE id IN ",
    under_way!()
);

/// All that are under way, of one user or of all.
const CANCEL_ALL: &str = concat!(
    "UPDATE flows SET
        ended_at = CASE WHEN status <> 'exchanging' AND expires_at <= ?4 THEN expires_at ELSE ?4 END,
        code_sealed = NULL,
        status = ",
    cancelled_status!(),
    " WHERE id IN ",
    under_way!(),
    " RETURNING status"
);

const DELETE_ENDED: &str = "DELETE FROM flows WHERE ended_at < ?1";
const EXPIRE_PENDING: &str = "
    UPDATE flows SET status = 'expired', ended_at = expires_at
    WHERE status = 'pending' AND expires_at <= ?1";
const EXPIRE_RETURNED: &str = "
    UPDATE flows SET status = 'expired', ended_at = expires_at, code_sealed = NULL
    WHERE status = 'returned' AND expires_at <= ?1";
const INTERRUPT: &str = "
    UPDATE flows SET status = 'failed', failure = 'interrupted', ended_at = ?2
    WHERE status = 'exchanging' AND exchange_began_at < ?1";

fn by_id<'q>(tenant: &'q TenantId, id: &'q FlowId) -> Query<'q> {
    sqlx::query(BY_ID).bind(&id.as_bytes()[..]).bind(tenant.as_str())
}

fn by_state<'q>(sql: &'static str, state: &'q StateHash, provider: &'q ProviderId) -> Query<'q> {
    sqlx::query(sql).bind(&state.0[..]).bind(provider.as_str())
}

impl SqliteStore {
    /// Runs a statement that takes a flow a step further; who did not get it reads how it stands.
    async fn advance(
        &self,
        query: Query<'_>,
        status: Query<'_>,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        if let Some(row) = self.write_one::<FlowRow>(query).await? {
            return Ok(Consumed::Won(Box::new(row.try_into()?)));
        }
        refused::consumption(self.read_one::<(String, Option<String>, i64)>(status).await?, now)
    }

    /// Runs a statement that ends at most one flow and answers it, with its event.
    async fn end(
        &self,
        query: Query<'_>,
        was: impl Fn(&Flow) -> FlowStatus + Send + Sync,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(row) = query.fetch_optional(&mut *transaction).await.map_err(store_error)? else {
            return Ok(None);
        };
        let flow: Flow = FlowRow::from_row(&row).map_err(store_error)?.try_into()?;
        let cause = FlowCause { id: flow.id, client_state: flow.options.client_state.clone() };
        let change = Change::FlowEnded { flow: cause, was: was(&flow), is: flow.status };
        record(&mut transaction, &NewEvent { key: flow.key.clone(), change, at: now }).await?;
        transaction.commit().await.map_err(store_error)?;
        Ok(Some(flow))
    }
}

#[async_trait]
impl FlowStore for SqliteStore {
    async fn insert_flow(&self, flow: &Flow, max_pending: u32) -> Result<bool, StoreError> {
        let endpoints = json_endpoints(flow)?;
        let query = bind_flow!(sqlx::query(INSERT), flow, endpoints).bind(max_pending);
        Ok(self.write(query).await? == 1)
    }

    async fn load_flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.read_one(by_id(tenant, &id)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn latest_flow(&self, key: &CredentialKey) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.read_one(with_key(LATEST, key)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn pending_flows(&self, key: &CredentialKey, now: Timestamp) -> Result<Vec<Flow>, StoreError> {
        let rows: Vec<FlowRow> = self.read_all(with_key(PENDING, key).bind(micros(now))).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn flow_of_state(
        &self,
        state: StateHash,
        provider: &ProviderId,
    ) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.read_one(by_state(OF_STATE, &state, provider)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn flow_of_link(&self, link: SecretHash) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.read_one(sqlx::query(OF_LINK).bind(&link.0[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn flow_of_browser(&self, id: FlowId) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.read_one(sqlx::query(OF_BROWSER).bind(&id.as_bytes()[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn admit_browser(
        &self,
        id: FlowId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let query = sqlx::query(ADMIT).bind(&id.as_bytes()[..]).bind(&browser.0[..]).bind(micros(now));
        Ok(self.write(query).await? == 1)
    }

    async fn consume_flow(
        &self,
        state: StateHash,
        provider: &ProviderId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        let query = by_state(CONSUME, &state, provider).bind(micros(now)).bind(&browser.0[..]);
        self.advance(query, by_state(STATUS, &state, provider), now).await
    }

    async fn hold_code(&self, held: HeldCode, now: Timestamp) -> Result<Consumed, StoreError> {
        let query = by_state(HOLD, &held.state, &held.provider)
            .bind(micros(now))
            .bind(&held.code.0)
            .bind(&held.completion_code.0[..]);
        self.advance(query, by_state(STATUS, &held.state, &held.provider), now).await
    }

    async fn redeem_flow(
        &self,
        id: FlowId,
        completion_code: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        let query =
            sqlx::query(REDEEM).bind(&id.as_bytes()[..]).bind(micros(now)).bind(&completion_code.0[..]);
        self.advance(query, sqlx::query(STATUS_BY_ID).bind(&id.as_bytes()[..]), now).await
    }

    async fn end_flow(
        &self,
        id: FlowId,
        from: FlowStatus,
        status: FlowStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (status, failure) = flow_status_texts(status);
        let query = sqlx::query(END)
            .bind(&id.as_bytes()[..])
            .bind(status)
            .bind(failure)
            .bind(micros(now))
            .bind(flow_status_texts(from).0);
        Ok(self.end(query, |_| from, now).await?.is_some())
    }

    async fn cancel_flow(
        &self,
        tenant: &TenantId,
        id: FlowId,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        let query = sqlx::query(CANCEL).bind(&id.as_bytes()[..]).bind(tenant.as_str()).bind(micros(now));
        match self.end(query, waited_as, now).await? {
            Some(flow) => Ok(Some(flow)),
            None => self.load_flow(tenant, id).await,
        }
    }

    async fn cancel_flows(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<CancelledFlows, StoreError> {
        let bound = |sql: &'static str| {
            let query = sqlx::query(sql).bind(tenant.as_str()).bind(user.map(UserId::as_str));
            query.bind(limit).bind(micros(now))
        };
        let mut transaction = self.begin().await?;
        bound(OF_CANCELLED).execute(&mut *transaction).await.map_err(store_error)?;
        let rows = bound(CANCEL_ALL).fetch_all(&mut *transaction).await.map_err(store_error)?;
        let ended = rows.iter().map(|row| <(String,)>::from_row(row).map(|(status,)| status));
        let ended = ended.collect::<Result<Vec<_>, _>>().map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok(cancelled_flows(&ended, limit))
    }

    async fn sweep_flows(
        &self,
        now: Timestamp,
        interrupted_before: Timestamp,
        delete_before: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let mut changed = 0;
        let before = micros(interrupted_before);
        for (query, counts) in [
            // First, so that what has just been marked is there to be read until the next sweep.
            (sqlx::query(DELETE_ENDED).bind(micros(delete_before)), true),
            (sqlx::query(OF_EXPIRED_PENDING_FLOWS).bind(micros(now)), false),
            (sqlx::query(EXPIRE_PENDING).bind(micros(now)), true),
            (sqlx::query(OF_EXPIRED_RETURNED_FLOWS).bind(micros(now)), false),
            (sqlx::query(EXPIRE_RETURNED).bind(micros(now)), true),
            (sqlx::query(OF_INTERRUPTED_FLOWS).bind(before).bind(micros(now)), false),
            (sqlx::query(INTERRUPT).bind(before).bind(micros(now)), true),
        ] {
            let done = query.execute(&mut *transaction).await.map_err(store_error)?;
            changed += if counts { done.rows_affected() } else { 0 };
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(changed)
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT,
    BY_ID,
    LATEST,
    PENDING,
    OF_STATE,
    OF_LINK,
    OF_BROWSER,
    ADMIT,
    CONSUME,
    HOLD,
    REDEEM,
    STATUS,
    STATUS_BY_ID,
    END,
    CANCEL,
    OF_CANCELLED,
    CANCEL_ALL,
    DELETE_ENDED,
    EXPIRE_PENDING,
    EXPIRE_RETURNED,
    INTERRUPT,
];
