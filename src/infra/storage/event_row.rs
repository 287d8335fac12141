//! A row of `events`, between columns and domain.

use crate::domain::credential::Generation;
use crate::domain::event::{Change, Event, EventPosition, FlowCause, NewEvent, Standing};
use crate::domain::flow::FlowStatus;
use crate::domain::key::FlowId;
use crate::domain::ports::StoreError;

use super::codec::{
    KeyColumns, array, flow_status, flow_status_texts, reauth_reason, reauth_reason_text, standing,
    standing_text, time,
};

/// The columns of [`EventRow`] behind the position.
macro_rules! event_columns {
    () => {
        "tenant, provider, user_id, grant_name, account, subject, old_status, new_status, reason, generation, flow_id, \
         client_state, created_at"
    };
}
pub(super) use event_columns;

/// What the columns from `subject` to `client_state` say.
pub(super) struct Columns<'e> {
    pub(super) subject: &'static str,
    pub(super) old_status: &'static str,
    pub(super) new_status: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) generation: Option<Generation>,
    pub(super) flow: Option<&'e FlowCause>,
}

impl<'e> Columns<'e> {
    pub(super) fn of(change: &'e Change) -> Self {
        let credential = |was, is, generation| Self {
            subject: "credential",
            old_status: standing_text(was),
            new_status: standing_text(is),
            reason: None,
            generation: Some(generation),
            flow: None,
        };
        match change {
            Change::Connected { was, generation, flow } => {
                Self { flow: flow.as_ref(), ..credential(*was, Standing::Connected, *generation) }
            }
            Change::NeedsReauth { was, reason, generation } => Self {
                reason: Some(reauth_reason_text(*reason)),
                ..credential(*was, Standing::NeedsReauth, *generation)
            },
            Change::Revoked { was, generation } => credential(*was, Standing::Revoked, *generation),
            Change::FlowEnded { flow, was, is } => {
                let (new_status, reason) = flow_status_texts(*is);
                Self {
                    subject: "flow",
                    old_status: flow_status_texts(*was).0,
                    new_status,
                    reason,
                    generation: None,
                    flow: Some(flow),
                }
            }
        }
    }
}

/// Binds the columns from `tenant` on, in order. A macro, since the two databases' queries are of two types.
macro_rules! bind_event {
    ($query:expr, $event:expr) => {{
        use $crate::infra::storage::codec::micros;
        let $crate::domain::event::NewEvent { key, change, at } = $event;
        let columns = $crate::infra::storage::event_row::Columns::of(change);
        $query
            .bind(key.tenant.as_str())
            .bind(key.provider.as_str())
            .bind(key.user.as_str())
            .bind(key.grant.as_str())
            .bind(key.account.as_str())
            .bind(columns.subject)
            .bind(columns.old_status)
            .bind(columns.new_status)
            .bind(columns.reason)
            .bind(columns.generation)
            .bind(columns.flow.map(|flow| &flow.id.as_bytes()[..]))
            .bind(columns.flow.and_then(|flow| flow.client_state.as_deref()))
            .bind(micros(*at))
    }};
}
pub(super) use bind_event;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct EventRow {
    xact: i64,
    sequence: i64,
    #[sqlx(flatten)]
    key: KeyColumns,
    subject: String,
    old_status: String,
    new_status: String,
    reason: Option<String>,
    generation: Option<i64>,
    flow_id: Option<Vec<u8>>,
    client_state: Option<String>,
    created_at: i64,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let flow = match row.flow_id {
            Some(id) => {
                Some(FlowCause { id: FlowId::from_bytes(array(&id)?), client_state: row.client_state })
            }
            None => None,
        };
        let change = match (row.subject.as_str(), row.generation, flow) {
            ("credential", Some(generation), flow) => {
                let was = standing(&row.old_status)?;
                match (standing(&row.new_status)?, row.reason.as_deref()) {
                    (Standing::Connected, None) => Change::Connected { was, generation, flow },
                    (Standing::NeedsReauth, Some(reason)) => {
                        Change::NeedsReauth { was, reason: reauth_reason(reason)?, generation }
                    }
                    (Standing::Revoked, None) => Change::Revoked { was, generation },
                    _ => return Err(DAMAGED),
                }
            }
            ("flow", None, Some(flow)) => Change::FlowEnded {
                flow,
                was: before_the_end(&row.old_status)?,
                is: flow_status(&row.new_status, row.reason.as_deref())?,
            },
            _ => return Err(DAMAGED),
        };
        Ok(Self {
            position: EventPosition { transaction: row.xact, sequence: row.sequence },
            told: NewEvent { key: row.key.try_into()?, change, at: time(row.created_at)? },
        })
    }
}

const DAMAGED: StoreError = StoreError::Corrupt("an event");

fn before_the_end(text: &str) -> Result<FlowStatus, StoreError> {
    match flow_status(text, None)? {
        status @ (FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging) => Ok(status),
        _ => Err(DAMAGED),
    }
}
