//! What has changed for a user: a credential that was connected, broke or was revoked, a consent that ended. Events are
//! written in the transaction of the change itself, so that none is lost and none tells of what did not happen. A plain
//! refresh makes none, nor does a token that just runs out: neither changes a row's standing.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::credential::{CredentialState, Generation, ReauthReason};
use super::flow::FlowStatus;
use super::key::{CredentialKey, FlowId, TenantId, UserId};
use super::ports::StoreError;

/// How long a reader may stay away and then go on where it was.
pub const CURSOR_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long events are kept: longer than cursors live, since the clock that dated an event is another than the one that
/// dated a cursor, and a transaction takes its time.
pub const EVENT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600 + 3600);

/// Where an event stands in the order of its database: by transaction, then within it. A store that numbers in the order
/// of commits needs the second part alone. Positions grow; they have gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The database's number of the transaction; 0 where it needs none.
    pub transaction: i64,
    /// The number of the event.
    pub sequence: i64,
}

/// How a credential stands, as far as events go: a refresh under way changes nothing for anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There was no row.
    NotConnected,
    /// Active or refreshing.
    Connected,
    /// The user has to consent again.
    NeedsReauth,
    /// Revoked through the broker.
    Revoked,
}

impl From<&CredentialState> for Standing {
    fn from(state: &CredentialState) -> Self {
        match state {
            CredentialState::Active { .. } | CredentialState::Refreshing { .. } => Self::Connected,
            CredentialState::NeedsReauth { .. } => Self::NeedsReauth,
            CredentialState::Revoked => Self::Revoked,
        }
    }
}

/// The consent that an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowCause {
    /// Its id.
    pub id: FlowId,
    /// As the caller gave it when the flow began.
    pub client_state: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There are new tokens: of a consent, an import, or (from [`Standing::NeedsReauth`]) of a refresh that was given up
    /// and came through after all.
    Connected {
        /// How it stood before.
        was: Standing,
        /// Of the new pair.
        generation: Generation,
        /// The consent; `None`: there was none.
        flow: Option<FlowCause>,
    },
    /// The provider has ended the grant.
    NeedsReauth {
        /// How it stood before.
        was: Standing,
        /// Why.
        reason: ReauthReason,
        /// Of the pair that is of no use any more.
        generation: Generation,
    },
    /// Revoked through the broker.
    Revoked {
        /// How it stood before.
        was: Standing,
        /// Of the pair that was deleted.
        generation: Generation,
    },
    /// A consent is over. One that succeeds makes [`Change::Connected`] as well, before this.
    FlowEnded {
        /// Which.
        flow: FlowCause,
        /// How it stood before: pending or exchanging.
        was: FlowStatus,
        /// How it ended.
        is: FlowStatus,
    },
}

/// A change that is not stored yet. Its key names the owner, so that there is no event that is nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Whose, and of what.
    pub key: CredentialKey,
    /// What.
    pub change: Change,
    /// When.
    pub at: Timestamp,
}

/// A stored change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands.
    pub position: EventPosition,
    /// What it says.
    pub told: NewEvent,
}

/// See [`EventStore::events_after`].
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only those behind this.
    pub after: EventPosition,
    /// At most so many, at least 1.
    pub limit: u32,
}

/// See [`EventStore::events_after`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// In order.
    pub events: Vec<Event>,
    /// Where to read on: all that the query asks for up to here is on this page.
    pub reached: EventPosition,
}

/// Events. Contract: `tests/it/contract/event_store.rs`.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// The next events of a tenant. An event is shown only when none can appear before it any more: whoever reads on from
    /// [`EventPage::reached`] misses none. Those of one credential come in the order in which they happened.
    async fn events_after(&self, query: EventQuery) -> Result<EventPage, StoreError>;

    /// Where to read on from if only what is still to come is of interest.
    async fn newest_position(&self) -> Result<EventPosition, StoreError>;

    /// Whether this can be a position of this database. False: it is another one's, or of this one before it was set back.
    async fn may_follow(&self, position: EventPosition) -> Result<bool, StoreError>;

    /// Deletes some that are older, at most `limit`. Answers how many.
    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
