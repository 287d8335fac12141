//! The `FlowStore` port.

use async_trait::async_trait;
use jiff::Timestamp;

use super::credentials::with_key;
use super::events::record;
use super::grants::lock_of_key;
use super::session::{Again, lock_of};
use super::{PgStore, Query};
use crate::domain::event::{Change, FlowCause, NewEvent};
use crate::domain::flow::{Flow, FlowStatus, SecretHash, StateHash};
use crate::domain::key::{CredentialKey, FlowId, ProviderId, TenantId, UserId};
use crate::domain::ports::{CancelledFlows, Consumed, FlowStore, HeldCode, StoreError};
use crate::infra::storage::codec::{KeyColumns, flow_status_texts, micros};
use crate::infra::storage::flow_row::{
    FlowRow, bind_flow, cancelled_flows, flow_columns, json_endpoints, waited_as,
};
use crate::infra::storage::refused;

/// Under the lock of user and provider, or two replicas would both find room for the last one.
const INSERT: &str = concat!(
    "INSERT INTO flows (",
    flow_columns!(),
    ")
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29
    WHERE $30 > (
        SELECT count(*) FROM flows
        WHERE tenant = $2 AND provider = $3 AND user_id = $4 AND status = 'pending' AND expires_at > $20
    )"
);

const BY_ID: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE id = $1 AND tenant = $2");

const LATEST: &str = concat!(
    "SELECT ",
    flow_columns!(),
    " FROM flows
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
    ORDER BY created_at DESC, inserted DESC
    LIMIT 1"
);

const PENDING: &str = concat!(
    "SELECT ",
    flow_columns!(),
    " FROM flows
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
        AND status = 'pending' AND expires_at > $6
    ORDER BY expires_at DESC, inserted DESC"
);

const OF_STATE: &str =
    concat!("SELECT ", flow_columns!(), " FROM flows WHERE state_hash = $1 AND provider = $2");

const OF_LINK: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE link_hash = $1");

const OF_BROWSER: &str = concat!("SELECT ", flow_columns!(), " FROM flows WHERE id = $1");

const ADMIT: &str = "
    UPDATE flows SET browser_hash = $2 WHERE id = $1 AND status = 'pending' AND expires_at > $3";

const CONSUME: &str = concat!(
    "UPDATE flows SET status = 'exchanging', exchange_began_at = $3
    WHERE state_hash = $1 AND provider = $2 AND status = 'pending' AND expires_at > $3 AND browser_hash = $4
    RETURNING ",
    flow_columns!()
);

const HOLD: &str = concat!(
    "UPDATE flows SET status = 'returned', code_sealed = $4, completion_hash = $5
    WHERE state_hash = $1 AND provider = $2 AND status = 'pending' AND expires_at > $3
    RETURNING ",
    flow_columns!()
);

/// What the code was is known to whoever read the row before.
const REDEEM: &str = concat!(
    "UPDATE flows SET status = 'exchanging', exchange_began_at = $2, code_sealed = NULL
    WHERE id = $1 AND status = 'returned' AND expires_at > $2 AND completion_hash = $3
    RETURNING ",
    flow_columns!()
);

const STATUS: &str = "SELECT status, failure, expires_at FROM flows WHERE state_hash = $1 AND provider = $2";

const STATUS_BY_ID: &str = "SELECT status, failure, expires_at FROM flows WHERE id = $1";

/// Both statements that end a flow work under the lock of its key, which is looked up first and never changes.
const KEY: &str = "SELECT tenant, provider, user_id, grant_name, account FROM flows WHERE id = $1";

const END: &str = concat!(
    "UPDATE flows SET status = $2, failure = $3, ended_at = $4
    WHERE id = $1 AND status = $5 AND status IN ('pending', 'exchanging')
    RETURNING ",
    flow_columns!()
);

/// A flow past its end has expired already, and says so.
const CANCEL: &str = concat!(
    "UPDATE flows SET
        status = CASE WHEN expires_at <= $3 THEN 'expired' ELSE 'cancelled' END,
        ended_at = least(expires_at, $3),
        code_sealed = NULL
    WHERE id = $1 AND tenant = $2 AND status IN ('pending', 'returned')
    RETURNING ",
    flow_columns!()
);

