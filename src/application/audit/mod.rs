//! The audit log, from a decision to its row.
//!
//! | file | does |
//! |---|---|
//! | `decision.rs` | one call's row: begun with the call, ended with its answer, also if the caller hangs up |
//! | `events.rs` | rows of what happens without a call: consents, presentations of refresh tokens, revocations |
//! | `log.rs` | the queue in front of the chains, and what a full one means |
//! | `pump.rs` | takes what has gathered in the queue and commits it as one batch for each tenant |
//! | `sinks.rs` | copies to sinks, each at its own pace |
//! | `archive.rs` | queries, verification, export |
//! | `prune.rs` | removes what is older than it has to be kept, leaving a chain that can be verified |

mod archive;
mod decision;
mod events;
mod log;
mod prune;
mod pump;
mod sinks;

pub use archive::{AuditArchive, AuditPage, AuditVerdict};
pub use decision::{Auditor, Decision, Notes};
pub use log::{AuditLog, AuditSettings, OnFailure};
