//! The key-encryption keys, from the configuration.

use std::sync::Arc;

use super::StartError;
use crate::application::keys::KeySettings;
use crate::config::{self, Config, VaultKeyKind};
use crate::domain::ports::Clock;
use crate::infra::crypto::services::{
    AwsEnvironment, AwsKms, AwsKmsSettings, GcpCredentials, GcpKms, GcpKmsSettings, KeyServiceSetupError,
    Transit, TransitAuth, TransitSettings,
};
use crate::infra::crypto::{KeyEncryption, KeyEncryptionKey, Keyring};
use crate::infra::system::SystemClock;

/// Whether the keys can be used, as far as that can be told without a call.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    let local = |key: &&config::VaultKey| matches!(key.kind, VaultKeyKind::Bytes(_));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for key in config.vault.keys.iter().filter(local) {
        self::key(key, &clock)?;
    }
    Ok(())
}

/// All of them. Within a runtime.
pub(super) fn keyring(config: &Config, clock: &Arc<dyn Clock>) -> Result<Keyring, StartError> {
    let keys = config.vault.keys.iter().map(|entry| key(entry, clock)).collect::<Result<_, _>>()?;
    Ok(Keyring::new(keys, &config.vault.active_key)?)
}

pub(super) fn settings(config: &Config) -> KeySettings {
    KeySettings {
        rows_per_second: config.vault.reencrypt_rows_per_second,
        retire_after: config.vault.retire_after,
    }
}

fn key(entry: &config::VaultKey, clock: &Arc<dyn Clock>) -> Result<KeyEncryptionKey, StartError> {
    let remote = match &entry.kind {
        VaultKeyKind::Bytes(bytes) => return Ok(KeyEncryptionKey::new(&entry.id, bytes.clone())?),
        VaultKeyKind::AwsKms(settings) => {
            AwsKms::new(aws(settings), Arc::clone(clock)).map(|key| Arc::new(key) as Arc<dyn KeyEncryption>)
        }
        VaultKeyKind::GcpKms(settings) => {
            GcpKms::new(gcp(settings)).map(|key| Arc::new(key) as Arc<dyn KeyEncryption>)
        }
        VaultKeyKind::Transit(settings) => Transit::new(transit(settings), Arc::clone(clock))
            .map(|key| Arc::new(key) as Arc<dyn KeyEncryption>),
    };
    let failed = |source: KeyServiceSetupError| StartError::KeyService { id: entry.id.clone(), source };
    Ok(KeyEncryptionKey::remote(&entry.id, remote.map_err(failed)?)?)
}

fn aws(settings: &config::AwsKms) -> AwsKmsSettings {
    let config::AwsKms { key, region, endpoint, environment } = settings.clone();
    let config::AwsEnvironment {
        access_key_id,
        secret_access_key,
        session_token,
        web_identity_token_file,
        role_arn,
        role_session_name,
        sts_endpoint,
        container_uri,
        container_token,
        container_token_file,
        metadata,
    } = environment;
    let environment = AwsEnvironment {
        access_key_id,
        secret_access_key,
        session_token,
        web_identity_token_file,
        role_arn,
        role_session_name,
        sts_endpoint,
        container_uri,
        container_token,
        container_token_file,
        metadata,
    };
    AwsKmsSettings { key, region, endpoint, environment }
}

fn gcp(settings: &config::GcpKms) -> GcpKmsSettings {
    let config::GcpKms { key, endpoint, credentials, metadata_host } = settings.clone();
    let credentials = match credentials {
        Some(json) => GcpCredentials::Json(json),
        None => GcpCredentials::Metadata { endpoint: metadata_host },
    };
    GcpKmsSettings { key, endpoint, credentials }
}

fn transit(settings: &config::Transit) -> TransitSettings {
    let config::Transit { address, mount, key, namespace, derived, authorities, auth } = settings.clone();
    let auth = match auth {
        config::TransitAuth::TokenFile(file) => TransitAuth::TokenFile(file),
        config::TransitAuth::Kubernetes { mount, role, token_file } => {
            TransitAuth::Kubernetes { mount, role, token_file }
        }
        config::TransitAuth::AppRole { mount, role_id, secret_id_file } => {
            TransitAuth::AppRole { mount, role_id, secret_id_file }
        }
    };
    TransitSettings { address, mount, key, namespace, derived, authorities, auth }
}
