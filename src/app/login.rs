//! The login issuer as a provider: discovered, with PKCE and nonce, and of its answers the ID token alone counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{StartError, catalogue};
use crate::application::Login;
use crate::config;
use crate::domain::key::ProviderId;
use crate::domain::ports::ProviderDirectory as _;
use crate::infra::providers::{ClientKeys, Registration};

/// The catalogue's definition of any OpenID issuer.
const DEFINITION: &str = "oidc";
/// In logs and metrics.
const ID: &str = "login";

pub(super) fn login(config: &config::Login) -> Result<Login, StartError> {
    let id = ProviderId::new(ID).map_err(|_| StartError::NoLogin)?;
    let registration = Registration {
        id,
        definition: DEFINITION.to_owned(),
        client_id: config.client_id.clone(),
        client_secret: config.client_secret.clone(),
        variables: BTreeMap::from([("issuer".to_owned(), config.issuer.clone())]),
        keys: ClientKeys::default(),
    };
    // The built-in one, whatever the operator's files say.
    let configured = catalogue(&[])?.configure(vec![registration]).map_err(StartError::Registrations)?;
    let mut provider = configured.all().pop().ok_or(StartError::NoLogin)?;
    let rules = Arc::make_mut(&mut provider);
    // Nobody is asked for consent again who only signs in.
    rules.authorization.params.clear();
    rules.identity.userinfo = None;
    Ok(Login { name: config.name.clone(), provider, scopes: config.scopes.clone() })
}
