//! The audit log, from a decision to its row.
//!
//! | file | does |
//! |---|---|
//! | `decision.rs` | one call's row: begun with the call, ended with its answer, also if the caller hangs up |
//! | `events.rs` | rows of what happens without a call: consents, presentations of refresh tokens, revocations |
//! | `log.rs` | takes decisions, and says which calls can't be recorded |
//! | `queue.rs` | the rows that wait, by chain, and for which of them there is room |
//! | `pump.rs` | a writer for each chain that has rows: takes what has gathered and commits it as one batch |
//! | `database.rs` | whether the database answers, as the writers find it |
//! | `sinks.rs` | copies to sinks, each at its own pace |
//! | `archive.rs` | queries, verification, export |
//! | `prune.rs` | removes what is older than it has to be kept, leaving a chain that can be verified |

mod archive;
mod database;
mod decision;
mod events;
mod log;
mod prune;
mod pump;
mod queue;
mod sinks;

pub use archive::{AuditArchive, AuditPage, AuditVerdict};
pub use decision::{Auditor, Decision, Notes};
pub use log::{AuditLog, AuditSettings, OnFailure};
