//! The `EventStore` port, and how the other parts of the store write events: in the transaction of the change.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{FromRow as _, Sqlite, Transaction};

use super::SqliteStore;
use super::error::store_error;
use crate::domain::event::{Event, EventPage, EventPosition, EventQuery, EventStore, NewEvent};
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::micros;
use crate::infra::storage::event_row::{EventRow, bind_event, event_columns};

const INSERT: &str = "
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, reason, generation,
        flow_id, client_state, created_at
    )
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// Flows that wait and whose time is up, by the condition of the statement that marks them.
macro_rules! of_expired {
    ($was:literal) => {
        concat!(
            "
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, flow_id, client_state, created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', '",
            $was,
            "', 'expired', id, client_state, ?1
    FROM flows
    WHERE status = '",
            $was,
            "' AND expires_at <= ?1"
        )
    };
}
pub(super) const OF_EXPIRED_PENDING_FLOWS: &str = of_expired!("pending");
pub(super) const OF_EXPIRED_RETURNED_FLOWS: &str = of_expired!("returned");

/// The same for exchanges that were interrupted.
pub(super) const OF_INTERRUPTED_FLOWS: &str = "
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, reason, flow_id, client_state,
        created_at
    )
    SELECT tenant, provider, user_id, grant_name, account, 'flow', 'exchanging', 'failed', 'interrupted', id,
        client_state, ?2
    FROM flows
    WHERE status = 'exchanging' AND exchange_began_at < ?1";

/// The last number that was given out, whether or not its event is still there.
const NEWEST: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)";

const AFTER: &str = concat!(
    "SELECT 0 AS xact, sequence, ",
    event_columns!(),
    " FROM events WHERE tenant = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
);

const OF_USER_AFTER: &str = concat!(
    "SELECT 0 AS xact, sequence, ",
    event_columns!(),
    " FROM events WHERE tenant = ?1 AND user_id = ?4 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
);

const DELETE_BEFORE: &str = "
    DELETE FROM events
    WHERE sequence IN (SELECT sequence FROM events WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)";

/// Writes an event in the transaction of its change.
pub(super) async fn record(
    transaction: &mut Transaction<'static, Sqlite>,
    event: &NewEvent,
) -> Result<(), StoreError> {
    let query = bind_event!(sqlx::query(INSERT), event);
    query.execute(&mut **transaction).await.map(|_| ()).map_err(store_error)
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn events_after(&self, query: EventQuery) -> Result<EventPage, StoreError> {
        // One snapshot for both: what is numbered but not on the page must not be passed over.
        let mut snapshot = self.inner.readers.begin().await.map_err(store_error)?;
        let newest = sqlx::query(NEWEST).fetch_one(&mut *snapshot).await.map_err(store_error)?;
        let (newest,) = <(i64,)>::from_row(&newest).map_err(store_error)?;
        let (sql, user) = match &query.user {
            None => (AFTER, None),
            Some(user) => (OF_USER_AFTER, Some(user.as_str())),
        };
        let mut select =
            sqlx::query(sql).bind(query.tenant.as_str()).bind(query.after.sequence).bind(query.limit);
        if let Some(user) = user {
            select = select.bind(user);
        }
        let rows = select.fetch_all(&mut *snapshot).await.map_err(store_error)?;
        snapshot.rollback().await.map_err(store_error)?;
        let events = rows
            .iter()
            .map(|row| EventRow::from_row(row).map_err(store_error)?.try_into())
            .collect::<Result<Vec<Event>, StoreError>>()?;
        let full = events.len() >= query.limit as usize;
        let reached = match events.last().filter(|_| full) {
            Some(last) => last.position,
            None => EventPosition { transaction: 0, sequence: newest.max(query.after.sequence) },
        };
        Ok(EventPage { events, reached })
    }

    async fn newest_position(&self) -> Result<EventPosition, StoreError> {
        let newest: Option<(i64,)> = self.read_one(sqlx::query(NEWEST)).await?;
        Ok(EventPosition { transaction: 0, sequence: newest.map_or(0, |(sequence,)| sequence) })
    }

    async fn may_follow(&self, position: EventPosition) -> Result<bool, StoreError> {
        Ok(position <= self.newest_position().await?)
    }

    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(sqlx::query(DELETE_BEFORE).bind(micros(before)).bind(limit)).await
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    INSERT,
    OF_EXPIRED_PENDING_FLOWS,
    OF_EXPIRED_RETURNED_FLOWS,
    OF_INTERRUPTED_FLOWS,
    NEWEST,
    AFTER,
    OF_USER_AFTER,
    DELETE_BEFORE,
];
