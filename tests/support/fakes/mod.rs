//! Outside worlds in memory, for any test target: `#[path = "../support/fakes/mod.rs"] mod fakes;`.

#![allow(dead_code, reason = "each target uses its part")]

mod memory_audit;
mod memory_callers;
mod memory_configs;
mod memory_reencryption;
mod memory_store;
mod memory_tables;
mod memory_users;

pub(crate) use memory_store::MemoryStore;
