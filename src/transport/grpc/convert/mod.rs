//! Messages to what use cases take (`requests.rs`, by the rules of `check.rs`), and what they answer to messages
//! (`answers.rs`, `enums.rs`). `user.rs` says whom a message is about; `callers.rs` and `rules.rs` are for AdminService.

pub(super) mod answers;
pub(super) mod audit;
pub(super) mod callers;
mod check;
mod enums;
pub(super) mod provider_configs;
pub(super) mod requests;
pub(super) mod rules;
mod time;
pub(super) mod user;

pub(super) use enums::consent_reason_name;
pub(super) use time::timestamp;
