//! Google Cloud KMS: `encrypt` and `decrypt` with additional authenticated data
//! (<https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/encrypt>). Every plaintext,
//! ciphertext and additional data goes with its CRC32C both ways, as Google asks for
//! (<https://cloud.google.com/kms/docs/data-integrity-guidelines>): what was damaged on the way is sent again, not stored.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_32_ISCSI, Crc};
use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, service_account, user_account,
};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{
    KeyServiceSetupError, encoded, http, json_headers, made_by_service, parsed, refused, repeated,
    secret_header, stored, unreadable,
};
use crate::domain::ports::Entropy;
use crate::domain::secret::SecretString;
use crate::infra::crypto::envelope::{Key, wrap_aad};
use crate::infra::crypto::kek::{KekError, KeyBinding, KeyEncryption};
use crate::infra::outbound::ServiceHttp;

/// A key of Google Cloud KMS.
#[derive(Debug, Clone)]
pub struct GcpKmsSettings {
    /// `projects/…/locations/…/keyRings/…/cryptoKeys/…`.
    pub key: String,
    /// Where the service is; its public endpoint if not said.
    pub endpoint: Option<Url>,
    /// Who the broker is.
    pub credentials: GcpCredentials,
}

/// Where access tokens come from.
#[derive(Debug, Clone)]
pub enum GcpCredentials {
    /// The content of a file: a service account's key, a workload identity's configuration, an impersonation, or a user's
    /// login.
    Json(SecretString),
    /// The machine's metadata service: the attached service account, or GKE's workload identity.
    Metadata {
        /// `GCE_METADATA_HOST`.
        endpoint: Option<String>,
    },
}

const ENDPOINT: &str = "https://cloudkms.googleapis.com/";
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// A token that is not there after so long is not waited for: the library itself tries for minutes.
const TOKEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(4);
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The key-encryption key.
pub struct GcpKms {
    key: String,
    encrypt: Url,
    decrypt: Url,
    http: ServiceHttp,
    credentials: AccessTokenCredentials,
}

impl std::fmt::Debug for GcpKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GcpKms").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Numbers of 64 bits are texts in Google's JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt {
    plaintext: Zeroizing<String>,
    plaintext_crc32c: String,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    name: String,
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt {
    ciphertext: String,
    ciphertext_crc32c: String,
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: Zeroizing<String>,
    plaintext_crc32c: String,
}

#[derive(Default, Deserialize)]
struct Failed {
    #[serde(default)]
    error: FailedBody,
}

#[derive(Default, Deserialize)]
struct FailedBody {
    #[serde(default)]
    status: String,
}

impl GcpKms {
    /// Sets it up; sends nothing. Within a runtime: tokens are fetched and kept fresh in the background.
    pub fn new(settings: GcpKmsSettings) -> Result<Self, KeyServiceSetupError> {
        let GcpKmsSettings { key, endpoint, credentials } = settings;
        let bad = |_| KeyServiceSetupError::GcpCredentials("the key's name makes no address");
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => Url::parse(ENDPOINT).map_err(bad)?,
        };
        let url = |method| endpoint.join(&format!("v1/{key}:{method}")).map_err(bad);
        let (encrypt, decrypt) = (url("encrypt")?, url("decrypt")?);
        Ok(Self { key, encrypt, decrypt, http: http(None)?, credentials: tokens(credentials)? })
    }

    async fn call<T: Serialize, A: serde::de::DeserializeOwned>(
        &self,
        url: &Url,
        request: &T,
        opens: bool,
    ) -> Result<A, KekError> {
        let body = serde_json::to_vec(request).map_err(|_| unreadable())?;
        let token = tokio::time::timeout(TOKEN_LIMIT, self.credentials.access_token()).await;
        let token = token.map_err(|_| KekError::Unavailable("no access token in time".to_owned()))?;
        let token = token.map_err(|error| {
            if error.is_transient() {
                KekError::Unavailable("no access token now".to_owned())
            } else {
                KekError::NoCredentials("Google refuses the credentials".to_owned())
            }
        })?;
        let token = Zeroizing::new(token.token);
        let mut headers = json_headers("application/json");
        headers.insert(AUTHORIZATION, secret_header(&Zeroizing::new(format!("Bearer {}", *token)))?);
        let answer = self.http.send(Method::POST, url, headers, body).await?;
        if answer.status == StatusCode::OK {
            return parsed(&answer);
        }
        let failed: Failed = serde_json::from_slice(&answer.body).unwrap_or_default();
        // A ciphertext or additional data that is not the one that was encrypted is an invalid argument.
        if opens && answer.status == StatusCode::BAD_REQUEST {
            return Err(KekError::DoesNotOpen);
        }
        Err(refused(answer.status, &failed.error.status))
    }
}

