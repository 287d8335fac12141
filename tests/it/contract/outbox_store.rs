//! The contract of `outbox_store`.
