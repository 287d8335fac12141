//! All integration tests in one binary: one link, one build.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is the report; the lint allows it in #[test] functions, not in their helpers"
)]

mod admin;
mod admin_callers;
mod admin_identities;
mod application;
mod architecture;
mod audit;
mod caller_directory;
mod callers;
mod chaos_history;
mod cli;
mod clients;
mod config;
mod connections;
mod consent_migration;
mod consent_security;
mod contract;
mod crypto_format;
mod demo;
mod dependencies;
#[path = "../support/engines/mod.rs"]
mod engines;
#[path = "../support/fakes/mod.rs"]
mod fakes;
mod fuzz_corpus;
mod grpc_bad_input;
mod grpc_surface;
mod http_callback;
mod http_pages;
mod identity;
mod isolation_matrix;
mod journal;
mod keys;
mod lifecycle;
mod limits;
mod main_job;
mod oauth_client;
mod oidc_provider;
mod outbound;
mod own_apps;
mod postgres;
mod postgres_events;
mod private_engines;
mod proofs;
mod proto_sync;
mod provider_conformance;
mod provider_loader;
mod redis_faults;
#[path = "../support/splitmix.rs"]
mod splitmix;
mod step_names;
mod storage_damage;
mod storage_faults;
mod support;
mod user_key_migration;
mod watch_rights;
