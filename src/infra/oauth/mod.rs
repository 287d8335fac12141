//! The OAuth client over the hardened HTTP client: requests built by the `oauth2` crate, and answers read by each provider's
//! own rules.
//!
//! | file | holds |
//! |---|---|
//! | `client` | the port: which request, in which order |
//! | `request` | authorization URLs and token requests |
//! | `assertion` | `private_key_jwt` |
//! | `classify` | what a token answer means for the token that was presented |
//! | `response` | where the values of an answer stand |
//! | `discovery` | the endpoints of an issuer |
//! | `fuzz` | what a hostile server sends, for `fuzz/` |
//! | `identity` | ID tokens and userinfo |
//! | `reach` | who named a URL: the operator, or a document of the provider's |
//! | `revoke` | ending a grant |

mod assertion;
mod classify;
mod client;
mod discovery;
pub(crate) mod fuzz;
mod identity;
mod reach;
mod request;
mod response;
mod revoke;

use crate::domain::provider::Client;
use crate::infra::outbound::check_certificate;
pub use client::HttpOAuthClient;
pub use reach::admits_tenants_own;

/// What is wrong with the keys of a client. Nothing of them is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadClientKey {
    /// The one that signs assertions.
    PrivateKey,
    /// The certificate, or its key.
    Certificate,
}

/// Whether the client's keys can be used; better known at start than at the first refresh.
pub fn check_client_keys(client: &Client) -> Result<(), BadClientKey> {
    if client.assertion.as_ref().is_some_and(|key| !assertion::can_sign(key)) {
        return Err(BadClientKey::PrivateKey);
    }
    match &client.certificate {
        Some(certificate) => check_certificate(certificate).map_err(|_| BadClientKey::Certificate),
        None => Ok(()),
    }
}
