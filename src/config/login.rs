//! `[login]`: where users sign in before a consent of the binding `login`.

use super::reader::Section;
use super::secret::secret;
use super::values::web_url;
use crate::domain::key::ProviderId;
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::secret::SecretString;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Login {
    /// As its metadata writes it.
    pub issuer: String,
    /// The first part of its users' ids; a slug.
    pub name: String,
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`; `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// `openid` among them.
    pub scopes: ScopeSet,
}

/// `Some(None)`: there is none.
#[expect(
    clippy::option_option,
    reason = "outer: whether it could be read, as everywhere here; inner: whether it is set"
)]
pub(super) fn read(section: &Section<'_>) -> Option<Option<Login>> {
    let issuer_key = section.optional("issuer");
    let client_key = section.optional("client_id");
    let secret_file = section.optional("client_secret_file");
    let secret_variable = section.optional("client_secret_env");
    let client_secret = secret(&secret_file, &secret_variable);
    // A slug, in the syntax of a provider's id: no bar can be in it.
    let name = section.required("name").parsed(|text| ProviderId::new(text).map(|name| name.to_string()));
    let scopes_key = section.required("scopes");
    let scopes = scopes_key.list(|text| Scope::new(text));
    section.finish();
    if scopes.as_ref().is_some_and(|scopes| scopes.iter().all(|scope| scope.as_str() != "openid")) {
        scopes_key.problem("must have \"openid\": without it there is no ID token that says who signed in");
    }
    if !issuer_key.is_set() {
        for key in [&client_key, &secret_file, &secret_variable] {
            if key.is_set() {
                key.problem("is of no use without login.issuer");
            }
        }
        return Some(None);
    }
    // Kept as it is written: it is compared with the metadata's own byte by byte.
    let issuer = issuer_key.parsed(|text| web_url(text).map(|_| text.to_owned()));
    if !client_key.is_set() {
        issuer_key.problem("needs login.client_id beside it");
    }
    Some(Some(Login {
        issuer: issuer?,
        name: name?,
        client_id: client_key.text()?,
        client_secret: client_secret?,
        scopes: scopes?.into_iter().collect::<ScopeSet>(),
    }))
}
