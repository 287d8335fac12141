//! `[redis]`: what replicas share beside the database. Without `url`: nothing, the broker is alone.

use std::path::PathBuf;
use std::time::Duration;

use super::TlsFiles;
use super::reader::{Key, Section};
use super::secret::secret;
use crate::domain::secret::SecretString;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Where, without secrets.
    pub url: String,
    /// For the servers.
    pub login: Option<RedisLogin>,
    /// For the sentinels.
    pub sentinel_login: Option<RedisLogin>,
    /// PEM file with authorities that are trusted instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The broker's own certificate.
    pub tls_client: Option<TlsFiles>,
    /// In front of every key and of the channel.
    pub key_prefix: String,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
}

/// A user of Redis.
#[derive(Debug, Clone)]
pub struct RedisLogin {
    /// `None`: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: SecretString,
}

const SCHEMES: [&str; 7] = [
    "redis://",
    "rediss://",
    "redis+unix://",
    "redis-sentinel://",
    "rediss-sentinel://",
    "redis-cluster://",
    "rediss-cluster://",
];

/// The longest prefix, in bytes: it is in front of every key.
const MAX_PREFIX_BYTES: usize = 32;

/// `None`: a mistake. `Some(None)`: there is no Redis.
#[expect(clippy::option_option, reason = "the outer one is that of every section")]
pub(super) fn read(section: &Section<'_>) -> Option<Option<Redis>> {
    let url = section.optional("url");
    let url_text = url.parsed(|text| check_url(text).map(|()| text.to_owned()));
    let login = login(
        &section.optional("username"),
        &section.optional("password_file"),
        &section.optional("password_env"),
    );
    let sentinel_login = self::login(
        &section.optional("sentinel_username"),
        &section.optional("sentinel_password_file"),
        &section.optional("sentinel_password_env"),
    );
    let tls_ca_file = section.optional("tls_ca_file").path();
    let certificate = section.optional("tls_certificate_file");
    let key = section.optional("tls_key_file");
    if certificate.is_set() && !key.is_set() {
        key.problem("is required beside tls_certificate_file");
    }
    if key.is_set() && !certificate.is_set() {
        certificate.problem("is required beside tls_key_file");
    }
    let tls_client =
        certificate.path().zip(key.path()).map(|(certificate, key)| TlsFiles { certificate, key });
    let key_prefix =
        section.required("key_prefix").parsed(|text| check_prefix(text).map(|()| text.to_owned()));
    let response_timeout =
        section.required("response_timeout").duration(Duration::from_millis(10)..=Duration::from_secs(5));
    let connect_timeout =
        section.required("connect_timeout").duration(Duration::from_millis(50)..=Duration::from_secs(10));
    section.finish();
    let (key_prefix, response_timeout, connect_timeout) = (key_prefix?, response_timeout?, connect_timeout?);
    let (login, sentinel_login) = (login?, sentinel_login?);
    if !url.is_set() {
        return Some(None);
    }
    Some(Some(Redis {
        url: url_text?,
        login,
        sentinel_login,
        tls_ca_file,
        tls_client,
        key_prefix,
        response_timeout,
        connect_timeout,
    }))
}

/// `None`: a mistake. `Some(None)`: no password.
#[expect(clippy::option_option, reason = "the outer one is that of every section")]
fn login(username: &Key<'_>, file: &Key<'_>, variable: &Key<'_>) -> Option<Option<RedisLogin>> {
    if username.is_set() && !file.is_set() && !variable.is_set() {
        username.problem("is of no use without a password, from a file or an environment variable");
        return None;
    }
    let Some(password) = secret(file, variable)? else { return Some(None) };
    let username = if username.is_set() { Some(username.text()?) } else { None };
    Some(Some(RedisLogin { username, password }))
}

/// What the client would not notice or not say. The rest is its business, at the start.
fn check_url(text: &str) -> Result<(), String> {
    if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(format!("must begin with one of {}", SCHEMES.join(", ")));
    }
    if text.contains('@') {
        return Err("must not contain a user name or password: use username and password_file".to_owned());
    }
    Ok(())
}

fn check_prefix(text: &str) -> Result<(), &'static str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if text.len() <= MAX_PREFIX_BYTES && text.bytes().all(fine) {
        Ok(())
    } else {
        Err("must be 1 to 32 letters, digits, '-', '_', '.' and ':'")
    }
}
