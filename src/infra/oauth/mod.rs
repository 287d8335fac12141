//! The OAuth client over the hardened HTTP client: requests built by the `oauth2` crate, and answers read by each provider's
//! own rules.
//!
//! | file | holds |
//! |---|---|
//! | `client` | the port: which request, in which order |
//! | `request` | authorization URLs and token requests |
//! | `classify` | what a token answer means for the token that was presented |
//! | `response` | where the values of an answer stand |
//! | `discovery` | the endpoints of an issuer |
//! | `identity` | ID tokens and userinfo |
//! | `internal` | which hosts are in this network, where an issuer elsewhere may not point |
//! | `revoke` | ending a grant |

mod classify;
mod client;
mod discovery;
mod identity;
mod internal;
mod request;
mod response;
mod revoke;

pub use client::HttpOAuthClient;
