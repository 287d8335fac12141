//! A row of `provider_configurations`, between columns and domain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::{array, number, optional_time, provider, tenant, time};
use crate::domain::client::{AssertionAlgorithm, ClientAuth};
use crate::domain::credential::Sealed;
use crate::domain::key::ConfigId;
use crate::domain::ports::StoreError;
use crate::domain::provider_config::{
    ClientAuthentication, ConfigUses, ConfigWrite, DueConfig, ProviderConfig,
};

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct ConfigRow {
    tenant: String,
    provider: String,
    id: Vec<u8>,
    definition: String,
    client_id: String,
    variables: String,
    authentication: String,
    client_secret_sealed: Option<Vec<u8>>,
    private_key_sealed: Option<Vec<u8>>,
    tls_key_sealed: Option<Vec<u8>>,
    disabled_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
    revision: i64,
}

/// The column `authentication`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthenticationJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key_algorithm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<String>,
}

/// The columns of a configuration that are JSON.
pub(super) struct ConfigJson {
    pub(super) variables: String,
    pub(super) authentication: String,
}

impl ConfigJson {
    pub(super) fn of(config: &ProviderConfig) -> Self {
        let of = &config.authentication;
        let authentication = AuthenticationJson {
            method: of.method.map(|method| method.name().to_owned()),
            private_key_id: of.private_key_id.clone(),
            private_key_algorithm: of.private_key_algorithm.map(|algorithm| algorithm.name().to_owned()),
            tls_certificate: of.tls_certificate.clone(),
        };
        Self { variables: json(&config.variables), authentication: json(&authentication) }
    }
}

fn json(value: &impl Serialize) -> String {
    // Texts always have a JSON form; an empty text would not be read back.
    serde_json::to_string(value).unwrap_or_default()
}

/// Binds the columns of a change in their order, from `authentication` to `disabled_at`. A macro, since the two databases'
/// queries are of two types.
macro_rules! bind_authentication {
    ($query:expr, $config:expr, $json:expr) => {{
        let config: &$crate::domain::provider_config::ProviderConfig = $config;
        let sealed = |sealed: &Option<$crate::domain::credential::Sealed>| {
            sealed.as_ref().map(|sealed| sealed.0.clone())
        };
        $query
            .bind($json)
            .bind(sealed(&config.authentication.client_secret))
            .bind(sealed(&config.authentication.private_key))
            .bind(sealed(&config.authentication.tls_key))
            .bind(config.disabled_at.map($crate::infra::storage::codec::micros))
    }};
}
pub(super) use bind_authentication;

/// Binds all columns of a new one in their order, and how many there may be.
macro_rules! bind_new {
    ($query:expr, $config:expr, $json:expr) => {{
        let config: &$crate::domain::provider_config::ProviderConfig = $config;
        let json: $crate::infra::storage::provider_config_row::ConfigJson = $json;
        let query = $query
            .bind(config.tenant.as_str())
            .bind(config.provider.as_str())
            .bind(&config.id.as_bytes()[..])
            .bind(&config.definition)
            .bind(&config.client_id)
            .bind(json.variables);
        $crate::infra::storage::provider_config_row::bind_authentication!(query, config, json.authentication)
            .bind($crate::infra::storage::codec::micros(config.created_at))
            .bind($crate::infra::storage::codec::micros(config.updated_at))
            .bind(i64::from($crate::domain::provider_config::MAX_CONFIGS))
    }};
}
pub(super) use bind_new;

/// Why a new one was not stored.
pub(super) fn not_inserted(is_there: bool, tenant_is_deleted: bool) -> ConfigWrite {
    match (is_there, tenant_is_deleted) {
        (_, true) => ConfigWrite::Unknown,
        (true, false) => ConfigWrite::Exists,
        (false, false) => ConfigWrite::TooMany,
    }
}

impl TryFrom<ConfigRow> for ProviderConfig {
    type Error = StoreError;

    fn try_from(row: ConfigRow) -> Result<Self, StoreError> {
        const DAMAGED: StoreError = StoreError::Corrupt("a provider configuration");
        let variables: BTreeMap<String, String> =
            serde_json::from_str(&row.variables).map_err(|_| DAMAGED)?;
        let form: AuthenticationJson = serde_json::from_str(&row.authentication).map_err(|_| DAMAGED)?;
        let method = form.method.as_deref().map(ClientAuth::parse).transpose().map_err(|_| DAMAGED)?;
        let algorithm = form.private_key_algorithm.as_deref().map(AssertionAlgorithm::parse);
        Ok(Self {
            id: ConfigId::from_bytes(array(&row.id)?),
            tenant: tenant(row.tenant)?,
            provider: provider(row.provider)?,
            definition: row.definition,
            client_id: row.client_id,
            variables,
            authentication: ClientAuthentication {
                method,
                client_secret: row.client_secret_sealed.map(Sealed),
                private_key: row.private_key_sealed.map(Sealed),
                private_key_id: form.private_key_id,
                private_key_algorithm: algorithm.transpose().map_err(|_| DAMAGED)?,
                tls_certificate: form.tls_certificate,
                tls_key: row.tls_key_sealed.map(Sealed),
            },
            disabled_at: optional_time(row.disabled_at)?,
            revision: u64::try_from(row.revision).map_err(|_| StoreError::Corrupt("a revision"))?,
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
        })
    }
}

/// The optional id in the column `configuration` of what was begun or obtained.
pub(super) fn configuration(bytes: Option<&[u8]>) -> Result<Option<ConfigId>, StoreError> {
    bytes.map(|bytes| array(bytes).map(ConfigId::from_bytes)).transpose()
}

/// Credentials, flows and revocations, as counted.
pub(super) fn uses((credentials, flows, revocations): (i64, i64, i64)) -> Result<ConfigUses, StoreError> {
    Ok(ConfigUses {
        credentials: number(credentials)?,
        flows: number(flows)?,
        revocations: number(revocations)?,
    })
}

/// Tenant, provider and id.
pub(super) fn due((of, id, bytes): (String, String, Vec<u8>)) -> Result<DueConfig, StoreError> {
    Ok(DueConfig { tenant: tenant(of)?, provider: provider(id)?, id: ConfigId::from_bytes(array(&bytes)?) })
}
