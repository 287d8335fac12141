//! The way to a running broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use url::Url;

use super::error::CliError;
use super::exit::Exit;
use crate::config::{Environment, parse_duration};
use crate::domain::loopback::is_loopback;
use crate::domain::secret::SecretString;
use crate::r#gen::v1::admin_service_client::AdminServiceClient;
use crate::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;

/// A client that says with every call who calls.
pub(super) type Client = TokenBrokerServiceClient<InterceptedService<Channel, Credentials>>;

/// The same, of the service for operators.
pub(super) type AdminClient = AdminServiceClient<InterceptedService<Channel, Credentials>>;

/// The variable with the API key. A command line can be read by every user of the machine, so there is no argument.
const API_KEY_VARIABLE: &str = "TOKEN_BROKER_API_KEY";
/// For the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which broker.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EndpointArgs {
    /// The broker's gRPC address
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TOKEN_BROKER_ENDPOINT",
        default_value = "http://127.0.0.1:50051"
    )]
    endpoint: Url,
    /// PEM file with the certificate authority of an https endpoint [default: the system's]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file with a certificate chain to show to an https endpoint (mTLS)
    #[arg(long, global = true, value_name = "FILE", requires = "client_key_file")]
    client_certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate_file")]
    client_key_file: Option<PathBuf>,
    /// Send API key and tokens in the clear to an http endpoint that is not on this machine
    #[arg(long, global = true)]
    plaintext: bool,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// Which broker, as whom.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// File with the API key [default: the variable `TOKEN_BROKER_API_KEY`]
    #[arg(long, global = true, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// File with a JWT that says who calls, instead of an API key
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "api_key_file")]
    token_file: Option<PathBuf>,
    /// File with a JWT of the user whom the call is for; --user may be left out then
    #[arg(long, global = true, value_name = "FILE")]
    user_token_file: Option<PathBuf>,
}

/// clap's parser of durations.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("must be a duration, as 500ms, 30s, 10m or 2h")
}

impl EndpointArgs {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Channel, CliError> {
        let usage = |message: &str| CliError::new(Exit::Usage, format!("--endpoint {message}"));
        if !self.endpoint.username().is_empty() || self.endpoint.password().is_some() {
            return Err(usage(
                "must not contain a user name or password: it is shown in errors and to every user of this machine",
            ));
        }
        let secure = match self.endpoint.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(usage("must begin with http:// or https://")),
        };
        if !secure && !self.plaintext && !is_loopback(&self.endpoint) {
            return Err(usage(
                "is http on another machine: the API key would cross the network in the clear",
            )
            .hint("use https, or add --plaintext if something else protects the way"));
        }
        let mut endpoint = Endpoint::from_shared(self.endpoint.to_string())
            .map_err(|_| usage("is not a URL of a gRPC server"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.timeout);
        if secure {
            endpoint = endpoint
                .tls_config(self.tls()?)
                .map_err(|error| CliError::new(Exit::Failed, format!("TLS: {error}")))?;
        }
        endpoint.connect().await.map_err(|error| {
            let cause = root_cause(&error);
            CliError::new(Exit::Unavailable, format!("no broker answers at {}: {cause}", self.endpoint))
                .hint("start one with `token-broker serve`, or name it with --endpoint")
        })
    }

    fn tls(&self) -> Result<ClientTlsConfig, CliError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut tls = ClientTlsConfig::new();
        if let (Some(certificate), Some(key)) = (&self.client_certificate_file, &self.client_key_file) {
            let certificate = read("--client-certificate-file", certificate)?;
            let key = read("--client-key-file", key)?;
            tls = tls.identity(Identity::from_pem(certificate.expose_secret(), key.expose_secret()));
        }
        match &self.ca_file {
            None => Ok(tls.with_native_roots()),
            Some(path) => {
                let pem = read("--ca-file", path)?;
                Ok(tls.ca_certificate(Certificate::from_pem(pem.expose_secret())))
            }
        }
    }
}

impl ClientArgs {
    /// Connects, and says with every call who calls.
    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        let credentials = self.credentials()?;
        Ok(TokenBrokerServiceClient::with_interceptor(self.endpoint.connect().await?, credentials))
    }

    /// Connects to the service for operators.
    pub(super) async fn connect_admin(&self) -> Result<AdminClient, CliError> {
        let credentials = self.credentials()?;
        Ok(AdminServiceClient::with_interceptor(self.endpoint.connect().await?, credentials))
    }

    fn credentials(&self) -> Result<Credentials, CliError> {
        let presented = match (&self.token_file, &self.api_key_file) {
            (Some(path), _) => Some(("token", read("--token-file", path)?)),
            (None, Some(path)) => Some(("API key", read("--api-key-file", path)?)),
            (None, None) => {
                let text = Environment::of_process().get(API_KEY_VARIABLE).map(SecretString::from);
                text.map(|text| ("API key", text))
            }
        };
        let presented = presented.map(|(what, text)| (what, SecretString::from(text.expose_secret().trim())));
        let authorization = match presented.filter(|(_, text)| !text.is_empty()) {
            Some((what, text)) => {
                Some(metadata(what, &SecretString::new(format!("Bearer {}", text.expose_secret())))?)
            }
            // The certificate says who calls.
            None if self.endpoint.client_certificate_file.is_some() => None,
            None => {
                return Err(CliError::new(Exit::Usage, "there is no API key").hint(
                    "set TOKEN_BROKER_API_KEY, or pass --api-key-file or --token-file; `token-broker callers new` makes a key",
                ));
            }
        };
        let user_token = match &self.user_token_file {
            None => None,
            Some(path) => {
                let text = read("--user-token-file", path)?;
                Some(metadata("user token", &SecretString::from(text.expose_secret().trim()))?)
            }
        };
        Ok(Credentials { authorization, user_token })
    }
}

/// All items of a list. `page` answers those behind a token, and the token of what follows.
pub(super) async fn pages<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), CliError>,
) -> Result<Vec<T>, CliError> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

fn read(argument: &str, path: &Path) -> Result<SecretString, CliError> {
    std::fs::read_to_string(path)
        .map(SecretString::new)
        .map_err(|error| CliError::new(Exit::Usage, format!("{argument} {}: {error}", path.display())))
}

fn metadata(what: &str, value: &SecretString) -> Result<MetadataValue<Ascii>, CliError> {
    let mut value = MetadataValue::try_from(value.expose_secret())
        .map_err(|_| CliError::new(Exit::Usage, format!("the {what} has characters that none has")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Says with every call who calls, and for which user.
#[derive(Clone)]
pub(super) struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
    user_token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let entries = [("authorization", &self.authorization), ("tokenbroker-user-token", &self.user_token)];
        for (name, value) in entries {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
