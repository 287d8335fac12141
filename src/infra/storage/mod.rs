//! Storage. `SQLite` is the embedded default.

mod audit_row;
mod caller_row;
mod caller_sql;
mod codec;
mod credential_row;
mod data_key_row;
mod event_row;
mod flow_row;
mod migrations;
pub mod postgres;
mod provider_config_row;
mod provider_config_sql;
mod refused;
mod revocation_row;
mod sealed_row;
pub mod sqlite;
mod user_key_row;
mod user_sql;

pub use migrations::MigrationState;
