//! The doors: gRPC for callers, HTTP for browsers and for orchestrators.

mod accept;
pub mod grpc;
pub mod http;
mod proxies;

pub use proxies::{ForwardedBy, Proxies};
