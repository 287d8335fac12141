//! The gRPC surface as any client in any language meets it.

mod isolation;
mod leases;
mod openness;
mod pages;
mod watch;
mod wire;
