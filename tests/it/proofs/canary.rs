//! Nothing leaks: every secret that goes through a broker at trace level is searched for in everything it writes.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use sqlx::AssertSqlSafe;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::{
    self as pb, BeginOAuthRequest, ConsentOptions, GetCredentialRequest, GetFlowRequest,
    ImportCredentialRequest, ListCredentialsRequest, RefreshRequest, RevokeRequest,
};

use crate::engines::postgres;
use crate::engines::redis::{Options as RedisOptions, Redis};
use crate::support::broker::{BrokerBuilder, TestBroker, answered, refused};
use crate::support::browser::Browser;
use crate::support::consent::key_at;
use crate::support::token_server::TokenServer;

const CLIENT_SECRET: &str = "canary-client-secret";
/// Of the client of a tenant's own app.
const OWN_SECRET: &str = "canary-own-client-secret";
/// A client's private key. Its lines are searched for one by one.
const PRIVATE_KEY: &str = include_str!("../support/keys/rsa.pem");

/// The database, and what is beside it.
enum Storage {
    Sqlite,
    Servers { postgres: String, redis: Box<Redis> },
}

impl Storage {
    async fn servers() -> Self {
        let database = postgres::shared().migrated_database().await;
        Self::Servers {
            postgres: postgres::shared().url(&database),
            redis: Box::new(Redis::start(RedisOptions::default())),
        }
    }

    fn configure(&self, builder: BrokerBuilder) -> BrokerBuilder {
        match self {
            Self::Sqlite => builder,
            Self::Servers { postgres, redis } => {
                builder.set("storage.url", postgres.as_str()).set("redis.url", redis.url())
            }
        }
    }

    /// Everything that the servers hold.
    async fn dump(&self, written: &mut Written) {
        let Self::Servers { postgres, redis } = self else { return };
        let mut connection = postgres::connect(postgres).await;
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
                .fetch_all(&mut connection)
                .await
                .unwrap();
        for table in tables {
            let all = format!("SELECT string_agg(t::text, E'\\n') FROM \"{table}\" t");
            let rows: Option<String> =
                sqlx::query_scalar(AssertSqlSafe(all)).fetch_one(&mut connection).await.unwrap();
            written.add(format!("table {table}"), rows.unwrap_or_else(|| "no rows".to_owned()));
        }
        redis.command::<()>(&["CONFIG", "SET", "rdbcompression", "no"]);
        redis.command::<()>(&["SAVE"]);
        written.add("redis", std::fs::read(redis.home().join("dump.rdb")).unwrap());
    }
}

/// A text as it may show up: as it is, in base64, in hex, percent-encoded, and without its last character.
fn disguises(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    vec![
        secret.to_owned(),
        BASE64_STANDARD.encode(bytes),
        BASE64_STANDARD_NO_PAD.encode(bytes),
        BASE64_URL_SAFE_NO_PAD.encode(bytes),
        hex::encode(bytes),
        url::form_urlencoded::byte_serialize(bytes).collect(),
        secret[..secret.len() - 1].to_owned(),
    ]
}

/// What was written, by where.
#[derive(Default)]
struct Written(Vec<(String, String)>);

impl Written {
    /// As text, whatever it is: what is searched for is ASCII, and the search in texts is the fast one.
    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), String::from_utf8_lossy(&text.into()).into_owned()));
    }

    fn hits(&self, secrets: &BTreeSet<String>) -> Vec<String> {
        let mut hits = Vec::new();
        for secret in secrets {
            for disguise in disguises(secret) {
                for (place, text) in &self.0 {
                    if text.contains(&disguise) {
                        hits.push(format!("{disguise} in {place}"));
                    }
                }
            }
        }
        hits
    }
}

/// The page at the end of a consent, with its headers.
async fn visit(browser: &mut Browser, written: &mut Written, name: &str, url: &str) {
    let page = browser.open(url).await;
    written.add(format!("page {name}"), page.body);
    written.add(format!("headers of page {name}"), format!("{:?}", page.headers));
}

async fn begin(broker: &TestBroker, user: &str, hint: &str) -> (String, String) {
    begin_at(broker, "strict", user, hint).await
}

async fn begin_at(broker: &TestBroker, provider: &str, user: &str, hint: &str) -> (String, String) {
    let request = BeginOAuthRequest {
        provider: provider.to_owned(),
        user_id: user.to_owned(),
        services: vec!["api".to_owned()],
        options: Some(ConsentOptions { login_hint: hint.to_owned(), ..ConsentOptions::default() }),
        ..BeginOAuthRequest::default()
    };
    let flow = answered(broker.client("agent").await.begin_o_auth(request).await).flow.unwrap();
    (flow.flow_id, flow.authorization_url)
}

