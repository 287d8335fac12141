//! Logs and metrics.
//!
//! Secrets are kept out by their types. What this module adds: other crates never log below `info`, whatever the
//! configuration says, and a panic's text stays out of the log when it was made at run time.

pub mod logs;
pub mod metrics;
pub mod panics;
