//! The use cases: one file each, each one public method of [`Broker`]. The refresh algorithm is `refresh.rs`.

pub mod error;
pub mod types;

pub mod admin;
mod adopt;
pub mod audit;
mod begin_oauth;
mod broker;
mod complete_oauth;
mod elsewhere;
mod endings;
mod flow_status;
mod fuzz;
mod gates;
mod get_credential;
mod import_credential;
mod keyed_lock;
mod lease;
mod lease_gate;
pub mod limits;
mod list_credentials;
mod list_providers;
mod metrics;
mod orphan;
mod pauses;
mod record;
mod refresh;
mod refresh_ahead;
mod replay;
mod return_url;
mod revoke;
mod sealing;
mod single_flight;
mod sweep;
mod target;
mod tell;
mod token_answer;
mod watch;

pub use broker::{Broker, Ports, Settings};
pub(crate) use fuzz::read_position;
pub use lease::LeaseSettings;
pub use lease_gate::LeaseGate;
pub use watch::{Watch, WatchSettings};
