//! Provider configurations of AdminService, between messages and what use cases take and answer.

use std::collections::{BTreeMap, HashMap};

use super::callers::Page;
use super::check::Check;
use super::number;
use super::time::timestamp;
use crate::application::admin::{NewProviderConfig, ProviderConfigChange, ProviderConfigView};
use crate::application::error::BrokerError;
use crate::domain::client::{AssertionAlgorithm, ClientAuth};
use crate::domain::key::{ProviderId, TenantId};
use crate::domain::provider_config::{
    ClientAuthentication, MAX_CLIENT_SECRET_BYTES, MAX_KEY_ID_BYTES, MAX_PEM_CHAIN_BYTES, MAX_PEM_KEY_BYTES,
    MAX_VARIABLE_BYTES, MAX_VARIABLES,
};
use crate::domain::secret::SecretString;
use crate::r#gen::v1 as pb;

/// The longest client id, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 512;
/// The longest name of a variable, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Which configuration.
pub(in super::super) type ConfigName = (Option<TenantId>, ProviderId);

pub(in super::super) fn new_config(
    message: pb::CreateProviderConfigurationRequest,
) -> Result<(Option<TenantId>, NewProviderConfig), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let provider = check.parsed("provider", ProviderId::new(message.provider));
    let definition = if message.definition.is_empty() {
        provider.clone()
    } else {
        check.parsed("definition", ProviderId::new(message.definition))
    };
    let client_id = check.needed_text("client_id", message.client_id, MAX_CLIENT_ID_BYTES);
    let variables = variables(&mut check, message.variables);
    let authentication = authentication(&mut check, message.authentication.unwrap_or_default());
    check.finish(|| {
        Some((
            tenant,
            NewProviderConfig {
                provider: provider?,
                definition: definition?.into(),
                client_id: client_id?,
                variables: variables?,
                authentication,
                disabled: message.disabled,
            },
        ))
    })
}

pub(in super::super) fn config_name(tenant: String, provider: String) -> Result<ConfigName, BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(tenant);
    let provider = check.parsed("provider", ProviderId::new(provider));
    check.finish(|| Some((tenant, provider?)))
}

pub(in super::super) fn config_page(
    message: pb::ListProviderConfigurationsRequest,
) -> Result<(Option<TenantId>, Page<ProviderId>), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let page = check.page(message.page_size, message.page_token, |text| ProviderId::new(text).ok());
    check.finish(|| Some((tenant, page?)))
}

pub(in super::super) fn config_change(
    message: pb::UpdateProviderConfigurationRequest,
) -> Result<(ConfigName, u64, ProviderConfigChange), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let provider = check.parsed("provider", ProviderId::new(message.provider));
    let revision = check.revision(message.revision, "configuration");
    if message.authentication.is_none() && message.disabled.is_none() {
        check.fail::<()>("authentication", "must be set, or `disabled`: there is nothing else to change");
    }
    let authentication = message.authentication.map(|message| authentication(&mut check, message));
    check.finish(|| {
        let change = ProviderConfigChange { authentication, disabled: message.disabled };
        Some(((tenant, provider?), revision?, change))
    })
}

fn variables(check: &mut Check, values: HashMap<String, String>) -> Option<BTreeMap<String, String>> {
    if values.len() > MAX_VARIABLES {
        return check.fail("variables", format!("must be at most {MAX_VARIABLES}"));
    }
    let name_ok = |name: &String| {
        name.len() <= MAX_NAME_BYTES
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if !values.keys().all(name_ok) {
        return check
            .fail("variables", "each name must be of a-z, 0-9 and '_' with a letter in front, at most 64");
    }
    let mut read = BTreeMap::new();
    for (name, value) in values {
        if let Some(value) = check.needed_text(&format!("variables.{name}"), value, MAX_VARIABLE_BYTES) {
            read.insert(name, value);
        }
    }
    Some(read)
}

fn authentication(
    check: &mut Check,
    message: pb::ClientAuthentication,
) -> ClientAuthentication<SecretString> {
    let field = |name: &str| format!("authentication.{name}");
    let method = check.optional(&field("method"), message.method, |text| ClientAuth::parse(&text));
    let algorithm = check.optional(&field("private_key_algorithm"), message.private_key_algorithm, |text| {
        AssertionAlgorithm::parse(&text)
    });
    let key_id = check.text(&field("private_key_id"), message.private_key_id, MAX_KEY_ID_BYTES);
    let secret = client_secret(check, message.client_secret);
    let private_key = pem(check, &field("private_key"), message.private_key, MAX_PEM_KEY_BYTES);
    let chain = pem(check, &field("tls_certificate"), message.tls_certificate, MAX_PEM_CHAIN_BYTES);
    let tls_key = pem(check, &field("tls_key"), message.tls_key, MAX_PEM_KEY_BYTES);
    ClientAuthentication {
        method,
        client_secret: secret,
        private_key,
        private_key_id: key_id,
        private_key_algorithm: algorithm,
        tls_certificate: chain.map(|chain| chain.expose_secret().to_owned()),
        tls_key,
    }
}

/// RFC 6749 appendix A.2: visible characters and space. What a clipboard added at an end would be another secret.
fn client_secret(check: &mut Check, text: String) -> Option<SecretString> {
    let (field, secret) = ("authentication.client_secret", SecretString::new(text));
    let text = secret.expose_secret();
    if text.is_empty() {
        return None;
    }
    if text.len() > MAX_CLIENT_SECRET_BYTES {
        return check.fail(field, format!("must be at most {MAX_CLIENT_SECRET_BYTES} bytes long"));
    }
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) || text.trim() != text {
        return check.fail(field, "must be printable ASCII without space at either end");
    }
    Some(secret)
}

fn pem(check: &mut Check, field: &str, text: String, most: usize) -> Option<SecretString> {
    let secret = SecretString::new(text);
    let text = secret.expose_secret();
    if text.is_empty() {
        return None;
    }
    if text.len() > most {
        return check.fail(field, format!("must be at most {most} bytes long"));
    }
    if !text.bytes().all(|b| b == b'\n' || b == b'\r' || (b' '..=b'~').contains(&b)) {
        return check.fail(field, "must be PEM");
    }
    Some(secret)
}

pub(in super::super) fn config_message(view: ProviderConfigView) -> pb::ProviderConfiguration {
    let ProviderConfigView { config, redirect_uri } = view;
    let of = config.authentication;
    pb::ProviderConfiguration {
        tenant: config.tenant.into(),
        provider: config.provider.into(),
        configuration_id: config.id.to_string(),
        redirect_uri: redirect_uri.into(),
        definition: config.definition,
        client_id: config.client_id,
        variables: config.variables.into_iter().collect(),
        method: of.method.map(|method| method.name().to_owned()).unwrap_or_default(),
        private_key_id: of.private_key_id.unwrap_or_default(),
        private_key_algorithm: of
            .private_key_algorithm
            .map(|algorithm| algorithm.name().to_owned())
            .unwrap_or_default(),
        tls_certificate: of.tls_certificate.unwrap_or_default(),
        has_client_secret: of.client_secret.is_some(),
        has_private_key: of.private_key.is_some(),
        disable_time: config.disabled_at.map(timestamp),
        revision: number(config.revision),
        create_time: Some(timestamp(config.created_at)),
        update_time: Some(timestamp(config.updated_at)),
    }
}
