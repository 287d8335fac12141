//! The token broker: users' OAuth tokens for agents.
//!
//! # Layout
//!
//! | module | holds | may use |
//! |---|---|---|
//! | [`domain`] | the rules, pure | nothing of this crate |
//! | [`application`] | one file per use case; the refresh algorithm is `application/refresh.rs` | `domain` |
//! | [`infra`] | storage, vault, OAuth client, provider catalogue | `domain` |
//! | [`transport`] | gRPC and HTTP | `application`, `domain`, `gen` |
//! | [`r#gen`] | the committed output of the proto | nothing of this crate |
//! | [`config`] | the configuration file | `domain` |
//! | [`telemetry`] | logs and metrics | nothing of this crate |
//! | [`cli`], [`demo`] | one file per subcommand; the demo | everything |
//! | `fuzzing` | the doors for `fuzz/` | everything |
//! | [`app`], [`lifecycle`] | composition root, signals and drain | everything |
//!
//! One direction: `transport → application → domain ← infra`. `tests/it/architecture.rs` reads the imports and fails on
//! one that runs the wrong way.

pub mod app;
pub mod application;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
#[doc(hidden)]
pub mod fuzzing;
pub mod r#gen;
pub mod infra;
pub mod lifecycle;
pub mod telemetry;
pub mod transport;
