//! The committed output of `proto/`, made by `make proto` and proven fresh by `tests/it/proto_sync.rs`. Do not edit.

#[expect(
    clippy::pedantic,
    clippy::all,
    missing_docs,
    reason = "generated code; its comments are the proto's"
)]
pub mod v1 {
    include!("tokenbroker.v1.rs");
}

/// The compiled proto files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("descriptor.bin");
