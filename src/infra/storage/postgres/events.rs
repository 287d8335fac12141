//! The `EventStore` port, and how the other parts of the store write events: in the transaction of the change.
//!
//! **No event is passed over.** A sequence is no order of commits: of two transactions that run at one time, the one with
//! the greater number may be seen first, and a reader that goes on behind it would never see the other. So events are
//! ordered by the id of their transaction, and read only up to the oldest transaction that is still open
//! (`pg_snapshot_xmin`). All older ones have ended: what they wrote is there, and nothing can appear among them any more. The
//! price: a transaction that stays open anywhere in the database cluster, and has written something, holds up the events
//! of all that began after it. Those of the broker last milliseconds.
//!
//! **The events of one key come in their order.** A transaction has an id from its first write on, not from its commit. So
//! whoever writes an event of a key takes the key's lock before its first write, and keeps it to its end: of two, the second
//! one's id is the greater. (The sweep does not: a consent that has expired stands in no order to anything else.)
//!
//! **Places are those of events**, never the end of what was looked at: a server that crashes gives the ids of
//! transactions out again that it had no time to write down. An id that a committed event has is written down.

use async_trait::async_trait;
use jiff::Timestamp;

use super::PgStore;
use super::session::{Again, Session};
use crate::domain::event::{Event, EventPage, EventPosition, EventQuery, EventStore, NewEvent};
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::micros;
use crate::infra::storage::event_row::{EventRow, bind_event, event_columns};

const INSERT: &str = "
    INSERT INTO events (
        tenant, provider, user_id, grant_name, account, subject, old_status, new_status, reason, generation,
        flow_id, client_state, created_at
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// The snapshot that sees the rows is the one whose oldest open transaction bounds them.
const AFTER: &str = concat!(
    "SELECT xact, sequence, ",
    event_columns!(),
    " FROM events
    WHERE tenant = $1 AND (xact, sequence) > ($2, $3)
        AND xact < (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
    ORDER BY xact, sequence
    LIMIT $4"
);

const OF_USER_AFTER: &str = concat!(
    "SELECT xact, sequence, ",
    event_columns!(),
    " FROM events
    WHERE tenant = $1 AND user_id = $5 AND (xact, sequence) > ($2, $3)
        AND xact < (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
    ORDER BY xact, sequence
    LIMIT $4"
);

const NEWEST: &str = "
    SELECT xact, sequence FROM events
    WHERE xact < (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
    ORDER BY xact DESC, sequence DESC
    LIMIT 1";

const MAY_FOLLOW: &str = "SELECT $1 < pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// By their place in the table, which a row that is locked does not change.
const DELETE_BEFORE: &str = "
    DELETE FROM events
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM events WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ))";

/// What is visible has been committed, and so is older than every transaction to come, unless it was brought here from
/// another cluster by a dump.
const RENUMBER: &str = "
    UPDATE events SET xact = DEFAULT
    WHERE xact >= (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint)";

/// Writes an event in the transaction of its change, which has the key's lock.
pub(super) async fn record(transaction: &mut Session<'_>, event: &NewEvent) -> Result<(), StoreError> {
    transaction.execute(bind_event!(sqlx::query(INSERT), event)).await.map(|_| ())
}

impl PgStore {
    /// A database that was restored from a dump brings ids of the other cluster's transactions. Those that lie ahead of
    /// this one's would not be read until it has got there: they get new ones, and are told again.
    pub(super) async fn renumber_foreign_events(&self) -> Result<(), StoreError> {
        let renumbered = self.write(Again::Once, || sqlx::query(RENUMBER)).await?;
        if renumbered > 0 {
            tracing::warn!(events = renumbered, "events of another database cluster are told again");
        }
        Ok(())
    }
}

#[async_trait]
impl EventStore for PgStore {
    async fn events_after(&self, query: EventQuery) -> Result<EventPage, StoreError> {
        let sql = if query.user.is_some() { OF_USER_AFTER } else { AFTER };
        let select = || {
            let select = sqlx::query(sql)
                .bind(query.tenant.as_str())
                .bind(query.after.transaction)
                .bind(query.after.sequence)
                .bind(i64::from(query.limit));
            match &query.user {
                Some(user) => select.bind(user.as_str()),
                None => select,
            }
        };
        let rows: Vec<EventRow> = self.all(Again::Once, select).await?;
        let events = rows.into_iter().map(TryInto::try_into).collect::<Result<Vec<Event>, StoreError>>()?;
        let reached = events.last().map_or(query.after, |last| last.position);
        Ok(EventPage { events, reached })
    }

    async fn newest_position(&self) -> Result<EventPosition, StoreError> {
        let newest: Option<(i64, i64)> = self.one(Again::Once, || sqlx::query(NEWEST)).await?;
        Ok(newest.map_or_else(EventPosition::default, |(transaction, sequence)| EventPosition {
            transaction,
            sequence,
        }))
    }

    async fn may_follow(&self, position: EventPosition) -> Result<bool, StoreError> {
        let query = || sqlx::query(MAY_FOLLOW).bind(position.transaction);
        Ok(self.one::<(bool,)>(Again::Once, query).await?.is_some_and(|(may,)| may))
    }

    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let query = || sqlx::query(DELETE_BEFORE).bind(micros(before)).bind(i64::from(limit));
        self.write(Again::Once, query).await
    }
}
