//! What users can connect to: the operator's providers, and what a tenant's own app has to be.

use std::path::PathBuf;
use std::sync::Arc;

use super::{StartError, http_settings};
use crate::config::Config;
use crate::domain::ports::ConfigMistake;
use crate::domain::provider::Client;
use crate::infra::oauth::{BadClientKey, admits_tenants_own, check_client_keys};
use crate::infra::providers::{
    Catalogue, ClientCheck, ClientKeys, ConfiguredProviders, PrivateKey, Registration, RegistrationError,
    RegistrationMistake, told,
};

/// The built-in definitions and those of the operator's files.
pub(crate) fn catalogue(files: &[PathBuf]) -> Result<Catalogue, StartError> {
    Catalogue::load(files).map_err(StartError::Definitions)
}

/// The operator's providers, which users of all tenants can connect to.
pub(crate) fn providers(config: &Config) -> Result<ConfiguredProviders, StartError> {
    catalogue_and_providers(config).map(|(_, providers)| providers)
}

/// The same, and the definitions that tenants' own apps can be of.
pub(super) fn catalogue_and_providers(
    config: &Config,
) -> Result<(Catalogue, ConfiguredProviders), StartError> {
    let catalogue = catalogue(&config.provider_definitions)?;
    let registrations = config.providers.iter().cloned().map(|entry| Registration {
        keys: ClientKeys {
            auth: entry.client_auth,
            private_key: entry.private_key.map(|key| PrivateKey {
                pem: key.pem,
                id: key.id,
                algorithm: key.algorithm,
            }),
            certificate: entry.certificate,
        },
        id: entry.id,
        definition: entry.definition,
        client_id: entry.client_id,
        client_secret: entry.client_secret,
        variables: entry.variables,
    });
    let providers = catalogue.configure(registrations.collect()).map_err(StartError::Registrations)?;
    let mut mistakes = Vec::new();
    for provider in providers.all() {
        let mistake = key_mistake(&provider.client);
        mistakes.extend(mistake.map(|mistake| RegistrationError { provider: provider.id.clone(), mistake }));
    }
    if mistakes.is_empty() { Ok((catalogue, providers)) } else { Err(StartError::Registrations(mistakes)) }
}

/// What is wrong with a tenant's app beside its registration: keys that can't be used, and places that it may not lead to.
pub(super) fn own_app_check(config: &Config) -> ClientCheck {
    let guard = Arc::clone(&http_settings(config).guard);
    Box::new(move |provider| {
        let mut mistakes: Vec<_> = key_mistake(&provider.client).iter().map(told).collect();
        if !admits_tenants_own(provider, &guard) {
            mistakes.push(ConfigMistake {
                field: "variables".to_owned(),
                description: "With these, requests would go into the broker's own network.".to_owned(),
            });
        }
        mistakes
    })
}

fn key_mistake(client: &Client) -> Option<RegistrationMistake> {
    match check_client_keys(client).err()? {
        BadClientKey::PrivateKey => Some(RegistrationMistake::BadPrivateKey),
        BadClientKey::Certificate => Some(RegistrationMistake::BadCertificate),
    }
}
