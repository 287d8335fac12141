//! The contract of `flow_store`.
