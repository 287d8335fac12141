//! Implementations of the ports; each file knows one library.

pub mod audit;
mod cache;
pub mod callers;
pub mod coordination;
pub mod crypto;
mod file_lock;
pub mod journal;
pub mod jwt;
pub mod oauth;
pub mod outbound;
pub mod providers;
pub mod record;
pub mod storage;
pub mod system;
pub mod tls;
