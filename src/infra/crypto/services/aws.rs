//! AWS KMS: `Encrypt` and `Decrypt` with an encryption context
//! (<https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html>), signed with Signature Version 4.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::aws_credentials::{AwsCredentials, AwsEnvironment};
use super::{
    KeyServiceSetupError, data_key, decoded, encoded, http, json_headers, made_by_service, parsed, refused,
    repeated, stored, unreadable, word,
};
use crate::domain::ports::{Clock, Entropy};
use crate::infra::crypto::envelope::{Key, purpose_tag};
use crate::infra::crypto::kek::{KekError, KeyBinding, KeyEncryption};
use crate::infra::outbound::{ServiceAnswer, ServiceHttp};

/// A key of AWS KMS.
#[derive(Debug, Clone)]
pub struct AwsKmsSettings {
    /// The ARN of a symmetric key or of an alias of one.
    pub key: String,
    /// The key's region, as the ARN says.
    pub region: String,
    /// Where the service is; its public endpoint of the region if not said.
    pub endpoint: Option<Url>,
    /// Where credentials come from.
    pub environment: AwsEnvironment,
}

/// The key-encryption key.
pub struct AwsKms {
    key: String,
    region: String,
    endpoint: Url,
    http: ServiceHttp,
    credentials: AwsCredentials,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsKms").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What the wrapped key is bound to. It stands in the clear in `CloudTrail`, where it tells whose key was used.
#[derive(Serialize)]
struct Context<'a> {
    #[serde(rename = "token-broker:data-key")]
    data_key: String,
    #[serde(rename = "token-broker:tenant")]
    tenant: &'a str,
    #[serde(rename = "token-broker:purpose")]
    purpose: String,
    #[serde(rename = "token-broker:kek")]
    kek: &'a str,
}

impl<'a> Context<'a> {
    fn of(binding: KeyBinding<'a>) -> Self {
        Self {
            data_key: hex::encode(binding.id),
            tenant: binding.tenant.as_str(),
            purpose: String::from_utf8_lossy(purpose_tag(binding.purpose)).into_owned(),
            kek: binding.kek_id,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt<'a> {
    key_id: &'a str,
    plaintext: Zeroizing<String>,
    encryption_context: Context<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    key_id: &'a str,
    ciphertext_blob: Zeroizing<String>,
    encryption_context: Context<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

/// A failed call. The message is not read: it may name what was sent.
#[derive(Deserialize)]
struct Failed {
    #[serde(rename = "__type", default)]
    code: String,
}

impl AwsKms {
    /// Sets it up; sends nothing.
    pub fn new(settings: AwsKmsSettings, clock: Arc<dyn Clock>) -> Result<Self, KeyServiceSetupError> {
        let AwsKmsSettings { key, region, endpoint, environment } = settings;
        let http = http(None)?;
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => super::aws_credentials::regional("kms", &region)?,
        };
        let credentials = AwsCredentials::new(environment, &region, &http, Arc::clone(&clock))?;
        Ok(Self { key, region, endpoint, http, credentials, clock })
    }

    async fn call<T: Serialize>(&self, target: &'static str, request: &T) -> Result<ServiceAnswer, KekError> {
        let body = serde_json::to_vec(request).map_err(|_| unreadable())?;
        let credentials = self.credentials.get().await?;
        let mut headers = json_headers("application/x-amz-json-1.1");
        headers.insert("x-amz-target", HeaderValue::from_static(target));
        let signed =
            sign_request(&self.endpoint, &headers, &body, &self.region, credentials, self.clock.now())?;
        headers.extend(signed);
        let answer = self.http.send(Method::POST, &self.endpoint, headers, body).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        let code =
            serde_json::from_slice::<Failed>(&answer.body).map(|failed| failed.code).unwrap_or_default();
        // The code may have a namespace in front.
        let code = code.rsplit('#').next().unwrap_or_default();
        Err(match code {
            "InvalidCiphertextException" | "IncorrectKeyException" => KekError::DoesNotOpen,
            "ThrottlingException" | "LimitExceededException" | "TooManyRequestsException" => {
                KekError::Throttled
            }
            "DependencyTimeoutException"
            | "KMSInternalException"
            | "KeyUnavailableException"
            | "RequestTimeoutException"
            | "ServiceUnavailable" => KekError::Unavailable(word(code)),
            "ExpiredTokenException" | "UnrecognizedClientException" => {
                // The next attempt asks for new ones.
                self.credentials.forget().await;
                KekError::Unavailable(word(code))
            }
            _ => refused(answer.status, code),
        })
    }
}

/// The headers that sign a request.
fn sign_request(
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    region: &str,
    credentials: aws_credential_types::Credentials,
    now: jiff::Timestamp,
) -> Result<HeaderMap, KekError> {
    let failed = || KekError::Refused("the request can't be signed".to_owned());
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kms")
        .time(SystemTime::from(now))
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| failed())?
        .into();
    let texts = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let request =
        SignableRequest::new("POST", url.as_str(), texts, SignableBody::Bytes(body)).map_err(|_| failed())?;
    let (instructions, _) = sign(request, &parameters).map_err(|_| failed())?.into_parts();
    instructions
        .headers()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| failed())?;
            Ok((name, super::secret_header(value)?))
        })
        .collect()
}

#[async_trait]
impl KeyEncryption for AwsKms {
    async fn wrap(&self, binding: KeyBinding<'_>, key: &Key, _: &dyn Entropy) -> Result<Vec<u8>, KekError> {
        let answer = repeated(|| async {
            let request = Encrypt {
                key_id: &self.key,
                plaintext: encoded(key.as_slice()),
                encryption_context: Context::of(binding),
            };
            self.call("TrentService.Encrypt", &request).await
        })
        .await?;
        let Encrypted { ciphertext_blob } = parsed(&answer)?;
        let blob = STANDARD.decode(ciphertext_blob).map_err(|_| unreadable())?;
        if blob.is_empty() { Err(unreadable()) } else { Ok(stored(&blob)) }
    }

    async fn unwrap(&self, binding: KeyBinding<'_>, wrapped: &[u8]) -> Result<Key, KekError> {
        let blob = made_by_service(wrapped)?;
        let answer = repeated(|| async {
            let request = Decrypt {
                key_id: &self.key,
                ciphertext_blob: encoded(blob),
                encryption_context: Context::of(binding),
            };
            self.call("TrentService.Decrypt", &request).await
        })
        .await?;
        let Decrypted { plaintext } = parsed(&answer)?;
        data_key(&decoded(&plaintext)?)
    }
}
