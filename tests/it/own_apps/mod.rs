//! A tenant brings its own OAuth apps: managed over the wire and by the command line, used for that tenant alone.

mod admin;
mod ends;
mod keys;
mod looks;
mod replicas;
mod uses;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use token_broker::app::Overrides;
use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::refresh_response::Result as RefreshResult;
use token_broker::r#gen::v1::{self as pb};
use tonic::Status;

use crate::support::broker::{AdminClient, BrokerBuilder, CallerRights, TestBroker, answered, reason};
use crate::support::browser::{Browser, Page};
use crate::support::consent::key_at;
use crate::support::hostile::{HostileServer, Recorded, Reply};

/// A definition whose places are a registration's to name.
const OPEN: &str = r#"
id = "test-open"
display_name = "Open"

[variables.host]
kind = "host"
description = "where it is"

[variables.realm]
kind = "label"
default = "main"
description = "which of its realms"

[endpoints]
authorization = "https://{host}/{realm}/authorize"
token = "https://{host}/{realm}/token"

[client]
auth = "basic"
secret = "optional"

[revocation]
kind = "none"

[refresh]
rotation = "strict"

[services.files]
display_name = "Files"
scopes = ["read"]
"#;

/// Tenants acme, globex and initech, each with an agent and an operator, and a root of all. The operator's provider is `hostile`.
fn builder(server: &HostileServer) -> BrokerBuilder {
    let mut builder = BrokerBuilder::new()
        .hostile(server)
        .definition(OPEN)
        .set("authentication.cache_ttl", "0s")
        .caller("root", CallerRights::none("acme").admin(true));
    for tenant in ["acme", "globex", "initech"] {
        builder = builder
            .caller(&format!("{tenant}-agent"), CallerRights::all(tenant))
            .caller(&format!("{tenant}-ops"), CallerRights::none(tenant))
            .set(&format!("callers.{tenant}-ops.admin"), vec!["manage_providers"]);
    }
    builder
}

async fn start(server: &HostileServer) -> TestBroker {
    builder(server).start_in_process(Overrides::default()).await
}

async fn ops(broker: &TestBroker, tenant: &str) -> AdminClient {
    broker.admin(&format!("{tenant}-ops")).await
}

fn secret(secret: &str) -> pb::ClientAuthentication {
    pb::ClientAuthentication { client_secret: secret.to_owned(), ..Default::default() }
}

/// An app at the hostile server.
fn app(client_id: &str, client_secret: &str) -> pb::CreateProviderConfigurationRequest {
    pb::CreateProviderConfigurationRequest {
        provider: "hostile".to_owned(),
        definition: "test-hostile".to_owned(),
        client_id: client_id.to_owned(),
        authentication: Some(secret(client_secret)),
        ..Default::default()
    }
}

async fn create(
    broker: &TestBroker,
    tenant: &str,
    request: pb::CreateProviderConfigurationRequest,
) -> pb::ProviderConfiguration {
    let made = ops(broker, tenant).await.create_provider_configuration(request).await;
    answered(made).configuration.unwrap()
}

/// A consent under way: the browser that confirmed it, and the address at the provider that it was sent to.
struct Begun {
    browser: Browser,
    at_provider: BTreeMap<String, String>,
}

impl Begun {
    fn sent(&self, name: &str) -> &str {
        &self.at_provider[name]
    }

    /// The browser comes back to an address of the broker's with a code.
    async fn back_at(&mut self, address: &str) -> Page {
        let url = format!("{address}?state={}&code=code", self.sent("state"));
        self.browser.open(&url).await
    }

    async fn back(&mut self) -> Page {
        let address = self.sent("redirect_uri").to_owned();
        self.back_at(&address).await
    }
}

async fn begin_as(broker: &TestBroker, caller: &str, provider: &str, user: &str) -> Result<Begun, Status> {
    let request = pb::BeginOAuthRequest {
        provider: provider.to_owned(),
        user_id: user.to_owned(),
        services: vec!["files".to_owned()],
        ..Default::default()
    };
    let flow = broker.client(caller).await.begin_o_auth(request).await?.into_inner().flow.unwrap();
    let mut browser = Browser::new();
    let url = browser.confirm(&flow.authorization_url).await;
    let at_provider = url.query_pairs().into_owned().collect();
    Ok(Begun { browser, at_provider })
}

