//! What tests share: real servers they start for themselves, and hands to work them.

pub(crate) mod alone;
pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod cargo_toml;
pub(crate) mod chromium;
pub(crate) mod clock;
pub(crate) mod consent;
pub(crate) mod coordination;
pub(crate) mod doors;
pub(crate) mod dump;
pub(crate) mod faulty_store;
pub(crate) mod hostile;
pub(crate) mod keep;
pub(crate) mod life;
pub(crate) mod memory_journal;
pub(crate) mod mortal;
pub(crate) mod offset_clock;
pub(crate) mod oidc;
pub(crate) mod provider;
pub(crate) mod provider_player;
pub(crate) mod replica;
pub(crate) mod rig;
pub(crate) mod strict_provider;
pub(crate) mod switched_leases;
pub(crate) mod tls_front;
pub(crate) mod token_server;
