//! Messages to what use cases take (`requests.rs`, by the rules of `check.rs`), and what they answer to messages
//! (`answers.rs`, `enums.rs`). `user.rs` says whom a message is about; `audit.rs`, `callers.rs`, `keys.rs`,
//! `provider_configs.rs` and `rules.rs` are for AdminService.

pub(super) mod answers;
pub(super) mod audit;
pub(super) mod callers;
mod check;
mod enums;
pub(super) mod keys;
pub(super) mod provider_configs;
pub(super) mod requests;
pub(super) mod rules;
mod time;
pub(super) mod user;

pub(super) use enums::consent_reason_name;

/// A number for a message, whose type is smaller.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count for a message, whose type is smaller.
pub(super) fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
