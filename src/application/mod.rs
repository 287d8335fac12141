//! The use cases: one file each, each one public method of [`Broker`].

pub mod error;
pub mod types;

mod begin_oauth;
mod broker;
mod complete_oauth;
mod flow_status;
mod get_credential;
mod import_credential;
mod list_credentials;
mod list_providers;
mod refresh;
mod revoke;
mod sweep;

pub use broker::{Broker, Ports, Settings};
