//! Who calls, and for which user, through the gRPC door of a whole broker: certificates, tokens of issuers and workloads,
//! tokens of users. Negative tables first: everything that is not exactly right is nobody.

mod certificates;
mod command_line;
mod config;
mod jwt;
mod keys;
mod reload;
mod together;
mod users;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::domain::ports::Clock as _;
use token_broker::r#gen::v1::ListProvidersRequest;
use token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use token_broker::infra::system::SystemClock;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::broker::BrokerBuilder;
use crate::support::hostile::{HostileServer, Reply};
use crate::support::jwt::{Signer, jwks};
use crate::support::pki::{Authority, Leaf};

/// What tokens for the broker name.
const AUDIENCE: &str = "token-broker";
/// Whose tokens tell `agent`.
const SUBJECT: &str = "system:serviceaccount:agents:mail";

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The broker's own words.
    Refused(Code, String),
    /// No word came through: the connection was refused.
    NoConnection,
}

impl Outcome {
    fn of(status: &Status) -> Self {
        match status.get_details_error_info() {
            Some(info) => Self::Refused(status.code(), info.reason),
            None => Self::NoConnection,
        }
    }

    fn nobody() -> Self {
        Self::Refused(Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
    }
}

/// A request with these metadata entries, and always the same id, so that answers can be compared.
fn with<T>(message: T, entries: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", "test".parse().unwrap());
    for (name, value) in entries {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// What the simplest of all calls is answered, and the whole status, to the byte.
async fn ask_fully(channel: Channel, entries: &[(&'static str, &str)]) -> (Outcome, String) {
    let answer =
        TokenBrokerServiceClient::new(channel).list_providers(with(ListProvidersRequest {}, entries)).await;
    match answer {
        Ok(_) => (Outcome::Answered, String::new()),
        Err(status) => {
            let bytes = format!("{:?} {:?} {:?}", status.code(), status.message(), status.details());
            (Outcome::of(&status), bytes)
        }
    }
}

async fn ask(channel: Channel, entries: &[(&'static str, &str)]) -> Outcome {
    ask_fully(channel, entries).await.0
}

async fn ask_as(channel: Channel, token: &str) -> Outcome {
    ask(channel, &[("authorization", &format!("Bearer {token}"))]).await
}

fn now() -> i64 {
    SystemClock.now().as_second()
}

/// An issuer with one key, whose metadata and keys are served on loopback.
struct TestIssuer {
    server: HostileServer,
    signer: Signer,
}

impl TestIssuer {
    async fn start(kid: &str) -> Self {
        let issuer = Self { server: HostileServer::start().await, signer: Signer::new("ES256", kid) };
        issuer.server.always(
            "/.well-known/openid-configuration",
            Reply::json(
                200,
                &json!({ "issuer": issuer.url(), "jwks_uri": format!("{}/jwks", issuer.url()) }),
            ),
        );
        issuer.publish(&[issuer.signer.jwk()]);
        issuer
    }

    fn url(&self) -> String {
        self.server.base()
    }

    fn publish(&self, keys: &[Value]) {
        self.server.always("/jwks", Reply::json(200, &jwks(keys)));
    }

    fn claims(&self, subject: &str) -> Value {
        let now = now();
        json!({ "iss": self.url(), "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600 })
    }

    fn token(&self, subject: &str) -> String {
        self.signer.token(&self.claims(subject))
    }

    /// How often somebody fetched its keys.
    fn fetches(&self) -> usize {
        self.server.requests_at("/jwks").len()
    }
}

/// A table of a subject.
fn subject_of(issuer: &str, subject: &str) -> toml::Value {
    toml::Value::Table(
        [("issuer".to_owned(), issuer.into()), ("subject".to_owned(), subject.into())].into_iter().collect(),
    )
}

/// Adds issuer `name` with discovery.
fn trusting(builder: BrokerBuilder, name: &str, issuer: &TestIssuer, purposes: &[&str]) -> BrokerBuilder {
    let purposes: Vec<_> = purposes.to_vec();
    builder
        .set(&format!("issuers.{name}.issuer"), issuer.url())
        .set(&format!("issuers.{name}.audiences"), vec![AUDIENCE])
        .set(&format!("issuers.{name}.for"), purposes)
}

/// The files of a broker that speaks TLS and trusts `example.org` and `other.example`.
struct Pki {
    folder: tempfile::TempDir,
    server: Authority,
    ours: Authority,
    others: Authority,
}

impl Pki {
    fn new() -> Self {
        let pki = Self {
            folder: tempfile::tempdir().unwrap(),
            server: Authority::new("server"),
            ours: Authority::new("example.org"),
            others: Authority::new("other.example"),
        };
        pki.write_server(&pki.server.server());
        pki.write("ours.pem", pki.ours.pem());
        pki.write("others.pem", pki.others.pem());
        pki
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        replace(&self.folder.path().join(name), content);
    }

    fn write_server(&self, leaf: &Leaf) {
        self.write("server.key", &leaf.key);
        self.write("server.crt", &leaf.chain);
    }

    fn tls(&self, builder: BrokerBuilder) -> BrokerBuilder {
        builder
            .set("grpc.tls_certificate_file", self.path("server.crt"))
            .set("grpc.tls_key_file", self.path("server.key"))
    }

    /// `agent` is `spiffe://example.org/agent`.
    fn mtls(&self, builder: BrokerBuilder) -> BrokerBuilder {
        let domain = |mut builder: BrokerBuilder, name: &str, file: &str| {
            // A name with dots is one key.
            let table: toml::Table =
                [("bundle_file".to_owned(), self.path(file).into())].into_iter().collect();
            builder = builder.set_table(&["spiffe", "trust_domains", name], table);
            builder
        };
        let builder =
            domain(domain(self.tls(builder), "example.org", "ours.pem"), "other.example", "others.pem");
        builder.set("callers.agent.spiffe_ids", vec!["spiffe://example.org/agent"])
    }

    /// A connection, with a certificate or without. Lazy: whether it is accepted, the first call tells.
    fn channel(&self, address: &str, leaf: Option<&Leaf>) -> Channel {
        channel(address, self.server.pem(), leaf)
    }
}

fn channel(address: &str, authority: &str, leaf: Option<&Leaf>) -> Channel {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut tls =
        ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(authority));
    if let Some(leaf) = leaf {
        tls = tls.identity(Identity::from_pem(&leaf.chain, &leaf.key));
    }
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(30))
        .tls_config(tls)
        .unwrap()
        .connect_lazy()
}

/// As a careful administrator replaces a file: at once, never half of it.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
