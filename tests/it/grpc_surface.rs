//! The gRPC surface as any client in any language meets it.

mod isolation;
mod openness;
mod wire;
