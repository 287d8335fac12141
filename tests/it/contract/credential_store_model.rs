//! The contract of `credential_store_model`.