/// All that are under way, of one user or of all, with the events, one each. Nobody is passed over: what somebody works on is
/// waited for, and looked at again as it is then.
const CANCEL_ALL: &str = "
    WITH ended AS (
        UPDATE flows SET
            status = CASE WHEN status <> 'exchanging' AND expires_at <= $4 THEN 'expired' ELSE 'cancelled' END,
            ended_at = CASE WHEN status <> 'exchanging' AND expires_at <= $4 THEN expires_at ELSE $4 END,
            code_sealed = NULL
        WHERE id = ANY (ARRAY(
            SELECT id FROM flows
            WHERE tenant = $1 AND ($2::text IS NULL OR user_id = $2) AND status IN ('pending', 'returned', 'exchanging')
            ORDER BY provider, user_id, grant_name, account, created_at LIMIT $3 FOR NO KEY UPDATE
        ))
        RETURNING tenant, provider, user_id, grant_name, account, id, client_state, status,
            CASE WHEN exchange_began_at IS NOT NULL THEN 'exchanging' WHEN completion_hash IS NOT NULL THEN 'returned'
                ELSE 'pending' END AS was
    )
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, flow_id, client_state, created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', was, status, id, client_state, $4 FROM ended
    RETURNING new_status";

/// How many rows a sweep changes by one statement. Rows that somebody works on are left to the next sweep, so that a sweep
/// waits for nobody and nobody waits long for a sweep; replicas that sweep at one time share the work.
pub(super) const BATCH: i64 = 500;

const DELETE_ENDED: &str = "
    DELETE FROM flows WHERE id = ANY (ARRAY(
        SELECT id FROM flows WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))";
/// With the events, one each: so many rows are inserted as flows were marked.
macro_rules! expire {
    ($was:literal) => {
        concat!(
            "
    WITH ended AS (
        UPDATE flows SET status = 'expired', ended_at = expires_at, code_sealed = NULL
        WHERE id = ANY (ARRAY(
            SELECT id FROM flows WHERE status = '",
            $was,
            "' AND expires_at <= $1
            ORDER BY expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
        ))
        RETURNING tenant, provider, user_id, grant_name, account, id, client_state
    )
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, flow_id, client_state, created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', '",
            $was,
            "', 'expired', id, client_state, $1
    FROM ended"
        )
    };
}
const EXPIRE_PENDING: &str = expire!("pending");
const EXPIRE_RETURNED: &str = expire!("returned");
const INTERRUPT: &str = "
    WITH ended AS (
        UPDATE flows SET status = 'failed', failure = 'interrupted', ended_at = $3
        WHERE id = ANY (ARRAY(
            SELECT id FROM flows WHERE status = 'exchanging' AND exchange_began_at < $1
            ORDER BY exchange_began_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
        ))
        RETURNING tenant, provider, user_id, grant_name, account, id, client_state
    )
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, reason, flow_id, client_state,
        created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', 'exchanging', 'failed', 'interrupted', id,
        client_state, $3
    FROM ended";

fn by_state<'q>(sql: &'static str, state: &'q StateHash, provider: &'q ProviderId) -> Query<'q> {
    sqlx::query(sql).bind(&state.0[..]).bind(provider.as_str())
}

#[async_trait]
impl FlowStore for PgStore {
    async fn insert_flow(&self, flow: &Flow, max_pending: u32) -> Result<bool, StoreError> {
        let endpoints = json_endpoints(flow)?;
        let CredentialKey { tenant, provider, user, .. } = &flow.key;
        let lock = lock_of("flows", &[tenant.as_str(), provider.as_str(), user.as_str()]);
        let mut transaction = self.begin(lock).await?;
        let query = bind_flow!(sqlx::query(INSERT), flow, endpoints).bind(i64::from(max_pending));
        let inserted = transaction.execute(query).await?;
        transaction.commit().await?;
        Ok(inserted == 1)
    }

