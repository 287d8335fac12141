//! Messages to what use cases take (`requests.rs`, by the rules of `check.rs`), and what they answer to messages
//! (`answers.rs`, `enums.rs`).

pub(super) mod answers;
pub(super) mod audit;
mod check;
mod enums;
pub(super) mod requests;
mod time;

pub(super) use enums::consent_reason_name;
