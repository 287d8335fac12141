//! The OAuth client: one hardened HTTP client, the `oauth2` crate, and how answers are read.
