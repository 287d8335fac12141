//! Permits, wake-ups and leases: [`local`] for a single process, [`redis`] for replicas.

pub mod local;
pub mod redis;
mod waiters;

use std::time::Duration;

/// How long a successor stands.
const SUCCESSOR: Duration = Duration::from_hours(24);
/// How long a successor stands once the row has it.
const STORED_SUCCESSOR: Duration = Duration::from_mins(15);
/// How long a tombstone stands.
const TOMBSTONE: Duration = Duration::from_hours(24);
/// How long a dead owner is known.
const DEAD_OWNER: Duration = Duration::from_hours(24);
/// How long a cap outlives the moment it caps at, in case that the refresh which waited for it never ends it. Every further
/// call begins it anew.
const CAP_GRACE: Duration = Duration::from_mins(1);
/// At most so many leases of a credential, so that no caller fills the memory.
const MAX_LEASES: usize = 1_000;
