//! The doors: gRPC for callers, HTTP for browsers and for orchestrators.

pub mod grpc;
pub mod http;
