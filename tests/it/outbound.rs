//! Where calls go: endpoints that an issuer's metadata names do not lead into this network, whatever their names resolve to,
//! and whenever. The names resolve to what the test says.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use token_broker::domain::key::ConfigId;
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure, RevocationOutcome};
use token_broker::domain::provider::{OwnConfig, Provider};
use token_broker::domain::secret::SecretString;

use token_broker::r#gen::v1::{ImportCredentialRequest, RefreshRequest};
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::{Guard, HttpSettings, Lookup};
use token_broker::infra::system::{SystemClock, SystemEntropy};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::broker::{BrokerBuilder, answered};
use crate::support::consent::key_at;
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{discovered, provider_at, scopes};
use crate::support::tls_front::{TlsFront, pem};

const AMPLE: Duration = Duration::from_secs(20);

/// A name server of the test's: the answers of each name in turn, the last one again and again.
#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn say(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|all| all.iter().map(|text| text.parse().unwrap()).collect());
        self.answers.lock().unwrap().insert(name.to_owned(), answers.collect());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let Some(turns) = answers.get_mut(host) else { return Err(io::ErrorKind::NotFound.into()) };
        Ok(if turns.len() > 1 { turns.pop_front().unwrap() } else { turns[0].clone() })
    }
}

/// Listens on every address of this machine and counts who comes.
struct Trap {
    port: u16,
    connections: watch::Sender<usize>,
}

impl Trap {
    async fn set() -> Self {
        // Also for addresses of version 4.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
        let trap =
            Self { port: listener.local_addr().unwrap().port(), connections: watch::Sender::default() };
        let count = trap.connections.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.send_modify(|n| *n += 1);
            }
        });
        trap
    }

    fn caught(&self) -> usize {
        *self.connections.borrow()
    }
}

fn client(names: &Arc<Names>, guard: Guard) -> HttpOAuthClient {
    let settings = HttpSettings {
        connect_timeout: Duration::from_secs(3),
        guard: Arc::new(guard),
        authorities: Some(pem("ca.crt")),
        lookup: Arc::clone(names) as _,
        ..HttpSettings::default()
    };
    HttpOAuthClient::new(settings, Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap()
}

/// An issuer out in the world, as far as the broker can see, whose metadata names this token endpoint. The metadata is at a
/// name that the operator wrote down, so its address is not looked at.
struct Issuer {
    server: HostileServer,
    front: TlsFront,
}

impl Issuer {
    async fn start(names: &Names) -> Self {
        let server = HostileServer::start().await;
        let front = TlsFront::start(server.port(), false).await;
        names.say("idp.example", &[&["127.0.0.1"]]);
        Self { server, front }
    }

    fn base(&self) -> String {
        format!("https://idp.example:{}", self.front.port())
    }

    fn says(&self, token_endpoint: &str) -> Provider {
        let base = self.base();
        let metadata = json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": token_endpoint,
            "revocation_endpoint": token_endpoint,
            "userinfo_endpoint": token_endpoint,
        });
        self.server.always("/.well-known/openid-configuration", Reply::json(200, &metadata));
        discovered(&base)
    }
}

async fn refresh(client: &HttpOAuthClient, provider: &Provider) -> Result<(), ProviderFailure> {
    let token = SecretString::from("rt-0");
    client.refresh(provider, &token, &scopes("read"), AMPLE).await.map(drop)
}

#[tokio::test]
async fn a_discovered_endpoint_that_resolves_into_this_network_is_not_called() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    let trap = Trap::set().await;
    let provider = issuer.says(&format!("https://tokens.example:{}/token", trap.port));
    for addresses in [
        // Each of these would reach the trap.
        vec!["127.0.0.1"],
        vec!["127.9.9.9"],
        vec!["0.0.0.0"],
        vec!["::1"],
        vec!["::"],
        vec!["::ffff:127.0.0.1"],
        vec!["::ffff:0.0.0.0"],
        // One that is public beside it does not help.
        vec!["127.0.0.1", "1.1.1.1"],
        vec!["1.1.1.1", "127.0.0.1"],
        // Nothing answers there in a test; the table beside the code has all of these.
        vec!["10.0.0.1"],
        vec!["169.254.169.254"],
        vec!["100.64.0.1"],
        vec!["64:ff9b::a9fe:a9fe"],
        vec!["2002:7f00:1::1"],
    ] {
        names.say("tokens.example", &[&addresses]);
        let client = client(&names, Guard::default());
        assert_eq!(refresh(&client, &provider).await, Err(ProviderFailure::NotSent), "{addresses:?}");
        let revoked = client.revoke(&provider, &SecretString::from("at-0"), None).await;
        assert_eq!(revoked, Err(ProviderFailure::NotSent), "{addresses:?}");
    }
    assert_eq!(trap.caught(), 0);
}

