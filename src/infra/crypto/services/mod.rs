//! Key-encryption keys that a service holds: they never come here, data keys go there to be wrapped and unwrapped.
//!
//! Both calls may be repeated without harm, so one that failed for want of an answer is, twice, before it counts as failed.

mod aws;
mod aws_credentials;
mod gcp;
mod transit;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

pub use aws::{AwsKms, AwsKmsSettings};
pub use aws_credentials::AwsEnvironment;
pub use gcp::{GcpCredentials, GcpKms, GcpKmsSettings};
pub use transit::{Transit, TransitAuth, TransitSettings};

use super::envelope::{Key, SERVICE_WRAP_VERSION};
use super::kek::KekError;
use crate::domain::secret::SecretString;
use crate::infra::outbound::{ServiceAnswer, ServiceError, ServiceHttp, ServiceSetupError};

/// For the connection.
const CONNECT: Duration = Duration::from_secs(2);
/// For a whole call.
const TOTAL: Duration = Duration::from_secs(4);
/// Before the second and the third attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// A key service can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum KeyServiceSetupError {
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] ServiceSetupError),
    /// The credentials for Google Cloud.
    #[error("the credentials for Google Cloud can't be used: {0}")]
    GcpCredentials(&'static str),
}

fn http(authorities: Option<&[u8]>) -> Result<ServiceHttp, KeyServiceSetupError> {
    Ok(ServiceHttp::new(CONNECT, TOTAL, authorities)?)
}

impl From<ServiceError> for KekError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::NotAllowed => Self::Refused(error.to_string()),
            ServiceError::NoConnection | ServiceError::TooLate | ServiceError::Broken => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

/// Calls until there is an answer, three times at most.
async fn repeated<T, C>(call: impl Fn() -> C) -> Result<T, KekError>
where
    C: Future<Output = Result<T, KekError>>,
{
    for pause in PAUSES {
        match call().await {
            Err(error) if error.is_worth_trying_again() => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
    call().await
}

fn json_headers(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// A header with a secret.
fn secret_header(value: &str) -> Result<HeaderValue, KekError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        KekError::NoCredentials("the token has characters that no header can have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A body of an answer, read.
fn parsed<T: serde::de::DeserializeOwned>(answer: &ServiceAnswer) -> Result<T, KekError> {
    serde_json::from_slice(&answer.body).map_err(|_| unreadable())
}

/// What stands in a file, without space around it. `failure` says which file can't be read.
fn read_secret(file: &Path, failure: &str) -> Result<SecretString, KekError> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|_| KekError::NoCredentials(failure.to_owned()))?;
    Ok(SecretString::from(text.trim()))
}

/// What a status that every service uses alike means; what it says beside it is a word of ours, or the service's error code.
fn refused(status: StatusCode, code: &str) -> KekError {
    match status.as_u16() {
        429 => KekError::Throttled,
        500..=599 => KekError::Unavailable(said(status, code)),
        _ => KekError::Refused(said(status, code)),
    }
}

fn said(status: StatusCode, code: &str) -> String {
    let code = word(code);
    if code.is_empty() {
        format!("HTTP {}", status.as_u16())
    } else {
        format!("HTTP {} {code}", status.as_u16())
    }
}

/// A service's error code, as far as it looks like one: nothing else of an error's text is shown.
fn word(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect()
}

fn decoded(base64: &str) -> Result<Zeroizing<Vec<u8>>, KekError> {
    STANDARD.decode(base64).map(Zeroizing::new).map_err(|_| unreadable())
}

fn encoded(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// What a service unwrapped must be a data key.
fn data_key(bytes: &[u8]) -> Result<Key, KekError> {
    let mut key = Key::default();
    if bytes.len() != key.len() {
        return Err(KekError::DoesNotOpen);
    }
    key.copy_from_slice(bytes);
    Ok(key)
}

fn unreadable() -> KekError {
    KekError::Unavailable("the answer can't be read".to_owned())
}

/// As stored.
fn stored(ciphertext: &[u8]) -> Vec<u8> {
    [&[SERVICE_WRAP_VERSION][..], ciphertext].concat()
}

/// What the service made, from what is stored.
fn made_by_service(wrapped: &[u8]) -> Result<&[u8], KekError> {
    match wrapped.split_first() {
        Some((&SERVICE_WRAP_VERSION, ciphertext)) => Ok(ciphertext),
        _ => Err(KekError::DoesNotOpen),
    }
}