    async fn load_flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Flow>, StoreError> {
        let query = || sqlx::query(BY_ID).bind(&id.as_bytes()[..]).bind(tenant.as_str());
        let row: Option<FlowRow> = self.one(Again::Once, query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn latest_flow(&self, key: &CredentialKey) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.one(Again::Once, || with_key(LATEST, key)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn pending_flows(&self, key: &CredentialKey, now: Timestamp) -> Result<Vec<Flow>, StoreError> {
        let query = || with_key(PENDING, key).bind(micros(now));
        let rows: Vec<FlowRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn flow_of_state(
        &self,
        state: StateHash,
        provider: &ProviderId,
    ) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.one(Again::Once, || by_state(OF_STATE, &state, provider)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn flow_of_link(&self, link: SecretHash) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> = self.one(Again::Once, || sqlx::query(OF_LINK).bind(&link.0[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn flow_of_browser(&self, id: FlowId) -> Result<Option<Flow>, StoreError> {
        let row: Option<FlowRow> =
            self.one(Again::Once, || sqlx::query(OF_BROWSER).bind(&id.as_bytes()[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn admit_browser(
        &self,
        id: FlowId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let query = || sqlx::query(ADMIT).bind(&id.as_bytes()[..]).bind(&browser.0[..]).bind(micros(now));
        Ok(self.write(Again::Once, query).await? == 1)
    }

    async fn consume_flow(
        &self,
        state: StateHash,
        provider: &ProviderId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        let query = || by_state(CONSUME, &state, provider).bind(micros(now)).bind(&browser.0[..]);
        let status = || by_state(STATUS, &state, provider);
        self.advance(query, status, now).await
    }

    async fn hold_code(&self, held: HeldCode, now: Timestamp) -> Result<Consumed, StoreError> {
        let query = || {
            by_state(HOLD, &held.state, &held.provider)
                .bind(micros(now))
                .bind(&held.code.0)
                .bind(&held.completion_code.0[..])
        };
        let status = || by_state(STATUS, &held.state, &held.provider);
        self.advance(query, status, now).await
    }

    async fn redeem_flow(
        &self,
        id: FlowId,
        completion_code: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        let query =
            || sqlx::query(REDEEM).bind(&id.as_bytes()[..]).bind(micros(now)).bind(&completion_code.0[..]);
        let status = || sqlx::query(STATUS_BY_ID).bind(&id.as_bytes()[..]);
        self.advance(query, status, now).await
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
        Ok(self.end(id, query, |_| from, now).await?.is_some())
    }

    async fn cancel_flow(
        &self,
        tenant: &TenantId,
        id: FlowId,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        let query = sqlx::query(CANCEL).bind(&id.as_bytes()[..]).bind(tenant.as_str()).bind(micros(now));
        match self.end(id, query, waited_as, now).await? {
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
        let query = || {
            let query = sqlx::query(CANCEL_ALL).bind(tenant.as_str()).bind(user.map(UserId::as_str));
            query.bind(i64::from(limit)).bind(micros(now))
        };
        let ended: Vec<(String,)> = self.all(Again::Never, query).await?;
        let ended: Vec<_> = ended.into_iter().map(|(status,)| status).collect();
        Ok(cancelled_flows(&ended, limit))
    }

    async fn sweep_flows(
        &self,
        now: Timestamp,
        interrupted_before: Timestamp,
        delete_before: Timestamp,
    ) -> Result<u64, StoreError> {
        // First, so that what has just been marked is there to be read until the next sweep.
        let mut changed =
            self.in_batches(|| sqlx::query(DELETE_ENDED).bind(micros(delete_before)).bind(BATCH)).await?;
        for expire in [EXPIRE_PENDING, EXPIRE_RETURNED] {
            changed += self.in_batches(|| sqlx::query(expire).bind(micros(now)).bind(BATCH)).await?;
        }
        let interrupt =
            || sqlx::query(INTERRUPT).bind(micros(interrupted_before)).bind(BATCH).bind(micros(now));
        changed += self.in_batches(interrupt).await?;
        Ok(changed)
    }
}

impl PgStore {
    /// Runs a statement that takes a flow a step further, once; who did not get it reads how it stands.
    async fn advance<'q>(
        &self,
        query: impl Fn() -> Query<'q> + Send + Sync,
        status: impl Fn() -> Query<'q> + Send + Sync,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        if let Some(row) = self.one::<FlowRow>(Again::Never, query).await? {
            return Ok(Consumed::Won(Box::new(row.try_into()?)));
        }
        refused::consumption(self.one::<(String, Option<String>, i64)>(Again::Once, status).await?, now)
    }

    /// Runs a statement that ends at most this flow and answers it, with its event.
    async fn end(
        &self,
        id: FlowId,
        query: Query<'_>,
        was: impl Fn(&Flow) -> FlowStatus + Send + Sync,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        let key =
            self.one::<KeyColumns>(Again::Once, || sqlx::query(KEY).bind(id.as_bytes().to_vec())).await?;
        let Some(key) = key else { return Ok(None) };
        let mut transaction = self.begin(lock_of_key(&key.try_into()?)).await?;
        let Some(row) = transaction.one::<FlowRow>(query).await? else {
            transaction.roll_back().await?;
            return Ok(None);
        };
        let flow: Flow = row.try_into()?;
        let cause = FlowCause { id: flow.id, client_state: flow.options.client_state.clone() };
        let change = Change::FlowEnded { flow: cause, was: was(&flow), is: flow.status };
        record(&mut transaction, &NewEvent { key: flow.key.clone(), change, at: now }).await?;
        transaction.commit().await?;
        Ok(Some(flow))
    }

    /// Repeats a statement that changes up to [`BATCH`] rows until there are no more. Each is a transaction of its own.
    pub(super) async fn in_batches<'q>(
        &self,
        query: impl Fn() -> Query<'q> + Send + Sync,
    ) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let changed = self.write(Again::Once, &query).await?;
            all += changed;
            if i64::try_from(changed).is_ok_and(|changed| changed < BATCH) {
                return Ok(all);
            }
        }
    }
}