/// What a tenant names is no word of the operator's: neither a place that is written down nor an issuer.
#[tokio::test]
async fn what_a_tenant_has_named_does_not_lead_into_this_network() {
    let names = Arc::new(Names::default());
    let server = HostileServer::start().await;
    let front = TlsFront::start(server.port(), false).await;
    let base = format!("https://idp.example:{}", front.port());
    let metadata = json!({ "issuer": base, "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token") });
    server.always("/.well-known/openid-configuration", Reply::json(200, &metadata));
    server.always("/token", Reply::tokens("at", "rt"));
    names.say("idp.example", &[&["127.0.0.1"]]);
    let inside = Guard { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Guard::default() };
    for written_down in [provider_at(&base), discovered(&base)] {
        let mut tenants = written_down.clone();
        tenants.own = Some(OwnConfig {
            id: ConfigId::from_bytes([1; 16]),
            revision: 1,
            named_by_tenant: vec![base.parse().unwrap()],
        });
        // One client for both: what the operator's issuer has told is not the tenant's to go by.
        let client = client(&names, Guard::default());
        assert_eq!(refresh(&client, &written_down).await, Ok(()), "the operator's word is meant");
        let before = server.requests().len();
        assert_eq!(refresh(&client, &tenants).await, Err(ProviderFailure::NotSent));
        assert!(client.endpoints(&tenants).await.is_err() || server.requests().len() == before);
        assert_eq!(server.requests().len(), before, "nobody was asked");
        // Unless the operator allows the place.
        let client = self::client(&names, inside.clone());
        assert_eq!(refresh(&client, &tenants).await, Ok(()));
    }
}

#[tokio::test]
async fn metadata_can_not_name_an_address_of_this_network() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    let trap = Trap::set().await;
    for host in
        ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "localhost", "x.localhost"]
    {
        let provider = issuer.says(&format!("https://{host}:{}/token", trap.port));
        let client = client(&names, Guard::default());
        assert_eq!(refresh(&client, &provider).await, Err(ProviderFailure::NotSent), "{host}");
    }
    assert_eq!(trap.caught(), 0);
    assert!(names.asked().iter().all(|name| name == "idp.example"), "{:?}", names.asked());
}

/// DNS rebinding: the name resolves to a good address when it is checked, and to another one when it is connected to.
#[tokio::test]
async fn what_was_checked_is_what_is_connected_to() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    let (good, bad) = (HostileServer::start().await, HostileServer::start().await);
    let reachable: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let front = TlsFront::start_at(reachable, good.port(), false).await;
    let _trap = TcpListener::bind((Ipv4Addr::LOCALHOST, front.port())).await.unwrap();
    good.always("/token", Reply::tokens("at-1", "rt-1"));
    names.say("tokens.example", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let provider = issuer.says(&format!("https://tokens.example:{}/token", front.port()));
    let guard = Guard { networks: vec!["127.0.0.2/32".parse().unwrap()], ..Guard::default() };
    let client = client(&names, guard);

    refresh(&client, &provider).await.unwrap();
    let lookups = || names.asked().iter().filter(|name| *name == "tokens.example").count();
    assert_eq!((good.requests().len(), lookups()), (1, 1), "one look, and the connection goes there");
    // A moment later the name says this machine. Each connection is checked anew, and none is kept from before.
    assert_eq!(refresh(&client, &provider).await, Err(ProviderFailure::NotSent));
    assert_eq!((good.requests().len(), lookups(), bad.connections()), (1, 2, 0));
}