fn tokens(credentials: GcpCredentials) -> Result<AccessTokenCredentials, KeyServiceSetupError> {
    let bad = KeyServiceSetupError::GcpCredentials;
    let json = match credentials {
        GcpCredentials::Metadata { endpoint } => {
            let builder = mds::Builder::default().with_scopes([SCOPE]);
            let builder = match endpoint {
                Some(endpoint) if endpoint.contains("://") => builder.with_endpoint(endpoint),
                Some(host) => builder.with_endpoint(format!("http://{host}")),
                None => builder,
            };
            return builder
                .build_access_token_credentials()
                .map_err(|_| bad("the metadata service can't be used"));
        }
        GcpCredentials::Json(json) => json,
    };
    let json: Value = serde_json::from_str(json.expose_secret()).map_err(|_| bad("the file is not JSON"))?;
    let kind = json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(AccessSpecifier::from_scopes([SCOPE]))
            .build_access_token_credentials(),
        "external_account" => {
            external_account::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "impersonated_service_account" => {
            impersonated::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "authorized_user" => {
            user_account::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        _ => return Err(bad("the file's `type` is not one that is known")),
    };
    built.map_err(|_| bad("the file lacks something that its `type` needs, or has it wrong"))
}

fn crc(bytes: &[u8]) -> String {
    CRC32C.checksum(bytes).to_string()
}

fn damaged() -> KekError {
    KekError::Unavailable("the answer or the request was damaged on the way".to_owned())
}

#[async_trait]
impl KeyEncryption for GcpKms {
    async fn wrap(&self, binding: KeyBinding<'_>, key: &Key, _: &dyn Entropy) -> Result<Vec<u8>, KekError> {
        let aad = wrap_aad(binding);
        repeated(|| async {
            let request = Encrypt {
                plaintext: encoded(key.as_slice()),
                plaintext_crc32c: crc(key.as_slice()),
                additional_authenticated_data: STANDARD.encode(&aad),
                additional_authenticated_data_crc32c: crc(&aad),
            };
            let answer: Encrypted = self.call(&self.encrypt, &request, false).await?;
            if !answer.name.starts_with(&self.key) {
                return Err(KekError::Refused("another key has answered".to_owned()));
            }
            let ciphertext = STANDARD.decode(&answer.ciphertext).map_err(|_| unreadable())?;
            let verified =
                answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
            if !verified || ciphertext.is_empty() || crc(&ciphertext) != answer.ciphertext_crc32c {
                return Err(damaged());
            }
            Ok(stored(&ciphertext))
        })
        .await
    }

    async fn unwrap(&self, binding: KeyBinding<'_>, wrapped: &[u8]) -> Result<Key, KekError> {
        let ciphertext = made_by_service(wrapped)?;
        let aad = wrap_aad(binding);
        repeated(|| async {
            let request = Decrypt {
                ciphertext: STANDARD.encode(ciphertext),
                ciphertext_crc32c: crc(ciphertext),
                additional_authenticated_data: STANDARD.encode(&aad),
                additional_authenticated_data_crc32c: crc(&aad),
            };
            let answer: Decrypted = self.call(&self.decrypt, &request, true).await?;
            let plaintext = super::decoded(&answer.plaintext)?;
            if crc(&plaintext) != answer.plaintext_crc32c {
                return Err(damaged());
            }
            super::data_key(&plaintext)
        })
        .await
    }
}
