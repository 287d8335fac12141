//! The transit engine of `HashiCorp` Vault and of `OpenBao`: `encrypt` and `decrypt` with associated data
//! (<https://openbao.org/api-docs/secret/transit/>). The key must be of an AEAD type (`aes256-gcm96`, the default, or
//! `chacha20-poly1305`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use super::{
    KeyServiceSetupError, data_key, decoded, encoded, http, json_headers, made_by_service, parsed,
    read_secret, refused, repeated, secret_header, stored, unreadable,
};
use crate::domain::ports::{Clock, Entropy};
use crate::domain::secret::SecretString;
use crate::infra::crypto::envelope::{Key, wrap_aad};
use crate::infra::crypto::kek::{KekError, KeyBinding, KeyEncryption};
use crate::infra::outbound::{ServiceAnswer, ServiceHttp};

const UNREADABLE_FILE: &str = "the file with the token can't be read";

/// A key of a transit engine.
#[derive(Debug, Clone)]
pub struct TransitSettings {
    /// Where the service is, without path.
    pub address: Url,
    /// Where the engine is mounted, as `transit`.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// The namespace, if not the root one.
    pub namespace: Option<String>,
    /// The key derives a key for each context (`derived=true`): the binding is its context, too.
    pub derived: bool,
    /// PEM certificates that are trusted instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Who the broker is.
    pub auth: TransitAuth,
}

/// How the broker shows who it is.
#[derive(Debug, Clone)]
pub enum TransitAuth {
    /// A token that somebody else keeps fresh in a file (an agent, for example); read for each call.
    TokenFile(PathBuf),
    /// The Kubernetes auth method.
    Kubernetes {
        /// Where the method is mounted, as `kubernetes`.
        mount: String,
        /// The role at the service.
        role: String,
        /// The pod's service account token; read for each login.
        token_file: PathBuf,
    },
    /// The `AppRole` auth method.
    AppRole {
        /// Where the method is mounted, as `approle`.
        mount: String,
        /// The role's id.
        role_id: String,
        /// The file with the secret id; read for each login.
        secret_id_file: PathBuf,
    },
}

/// The key-encryption key.
pub struct Transit {
    settings: TransitSettings,
    http: ServiceHttp,
    clock: Arc<dyn Clock>,
    login: Mutex<Option<Login>>,
}

impl std::fmt::Debug for Transit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transit").field("key", &self.settings.key).finish_non_exhaustive()
    }
}

struct Login {
    token: SecretString,
    /// On the monotonic clock.
    renew_at: Duration,
}

#[derive(Serialize)]
struct Bound {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<String>,
    associated_data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: LoggedInAuth,
}

#[derive(Deserialize)]
struct LoggedInAuth {
    client_token: Zeroizing<String>,
    lease_duration: u64,
}

#[derive(Default, Deserialize)]
struct Failed {
    #[serde(default)]
    errors: Vec<String>,
}

impl Transit {
    /// Sets it up; sends nothing.
    pub fn new(settings: TransitSettings, clock: Arc<dyn Clock>) -> Result<Self, KeyServiceSetupError> {
        let http = http(settings.authorities.as_deref())?;
        Ok(Self { settings, http, clock, login: Mutex::default() })
    }

    fn url(&self, path: &[&str]) -> Result<Url, KekError> {
        let mut url = self.settings.address.clone();
        let mut segments = url.path_segments_mut().map_err(|()| unreadable())?;
        segments.pop_if_empty().push("v1");
        // A mount may have several segments.
        segments.extend(path.iter().flat_map(|part| part.split('/')));
        drop(segments);
        Ok(url)
    }

    async fn post<T: Serialize>(
        &self,
        path: &[&str],
        token: Option<&SecretString>,
        request: &T,
    ) -> Result<ServiceAnswer, KekError> {
        let mut headers = json_headers("application/json");
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        if let Some(token) = token {
            headers.insert(HeaderName::from_static("x-vault-token"), secret_header(token.expose_secret())?);
        }
        if let Some(namespace) = &self.settings.namespace {
            headers.insert(HeaderName::from_static("x-vault-namespace"), secret_header(namespace)?);
        }
        let body = serde_json::to_vec(request).map_err(|_| unreadable())?;
        Ok(self.http.send(Method::POST, &self.url(path)?, headers, body).await?)
    }

