//! The rules, pure: no tokio, no SQL, no HTTP. Every function of time takes `now`.

pub mod access_policy;
pub mod admin_policy;
pub mod audit;
pub mod breaker;
pub mod caller_store;
pub mod cipher;
pub mod client;
pub mod coordination;
pub mod credential;
pub mod data_key;
pub mod event;
pub mod flow;
pub mod jwt;
pub mod key;
pub mod loopback;
pub mod ports;
pub mod provider;
pub mod provider_config;
pub mod rate_limit;
pub mod refresh_policy;
pub mod scope;
pub mod secret;
pub mod spiffe;
pub mod step;
pub mod token_set;
pub mod user_key;