fn state_of(link: &url::Url) -> String {
    link.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

/// All files below a folder but those that the operator wrote: configuration, definitions, keys.
fn files(folder: &Path, written: &mut Written, moment: &str) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, written, moment);
        } else if !path.extension().is_some_and(|end| end == "toml" || end == "key")
            && let Ok(content) = std::fs::read(&path)
        {
            written.add(format!("{}, {moment}", path.display()), content);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_pages_metrics_errors_or_the_database() {
    search(&Storage::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_postgres_or_redis() {
    search(&Storage::servers().await).await;
}

async fn use_the_command_line(broker: &TestBroker, written: &mut Written) {
    for args in [
        &["get", "signed", "api", "-u", "erin"][..],
        &["get", "signed", "api", "-u", "erin", "--output", "json"],
        &["get", "signed", "api", "-u", "nobody"],
        &["refresh", "signed", "api", "-u", "erin"],
        &["list", "-u", "erin"],
        &["providers", "list"],
        &["config", "show"],
        &["config", "check"],
        &["revoke", "signed", "api", "-u", "erin"],
    ] {
        let output = broker.site().run(args).await;
        written.add(format!("output of {args:?}"), [&output.stdout[..], b"|", &output.stderr].concat());
    }
}

/// Replays, forgeries, and a code that the provider does not know.
async fn visit_what_nobody_sent(
    broker: &TestBroker,
    written: &mut Written,
    secrets: &mut BTreeSet<String>,
    browser: &mut Browser,
    link: &url::Url,
) {
    let back = format!("{}/oauth/callback/strict", broker.public_url());
    for (name, query) in [
        ("replayed", format!("state={}&code=canary-forged-code", state_of(link))),
        ("forged", "state=canary-forged-state&code=canary-forged-code".to_owned()),
        ("markup", "state=%3Cscript%3Ecanary-markup&code=canary-forged-code&error=canary-error".to_owned()),
        ("twice", "state=canary-forged-state&state=canary-forged-state&code=canary-forged-code".to_owned()),
    ] {
        visit(browser, written, name, &format!("{back}?{query}")).await;
    }
    secrets.extend(
        [
            "canary-forged-code",
            "canary-forged-state",
            "canary-markup",
            "canary-error",
            "canary-description-of-a-failure",
        ]
        .map(str::to_owned),
    );
    let (_, failing) = begin(broker, "carol", "").await;
    let failing = browser.confirm(&failing).await;
    let failing = format!("{back}?state={}&code=canary-unknown-code", state_of(&failing));
    secrets.insert("canary-unknown-code".to_owned());
    visit(browser, written, "failed", &failing).await;
}

/// A tenant's own app is made and used.
async fn use_an_own_app(broker: &TestBroker, written: &mut Written, browser: &mut Browser) {
    let own = pb::CreateProviderConfigurationRequest {
        provider: "own".to_owned(),
        definition: "strict".to_owned(),
        client_id: "own-client".to_owned(),
        authentication: Some(pb::ClientAuthentication {
            client_secret: OWN_SECRET.to_owned(),
            ..pb::ClientAuthentication::default()
        }),
        ..pb::CreateProviderConfigurationRequest::default()
    };
    let mut operator = broker.admin("agent").await;
    let made = answered(operator.create_provider_configuration(own.clone()).await);
    written.add("own app", prost::Message::encode_to_vec(&made));
    let twice = refused(operator.create_provider_configuration(own).await);
    written.add("status of a second own app", format!("{twice:?}"));
    let (_, own) = begin_at(broker, "own", "frank", "").await;
    let own = browser.confirm(&own).await;
    visit(browser, written, "connected by an own app", own.as_str()).await;
    let refresh = RefreshRequest { key: Some(key_at("own", "frank", "api")), expected_generation: 1 };
    let mut agent = broker.client("agent").await;
    answered(agent.refresh(refresh).await);
}

async fn search(storage: &Storage) {
    let server = TokenServer::start().await;
    let key_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/keys/rsa.pem");
    let broker = storage
        .configure(BrokerBuilder::new())
        .set("callers.agent.admin", vec!["manage_providers"])
        .set("log.level", "trace")
        .definition(&server.definition())
        .definition(&server.definition_for_keys())
        .set("providers.signed.client_id", "client")
        .set("providers.signed.private_key_file", key_file.to_str().unwrap())
        .provider("strict", "strict", ("client", CLIENT_SECRET), &[])
        .spawn_process()
        .await;
    let mut agent = broker.client("agent").await;
    let mut written = Written::default();
    let mut secrets = BTreeSet::from([CLIENT_SECRET, OWN_SECRET, broker.api_key("agent")].map(str::to_owned));
    secrets
        .insert(std::fs::read_to_string(broker.site().path().join("vault.key")).unwrap().trim().to_owned());
    secrets.extend(
        PRIVATE_KEY.lines().filter(|line| !line.starts_with('-') && line.len() > 20).map(str::to_owned),
    );
    assert!(secrets.len() > 10, "the lines of the key are among them");

    // A client that signs.
    let (_, signed) = begin_at(&broker, "signed", "erin", "").await;
    let mut browser = Browser::new();
    let signed = browser.confirm(&signed).await;
    visit(&mut browser, &mut written, "connected by key", signed.as_str()).await;
    let refresh = RefreshRequest { key: Some(key_at("signed", "erin", "api")), expected_generation: 1 };
    answered(agent.refresh(refresh).await);

    use_an_own_app(&broker, &mut written, &mut browser).await;

    // A consent, a refusal, a replay, forgeries.
    let (flow_id, link) = begin(&broker, "alice", "").await;
    visit(&mut browser, &mut written, "confirm", &link).await;
    let link = browser.confirm(&link).await;
    visit(&mut browser, &mut written, "connected", link.as_str()).await;
    let (_, refusing) = begin(&broker, "bob", "refuse").await;
    let refusing = browser.confirm(&refusing).await;
    visit(&mut browser, &mut written, "refused", refusing.as_str()).await;
    visit_what_nobody_sent(&broker, &mut written, &mut secrets, &mut browser, &link).await;

    // Tokens: got, refreshed, imported, refused at the provider, revoked.
    let get = |user: &str| GetCredentialRequest {
        key: Some(key_at("strict", user, "api")),
        ..GetCredentialRequest::default()
    };
    let Some(Got::Credential(got)) = answered(agent.get_credential(get("alice")).await).result else {
        panic!("no token")
    };
    let refresh = RefreshRequest { key: got.key, expected_generation: got.generation };
    answered(agent.refresh(refresh).await);
    let (_, access_token, refresh_token) = server.grant();
    let import = ImportCredentialRequest {
        key: Some(key_at("strict", "dave", "api")),
        access_token,
        refresh_token,
        ..ImportCredentialRequest::default()
    };
    answered(agent.import_credential(import.clone()).await);
    let twice = refused(agent.import_credential(import.clone()).await);
    written.add("status of a second import", format!("{twice:?}"));
    let bad = ImportCredentialRequest { key: Some(key_at("strict", "\0", "api")), ..import };
    written.add("status of a bad import", format!("{:?}", refused(agent.import_credential(bad).await)));
    server.end_all_grants();
    let refresh = RefreshRequest { key: Some(key_at("strict", "dave", "api")), expected_generation: 1 };
    answered(agent.refresh(refresh).await);
    let list = answered(agent.list_credentials(ListCredentialsRequest::default()).await);
    written.add("list", prost::Message::encode_to_vec(&list));
    let flow = answered(agent.get_flow(GetFlowRequest { flow_id }).await);
    written.add("flow", prost::Message::encode_to_vec(&flow));
    let revoke = RevokeRequest { key: Some(key_at("strict", "alice", "api")), force: false };
    answered(agent.revoke(revoke).await);

    use_the_command_line(&broker, &mut written).await;

    // Keys that are refused.
    let wrong = format!("{}x", broker.api_key("agent"));
    let mut stranger = broker.client_with_key(Some(&wrong)).await;
    written
        .add("status of a wrong key", format!("{:?}", refused(stranger.get_credential(get("alice")).await)));

    visit(&mut browser, &mut written, "metrics", &format!("{}/metrics", broker.operations_url())).await;
    secrets.extend(server.secrets());
    for (place, text) in &written.0 {
        assert!(!text.is_empty(), "{place} was not read");
    }
    // With the log and the database as they are while it runs, and after it has stopped.
    for moment in ["running", "stopped"] {
        files(broker.site().path(), &mut written, moment);
        storage.dump(&mut written).await;
        if moment == "running" {
            broker.terminate().await;
        }
    }
    let logs = broker.logs();
    for told in ["consent completed", "refresh token presented", "revocation presented", "answered"] {
        assert!(logs.contains(told), "the log tells: {told}");
    }
    written.add("log", logs);

    let places: Vec<&str> = written.0.iter().map(|(place, _)| place.as_str()).collect();
    assert!(places.iter().any(|place| place.contains("token-broker-journal")), "{places:?}");
    assert!(secrets.iter().any(|secret| secret.matches('.').count() == 2), "an assertion is among them");
    assert!(secrets.len() > 40, "{secrets:?}");
    // The search itself can find: what must be there is there.
    let present = BTreeSet::from(["token_broker_consents_total".to_owned(), "strict".to_owned()]);
    assert!(written.hits(&present).len() > 2);
    assert_eq!(written.hits(&secrets), Vec::<String>::new());
}