async fn begin_at(broker: &TestBroker, tenant: &str, provider: &str, user: &str) -> Result<Begun, Status> {
    begin_as(broker, &format!("{tenant}-agent"), provider, user).await
}

async fn begin(broker: &TestBroker, tenant: &str, user: &str) -> Begun {
    begin_at(broker, tenant, "hostile", user).await.unwrap()
}

/// The user consents; the provider answers with these tokens.
async fn connect(
    broker: &TestBroker,
    server: &HostileServer,
    tenant: &str,
    user: &str,
    tokens: &str,
) -> Begun {
    let mut begun = begin(broker, tenant, user).await;
    server.push(Reply::tokens(&format!("at-{tokens}"), &format!("rt-{tokens}")));
    let page = begun.back().await;
    assert!(page.status.is_success(), "{}: {}", page.status, page.text());
    begun
}

async fn get(broker: &TestBroker, tenant: &str, user: &str) -> Result<GetResult, Status> {
    let request =
        pb::GetCredentialRequest { key: Some(key_at("hostile", user, "files")), ..Default::default() };
    let mut agent = broker.client(&format!("{tenant}-agent")).await;
    Ok(agent.get_credential(request).await?.into_inner().result.unwrap())
}

async fn token(broker: &TestBroker, tenant: &str, user: &str) -> pb::Credential {
    match get(broker, tenant, user).await {
        Ok(GetResult::Credential(credential)) => credential,
        Ok(GetResult::AuthorizationRequired(required)) => panic!("{}", required.reason().as_str_name()),
        Err(status) => panic!("{status}"),
    }
}

async fn missing(broker: &TestBroker, tenant: &str, user: &str) -> &'static str {
    match get(broker, tenant, user).await {
        Ok(GetResult::AuthorizationRequired(required)) => required.reason().as_str_name(),
        Ok(GetResult::Credential(_)) => panic!("there is a token"),
        Err(status) => panic!("{status}"),
    }
}

/// Refreshes whatever there is; the provider answers with these tokens.
async fn refresh(broker: &TestBroker, server: &HostileServer, tenant: &str, user: &str, tokens: &str) {
    let generation = token(broker, tenant, user).await.generation;
    server.push(Reply::tokens(&format!("at-{tokens}"), &format!("rt-{tokens}")));
    let request =
        pb::RefreshRequest { key: Some(key_at("hostile", user, "files")), expected_generation: generation };
    let mut agent = broker.client(&format!("{tenant}-agent")).await;
    match answered(agent.refresh(request).await).result.unwrap() {
        RefreshResult::Credential(credential) => assert_eq!(credential.access_token, format!("at-{tokens}")),
        RefreshResult::AuthorizationRequired(required) => panic!("{}", required.reason().as_str_name()),
    }
}

/// Id and secret of the client that a request came from.
fn client_of(request: &Recorded) -> (String, String) {
    let basic = request.header("authorization").unwrap().strip_prefix("Basic ").unwrap();
    let pair = String::from_utf8(BASE64_STANDARD.decode(basic).unwrap()).unwrap();
    let (id, secret) = pair.split_once(':').unwrap();
    (id.to_owned(), secret.to_owned())
}

fn pair(id: &str, secret: &str) -> (String, String) {
    (id.to_owned(), secret.to_owned())
}

/// The client that the last token request came from.
pub(crate) fn last_client(server: &HostileServer) -> (String, String) {
    client_of(server.requests_at("/token").last().unwrap())
}

/// The user consents, for a caller of another name; which client came to the token endpoint.
async fn connect_as(
    broker: &TestBroker,
    server: &HostileServer,
    caller: &str,
    user: &str,
) -> (String, String) {
    let mut begun = begin_as(broker, caller, "hostile", user).await.unwrap();
    server.push(Reply::tokens(&format!("at-{user}"), &format!("rt-{user}")));
    assert!(begun.back().await.status.is_success());
    last_client(server)
}