    async fn token(&self) -> Result<SecretString, KekError> {
        let (mount, id, secret) = match &self.settings.auth {
            TransitAuth::TokenFile(file) => return read_secret(file, UNREADABLE_FILE),
            TransitAuth::Kubernetes { mount, role, token_file } => {
                (mount, ("role", role), ("jwt", token_file))
            }
            TransitAuth::AppRole { mount, role_id, secret_id_file } => {
                (mount, ("role_id", role_id), ("secret_id", secret_id_file))
            }
        };
        // Whoever comes meanwhile waits for the same login.
        let mut login = self.login.lock().await;
        let now = self.clock.monotonic();
        if let Some(login) = login.as_ref().filter(|login| now < login.renew_at) {
            return Ok(login.token.clone());
        }
        let text = Zeroizing::new(read_secret(secret.1, UNREADABLE_FILE)?.expose_secret().to_owned());
        let request = BTreeMap::from([(id.0, Zeroizing::new(id.1.clone())), (secret.0, text)]);
        let answer = self.post(&["auth", mount, "login"], None, &request).await?;
        if answer.status != StatusCode::OK {
            return Err(match refused(answer.status, "") {
                KekError::Refused(said) => KekError::NoCredentials(format!("the login is refused: {said}")),
                error => error,
            });
        }
        let LoggedIn { auth } = parsed(&answer)?;
        let token = SecretString::from(auth.client_token.as_str());
        // A token without end has a lease of zero; it is renewed all the same now and then.
        let lease = if auth.lease_duration == 0 { 3600 } else { auth.lease_duration };
        let renew_at = now + Duration::from_secs(lease) * 4 / 5;
        *login = Some(Login { token: token.clone(), renew_at });
        Ok(token)
    }

    async fn call(&self, operation: &str, request: &Bound) -> Result<ServiceAnswer, KekError> {
        let path = [self.settings.mount.as_str(), operation, self.settings.key.as_str()];
        let mut again = true;
        loop {
            let token = self.token().await?;
            let answer = self.post(&path, Some(&token), request).await?;
            if answer.status == StatusCode::OK {
                return Ok(answer);
            }
            // A token may be revoked before its time: one more login.
            if answer.status == StatusCode::FORBIDDEN && again && self.login.lock().await.take().is_some() {
                again = false;
                continue;
            }
            let failed: Failed = serde_json::from_slice(&answer.body).unwrap_or_default();
            let said = |part: &str| failed.errors.iter().any(|error| error.contains(part));
            if operation == "decrypt"
                && answer.status == StatusCode::BAD_REQUEST
                && (said("message authentication failed")
                    || said("invalid ciphertext")
                    || said("unable to decrypt"))
            {
                return Err(KekError::DoesNotOpen);
            }
            return Err(refused(answer.status, ""));
        }
    }

    fn bound(&self, binding: KeyBinding<'_>) -> Bound {
        let associated_data = STANDARD.encode(wrap_aad(binding));
        let context = self.settings.derived.then(|| associated_data.clone());
        Bound { plaintext: None, ciphertext: None, associated_data, context }
    }
}

#[async_trait]
impl KeyEncryption for Transit {
    async fn wrap(&self, binding: KeyBinding<'_>, key: &Key, _: &dyn Entropy) -> Result<Vec<u8>, KekError> {
        let request = Bound { plaintext: Some(encoded(key.as_slice())), ..self.bound(binding) };
        let answer = repeated(|| self.call("encrypt", &request)).await?;
        let Answer::<Encrypted> { data } = parsed(&answer)?;
        // As `vault:v1:…`: the version of the service's key is the service's business.
        if data.ciphertext.is_empty() { Err(unreadable()) } else { Ok(stored(data.ciphertext.as_bytes())) }
    }

    async fn unwrap(&self, binding: KeyBinding<'_>, wrapped: &[u8]) -> Result<Key, KekError> {
        let ciphertext = made_by_service(wrapped)?;
        let ciphertext = std::str::from_utf8(ciphertext).map_err(|_| KekError::DoesNotOpen)?.to_owned();
        let request = Bound { ciphertext: Some(ciphertext), ..self.bound(binding) };
        let answer = repeated(|| self.call("decrypt", &request)).await?;
        let Answer::<Decrypted> { data } = parsed(&answer)?;
        data_key(&decoded(&data.plaintext)?)
    }
}
