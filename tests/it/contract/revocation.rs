//! The contract of `revocation`.
