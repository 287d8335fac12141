//! Several replicas, restarts, and a stolen database.

use std::time::Duration;

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use tokio::time::Instant;

use super::{app, begin, builder, client_of, connect, create, last_client, ops, pair, refresh, secret};
use crate::engines::postgres;
use crate::support::broker::{TestBroker, answered};
use crate::support::hostile::{HostileServer, Reply};

const TTL: Duration = Duration::from_secs(1);

/// Two replicas over one database. What either has read is believed for [`TTL`].
async fn two(server: &HostileServer) -> [TestBroker; 2] {
    let database = postgres::shared().url(&postgres::shared().migrated_database().await);
    let with = || {
        builder(server)
            .set("storage.url", database.as_str())
            .set("replicas.without_redis", true)
            .set("authentication.cache_ttl", "1s")
            .set("limits.lists", 0)
            .set("limits.caller", 0)
            .set("limits.tenant", 0)
            .set("public.return_urls", vec!["https://app.example/"])
    };
    let first = with().start_in_process(Overrides::default()).await;
    let key = first.site().path().join("vault.key");
    let key = key.to_str().unwrap();
    let second = with()
        .set("vault.keys.test.file", key)
        .set("public.base_url", first.public_url())
        .start_in_process(Overrides::default())
        .await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_at_one_replica_holds_at_the_other_within_the_cache_time() {
    let server = HostileServer::start().await;
    let [first, second] = two(&server).await;
    // Both remember that there is none.
    for replica in [&first, &second] {
        assert_eq!(begin(replica, "acme", "zoe").await.sent("client_id"), "client-1");
    }
    let made = create(&first, "acme", app("acme-app", "secret-1")).await;
    assert_eq!(begin(&first, "acme", "zoe").await.sent("client_id"), "acme-app", "who wrote knows at once");
    let until_it_is = async |wanted: &str| {
        let changed = Instant::now();
        let mut agent = second.client("acme-agent").await;
        loop {
            let asked = changed.elapsed();
            let listed = answered(agent.list_providers(pb::ListProvidersRequest {}).await).providers;
            if listed[0].redirect_uri == wanted {
                return;
            }
            assert!(asked < TTL + Duration::from_secs(2), "still {}", listed[0].redirect_uri);
        }
    };
    until_it_is(&made.redirect_uri).await;
    let begun = connect(&second, &server, "acme", "bob", "b1").await;
    assert_eq!((begun.sent("client_id"), last_client(&server)), ("acme-app", pair("acme-app", "secret-1")));

    let update = pb::UpdateProviderConfigurationRequest {
        provider: "hostile".to_owned(),
        revision: 1,
        authentication: Some(secret("secret-2")),
        ..Default::default()
    };
    answered(ops(&first, "acme").await.update_provider_configuration(update).await);
    let changed = Instant::now();
    for n in 2.. {
        let asked = changed.elapsed();
        refresh(&second, &server, "acme", "bob", &format!("b{n}")).await;
        if last_client(&server).1 == "secret-2" {
            break;
        }
        assert!(asked < TTL + Duration::from_secs(2), "still the old secret");
    }
    let force = pb::DeleteProviderConfigurationRequest {
        provider: "hostile".to_owned(),
        force: true,
        ..Default::default()
    };
    answered(ops(&first, "acme").await.delete_provider_configuration(force).await);
    until_it_is(&format!("{}/oauth/callback/hostile", first.public_url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unknown_app_began_is_looked_up_at_once() {
    let server = HostileServer::start().await;
    let [first, second] = two(&server).await;
    begin(&second, "acme", "zoe").await;
    let only = pb::CreateProviderConfigurationRequest { provider: "only".to_owned(), ..app("app", "secret") };
    create(&first, "acme", only).await;
    let request = pb::BeginOAuthRequest {
        provider: "only".to_owned(),
        user_id: "alice".to_owned(),
        services: vec!["files".to_owned()],
        options: Some(pb::ConsentOptions {
            return_url: "https://app.example/done".to_owned(),
            binding: pb::ConsentBinding::App.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let begun = answered(first.client("acme-agent").await.begin_o_auth(request).await).flow.unwrap();
    let url: url::Url = begun.authorization_url.parse().unwrap();
    let sent = |name: &str| url.query_pairs().find(|(of, _)| of == name).unwrap().1.into_owned();
    // The browser comes to the other replica, which has just read that there is no such app.
    let address = sent("redirect_uri").replace(&first.public_url(), &second.public_url());
    let browser = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let back = browser.build().unwrap().get(format!("{address}?state={}&code=code", sent("state")));
    let answer = back.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 303, "on to the application");
    let location: url::Url = answer.headers()["location"].to_str().unwrap().parse().unwrap();
    let code = location.query_pairs().find(|(name, _)| name == "completion_code").unwrap().1.into_owned();
    server.push(Reply::tokens("at", "rt"));
    let complete = pb::CompleteOAuthRequest {
        flow_id: begun.flow_id,
        flow_secret: begun.flow_secret,
        completion_code: code,
        user_id: "alice".to_owned(),
    };
    let completed = answered(second.client("acme-agent").await.complete_o_auth(complete).await);
    assert!(completed.flow.unwrap().status() == pb::FlowStatus::Completed);
    assert_eq!(last_client(&server), pair("app", "secret"));
}

#[tokio::test]
async fn a_restart_keeps_apps_and_a_stolen_database_has_no_secret() {
    let server = HostileServer::start().await;
    let broker = builder(&server).spawn_process().await;
    create(&broker, "acme", app("acme-app", "canary-own-secret-of-acme")).await;
    let key = include_str!("../support/keys/ec.pem");
    let signed = pb::CreateProviderConfigurationRequest {
        provider: "signed".to_owned(),
        definition: "oidc".to_owned(),
        client_id: "signer".to_owned(),
        variables: [("issuer".to_owned(), "https://issuer.example".to_owned())].into(),
        authentication: Some(pb::ClientAuthentication { private_key: key.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    create(&broker, "acme", signed).await;
    connect(&broker, &server, "acme", "alice", "1").await;
    let mut open = begin(&broker, "acme", "bob").await;
    assert!(broker.terminate().await.success());
    let mut stolen = Vec::new();
    for suffix in ["", "-wal"] {
        stolen.extend(std::fs::read(format!("{}{suffix}", broker.database().display())).unwrap_or_default());
    }
    let has = |text: &str| stolen.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("acme-app") && has("signer"), "the search can find");
    let lines = key.lines().filter(|line| !line.starts_with('-') && line.len() > 20);
    for secret in lines.chain(["canary-own-secret-of-acme"]) {
        assert!(!has(secret), "{secret}");
    }
    assert!(!broker.logs().contains("canary-own-secret"));

    broker.restart().await;
    refresh(&broker, &server, "acme", "alice", "2").await;
    let acme = pair("acme-app", "canary-own-secret-of-acme");
    assert_eq!(last_client(&server), acme);
    server.push(Reply::tokens("at-3", "rt-3"));
    assert!(open.back().await.status.is_success());
    assert_eq!(client_of(&server.requests_at("/token").pop().unwrap()), acme);
}