#[tokio::test]
async fn the_operator_can_allow_a_host_or_a_network() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    let inside = HostileServer::start().await;
    let front = TlsFront::start(inside.port(), false).await;
    inside.always("/token", Reply::tokens("at-1", "rt-1"));
    names.say("tokens.example", &[&["127.0.0.1"]]);
    let provider = issuer.says(&format!("https://tokens.example:{}/token", front.port()));
    let host = |name: &str| Guard { hosts: vec![name.to_owned()], ..Guard::default() };
    let network = |text: &str| Guard { networks: vec![text.parse().unwrap()], ..Guard::default() };
    for (guard, expected) in [
        (host("tokens.example"), Ok(())),
        (network("127.0.0.0/8"), Ok(())),
        (host("example"), Err(ProviderFailure::NotSent)),
        (host("idp.example"), Err(ProviderFailure::NotSent)),
        (network("10.0.0.0/8"), Err(ProviderFailure::NotSent)),
    ] {
        let shown = format!("{guard:?}");
        assert_eq!(refresh(&client(&names, guard), &provider).await, expected, "{shown}");
    }
    assert_eq!(inside.requests().len(), 2);
}

#[tokio::test]
async fn the_issuers_own_origin_is_the_operators_word() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    issuer.server.always("/token", Reply::tokens("at-1", "rt-1"));
    let provider = issuer.says(&format!("{}/token", issuer.base()));
    refresh(&client(&names, Guard::default()), &provider).await.unwrap();
    // What is written down is called where it is, too.
    names.say("tokens.example", &[&["127.0.0.1"]]);
    let written = provider_at(&format!("https://tokens.example:{}", issuer.front.port()));
    refresh(&client(&names, Guard::default()), &written).await.unwrap();
    issuer.server.always("/revoke", Reply::status(200));
    let revoked = client(&names, Guard::default()).revoke(&written, &SecretString::from("at-1"), None).await;
    assert_eq!(revoked, Ok(RevocationOutcome::Revoked));
}

/// A flow remembers the endpoints that it began with; those are no word of the operator's if he has since written others.
#[tokio::test]
async fn endpoints_that_a_flow_recorded_are_guarded_as_well() {
    let names = Arc::new(Names::default());
    let issuer = Issuer::start(&names).await;
    let trap = Trap::set().await;
    names.say("tokens.example", &[&["127.0.0.1"]]);
    let mut recorded = crate::support::provider::endpoints(&provider_at(&issuer.base()));
    recorded.token = format!("https://tokens.example:{}/token", trap.port).parse().unwrap();
    let (code, verifier) = ("code-1".into(), "a-verifier-of-more-than-forty-three-characters".into());
    let redirect_uri = "https://broker.example/cb".parse().unwrap();
    let provider = discovered(&issuer.base());
    let client = client(&names, Guard::default());
    let answer = client.exchange_code(&provider, &recorded, &redirect_uri, &code, &verifier).await;
    assert_eq!(answer.unwrap_err(), ProviderFailure::NotSent);
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn an_answer_above_the_limit_is_unreadable() {
    let server = HostileServer::start().await;
    let body = json!({ "access_token": "at-1", "padding": "x".repeat(70_000) });
    server.always("/token", Reply::json(200, &body));
    for (max_body_bytes, expected) in [(65_536, Err(ProviderFailure::Ambiguous)), (131_072, Ok(()))] {
        let settings = HttpSettings { max_body_bytes, ..HttpSettings::default() };
        let client = HttpOAuthClient::new(settings, Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
        assert_eq!(refresh(&client, &provider_at(&server.base())).await, expected, "{max_body_bytes}");
    }
}

/// A variable of the environment does not send tokens elsewhere.
#[tokio::test]
async fn no_proxy_of_the_environment_is_used() {
    let (server, proxy) = (HostileServer::start().await, HostileServer::start().await);
    server.always("/token", Reply::tokens("at-1", "rt-1"));
    let mut builder = BrokerBuilder::new().hostile(&server);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        builder = builder.env(name, &proxy.base());
    }
    let broker = builder.spawn_process().await;
    let mut agent = broker.client("agent").await;
    let key = Some(key_at("hostile", "alice", "files"));
    let import = ImportCredentialRequest {
        key: key.clone(),
        access_token: "at-0".to_owned(),
        refresh_token: "rt-0".to_owned(),
        ..ImportCredentialRequest::default()
    };
    answered(agent.import_credential(import).await);
    answered(agent.refresh(RefreshRequest { key, expected_generation: 1 }).await);
    assert_eq!(server.requests_at("/token").len(), 1);
    assert_eq!(proxy.connections(), 0);
}
