//! What users can connect to: the operator's providers, and what a tenant's own app has to be.

use std::path::PathBuf;
use std::sync::Arc;

use super::{StartError, http_settings};
use crate::config::Config;
use crate::domain::ports::ConfigMistake;
use crate::domain::provider::Provider;
use crate::infra::oauth::{BadClientKey, admits_tenants_own, check_client_keys};
use crate::infra::providers::{
    BAD_CERTIFICATE, BAD_PRIVATE_KEY, Catalogue, ClientCheck, ClientKeys, ConfiguredProviders, PrivateKey,
    Registration, RegistrationError, RegistrationMistake,
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
    let mistakes: Vec<_> =
        providers.all().iter().filter_map(|provider| client_key_mistake(provider)).collect();
    if mistakes.is_empty() { Ok((catalogue, providers)) } else { Err(StartError::Registrations(mistakes)) }
}

/// What is wrong with a tenant's app beside its registration: keys that can't be used, and places that it may not lead to.
pub(super) fn own_app_check(config: &Config) -> ClientCheck {
    let guard = Arc::clone(&http_settings(config).guard);
    Box::new(move |provider| {
        let mut mistakes = Vec::new();
        let mut add = |field: &str, description: &str| {
            mistakes.push(ConfigMistake { field: field.to_owned(), description: description.to_owned() });
        };
        match check_client_keys(&provider.client) {
            Ok(()) => {}
            Err(BadClientKey::PrivateKey) => add("authentication.private_key", BAD_PRIVATE_KEY),
            Err(BadClientKey::Certificate) => add("authentication.tls_certificate", BAD_CERTIFICATE),
        }
        if !admits_tenants_own(provider, &guard) {
            add("variables", "With these, requests would go into the broker's own network.");
        }
        mistakes
    })
}

fn client_key_mistake(provider: &Provider) -> Option<RegistrationError> {
    let mistake = match check_client_keys(&provider.client).err()? {
        BadClientKey::PrivateKey => RegistrationMistake::BadPrivateKey,
        BadClientKey::Certificate => RegistrationMistake::BadCertificate,
    };
    Some(RegistrationError { provider: provider.id.clone(), mistake })
}
