//! The login issuer as a provider: discovered, with PKCE and nonce, and of its answers the ID token alone counts, signed by its
//! keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::identity::verifier;
use super::{StartError, catalogue};
use crate::application::Login;
use crate::config;
use crate::domain::jwt::SigningAlgorithm;
use crate::domain::key::ProviderId;
use crate::domain::ports::Clock;
use crate::domain::provider::Provider;
use crate::infra::jwt::{Issuer, IssuerSettings, KeyAccess, KeyLocation, KeyTimes};
use crate::infra::outbound::Http;
use crate::infra::providers::{ClientKeys, Registration};

/// The catalogue's definition of any OpenID issuer.
const DEFINITION: &str = "oidc";
/// In logs and metrics.
const ID: &str = "login";

/// How far the issuer's clock may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// An ID token may live as long as its issuer likes: it is looked at once, when it is new.
const MAX_LIFETIME: Duration = Duration::from_hours(24 * 400);

/// With the verifier of its ID tokens. Begins to fetch the keys.
pub(super) fn login(
    config: &config::Login,
    times: KeyTimes,
    http: &Http,
    clock: &Arc<dyn Clock>,
) -> Result<Login, StartError> {
    let issuer = IssuerSettings {
        who: Issuer::Named { name: config.name.clone(), url: config.issuer.clone() },
        audiences: vec![config.client_id.clone()],
        algorithms: SigningAlgorithm::ALL.to_vec(),
        keys: KeyAccess {
            location: KeyLocation::Discovered(config.issuer.clone()),
            ca_file: None,
            bearer_token_file: None,
        },
        leeway: LEEWAY,
        max_lifetime: MAX_LIFETIME,
        for_callers: false,
        for_users: true,
    };
    let tokens = verifier(vec![issuer], times, http, clock);
    Ok(Login {
        name: config.name.clone(),
        provider: provider(config)?,
        scopes: config.scopes.clone(),
        tokens,
    })
}

/// The issuer and the broker's registration there.
pub(super) fn provider(config: &config::Login) -> Result<Arc<Provider>, StartError> {
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
    Ok(provider)
}
