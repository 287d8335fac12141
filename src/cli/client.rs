//! The way to a running broker.

use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use url::Url;

use super::error::CliError;
use super::exit::Exit;
use crate::config::{Environment, parse_duration};
use crate::domain::loopback::is_loopback;
use crate::domain::secret::SecretString;
use crate::r#gen::v1::admin_service_client::AdminServiceClient;
use crate::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;

/// A client that sends the API key with every call.
pub(super) type Client = TokenBrokerServiceClient<InterceptedService<Channel, ApiKey>>;

/// The same for operators.
pub(super) type AdminClient = AdminServiceClient<InterceptedService<Channel, ApiKey>>;

/// The variable with the API key. A command line can be read by every user of the machine, so there is no argument.
const API_KEY_VARIABLE: &str = "TOKEN_BROKER_API_KEY";
/// For the connection itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which broker.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct EndpointArgs {
    /// The broker's gRPC address
    #[arg(long, value_name = "URL", env = "TOKEN_BROKER_ENDPOINT", default_value = "http://127.0.0.1:50051")]
    endpoint: Url,
    /// PEM file with the certificate authority of an https endpoint [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send API key and tokens in the clear to an http endpoint that is not on this machine
    #[arg(long)]
    plaintext: bool,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// Which broker, as whom.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    endpoint: EndpointArgs,
    /// File with the API key [default: the variable `TOKEN_BROKER_API_KEY`]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
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
        let Some(path) = &self.ca_file else { return Ok(ClientTlsConfig::new().with_native_roots()) };
        let pem = std::fs::read(path)
            .map_err(|error| CliError::new(Exit::Usage, format!("--ca-file {}: {error}", path.display())))?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }
}

impl ClientArgs {
    /// Connects, with the API key on every call.
    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        let key = ApiKey::new(&self.api_key()?)?;
        Ok(TokenBrokerServiceClient::with_interceptor(self.endpoint.connect().await?, key))
    }

    /// The same, for operators.
    pub(super) async fn connect_admin(&self) -> Result<AdminClient, CliError> {
        let key = ApiKey::new(&self.api_key()?)?;
        Ok(AdminServiceClient::with_interceptor(self.endpoint.connect().await?, key))
    }

    fn api_key(&self) -> Result<SecretString, CliError> {
        let text = match &self.api_key_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                CliError::new(Exit::Usage, format!("--api-key-file {}: {error}", path.display()))
            })?,
            None => Environment::of_process().get(API_KEY_VARIABLE).unwrap_or_default().to_owned(),
        };
        let key = SecretString::from(text.trim());
        drop(SecretString::new(text));
        if key.is_empty() {
            return Err(CliError::new(Exit::Usage, "there is no API key").hint(
                "set TOKEN_BROKER_API_KEY, or pass --api-key-file; `token-broker callers new` makes a key",
            ));
        }
        Ok(key)
    }
}

/// Puts the API key on every call.
#[derive(Clone)]
pub(super) struct ApiKey(MetadataValue<Ascii>);

impl ApiKey {
    fn new(key: &SecretString) -> Result<Self, CliError> {
        let header = SecretString::new(format!("Bearer {}", key.expose_secret()));
        let mut value = MetadataValue::try_from(header.expose_secret())
            .map_err(|_| CliError::new(Exit::Usage, "the API key has characters that no API key has"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
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
