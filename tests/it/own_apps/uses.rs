//! Whose app is used for what.

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use tonic::Code;

use super::{
    app, begin, builder, client_of, connect, create, get, last_client, missing, pair, reason, refresh, start,
    token,
};
use crate::support::broker::{TestBroker, answered};
use crate::support::consent::key_at;
use crate::support::hostile::{HostileServer, Reply};

#[tokio::test]
async fn each_tenants_app_is_used_for_that_tenant_alone() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut redirects = Vec::new();
    for tenant in ["acme", "globex"] {
        let made = create(&broker, tenant, app(&format!("{tenant}-app"), &format!("{tenant}-secret"))).await;
        redirects.push(made.redirect_uri);
    }
    redirects.push(format!("{}/oauth/callback/hostile", broker.public_url()));
    assert!(redirects[0] != redirects[1] && redirects[0].starts_with(&redirects[2]), "{redirects:?}");
    server.always("/revoke", Reply::status(200));
    let clients = [
        ("acme", pair("acme-app", "acme-secret")),
        ("globex", pair("globex-app", "globex-secret")),
        ("initech", pair("client-1", "client-secret-1")),
    ];
    for ((tenant, client), redirect) in clients.iter().zip(&redirects) {
        let mut agent = broker.client(&format!("{tenant}-agent")).await;
        let listed = answered(agent.list_providers(pb::ListProvidersRequest {}).await).providers;
        let listed: Vec<_> = listed.iter().map(|p| (p.id.as_str(), p.redirect_uri.as_str())).collect();
        assert_eq!(listed, [("hostile", redirect.as_str())]);
        let begun = connect(&broker, &server, tenant, "alice", &format!("{tenant}-1")).await;
        assert_eq!(
            (begun.sent("client_id"), begun.sent("redirect_uri")),
            (client.0.as_str(), redirect.as_str())
        );
        let exchange = server.requests_at("/token").pop().unwrap();
        assert_eq!(
            (client_of(&exchange), exchange.param("redirect_uri").as_ref()),
            (client.clone(), Some(redirect))
        );
        refresh(&broker, &server, tenant, "alice", &format!("{tenant}-2")).await;
        let presented = server.requests_at("/token").pop().unwrap();
        assert_eq!(client_of(&presented), *client);
        assert_eq!(presented.param("refresh_token").unwrap(), format!("rt-{tenant}-1"));
    }
    // Each has its own token, and each revocation comes from its own app.
    for (tenant, client) in clients {
        assert_eq!(token(&broker, tenant, "alice").await.access_token, format!("at-{tenant}-2"));
        let revoke = pb::RevokeRequest { key: Some(key_at("hostile", "alice", "files")), force: false };
        let told = answered(broker.client(&format!("{tenant}-agent")).await.revoke(revoke).await);
        assert!(told.provider_revocation() == pb::ProviderRevocation::Revoked);
        let revocation = server.requests_at("/revoke").pop().unwrap();
        assert_eq!(client_of(&revocation), client);
        assert_eq!(revocation.param("token").unwrap(), format!("rt-{tenant}-2"));
    }
}

#[tokio::test]
async fn a_mix_up_of_tenants_apps_reaches_no_token_endpoint() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mine = create(&broker, "acme", app("acme-app", "acme-secret")).await;
    let others = create(&broker, "globex", app("globex-app", "globex-secret")).await;
    let second =
        pb::CreateProviderConfigurationRequest { provider: "second".to_owned(), ..app("second", "secret") };
    let second = create(&broker, "acme", second).await;
    let operators = format!("{}/oauth/callback/hostile", broker.public_url());
    let never = format!("{operators}/0190f0a8-0000-4000-8000-00000000002a");
    let mut own = begin(&broker, "acme", "alice").await;
    let mut of_operator = begin(&broker, "initech", "alice").await;
    for address in
        [&others.redirect_uri, &second.redirect_uri, &operators, &never, &format!("{operators}/nothing")]
    {
        let page = own.back_at(address).await;
        assert_eq!(page.status.as_u16(), 400, "{address}");
    }
    for address in [&mine.redirect_uri, &others.redirect_uri, &never] {
        let page = of_operator.back_at(address).await;
        assert_eq!(page.status.as_u16(), 400, "{address}");
    }
    assert!(server.requests().is_empty(), "no endpoint saw a code");
    // Nothing is spent: at its own address each consent comes to its end.
    for (begun, client) in [(&mut own, "acme-app"), (&mut of_operator, "client-1")] {
        server.push(Reply::tokens("at", "rt"));
        assert!(begun.back().await.status.is_success());
        assert_eq!(last_client(&server).0, client);
    }
}

#[tokio::test]
async fn what_an_app_obtained_goes_to_that_app_alone() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    connect(&broker, &server, "acme", "alice", "operators-1").await;
    let mut open = begin(&broker, "acme", "bob").await;
    create(&broker, "acme", app("acme-app", "acme-secret")).await;
    // It was obtained by the operator's app, and stays with it; so does a consent that was begun there.
    refresh(&broker, &server, "acme", "alice", "operators-2").await;
    assert_eq!(last_client(&server), pair("client-1", "client-secret-1"));
    server.push(Reply::tokens("at-bob", "rt-bob"));
    assert!(open.back().await.status.is_success());
    assert_eq!(last_client(&server), pair("client-1", "client-secret-1"));
    // A new consent is by the tenant's own, and from then on all else.
    let begun = connect(&broker, &server, "acme", "alice", "own-1").await;
    assert_eq!(begun.sent("client_id"), "acme-app");
    assert_eq!(last_client(&server), pair("acme-app", "acme-secret"));
    refresh(&broker, &server, "acme", "alice", "own-2").await;
    assert_eq!(last_client(&server), pair("acme-app", "acme-secret"));
    refresh(&broker, &server, "acme", "bob", "bob-2").await;
    assert_eq!(last_client(&server), pair("client-1", "client-secret-1"));
}

#[tokio::test]
async fn the_background_refreshes_with_the_tenants_own_app() {
    let server = HostileServer::start().await;
    let broker =
        builder(&server).set("oauth.refresh_ahead", "1h").start_in_process(Overrides::default()).await;
    create(&broker, "acme", app("acme-app", "acme-secret")).await;
    for tenant in ["acme", "initech"] {
        let mut begun = begin(&broker, tenant, "alice").await;
        let live = |n: u32, seconds: u32| {
            Reply::json(
                200,
                &serde_json::json!({ "access_token": format!("at-{tenant}-{n}"), "refresh_token": format!("rt-{tenant}-{n}"),
                    "token_type": "Bearer", "expires_in": seconds }),
            )
        };
        server.push(live(1, 1));
        server.push(live(2, 90_000));
        let before = server.requests().len();
        assert!(begun.back().await.status.is_success());
        server.wait_for_requests(before + 2).await;
        let presented = server.requests_at("/token").pop().unwrap();
        assert_eq!(presented.param("refresh_token").unwrap(), format!("rt-{tenant}-1"));
        let id = if tenant == "acme" { "acme-app" } else { "client-1" };
        assert_eq!(client_of(&presented).0, id);
    }
}

/// Only readers refresh.
async fn start_lazy(server: &HostileServer) -> TestBroker {
    builder(server).set("oauth.refresh_ahead", "0s").start_in_process(Overrides::default()).await
}

/// Tokens of these tenants that have expired already.
async fn expired_at(server: &HostileServer, broker: &TestBroker, tenants: &[&str]) {
    for tenant in tenants {
        let mut begun = begin(broker, tenant, "alice").await;
        let dying = serde_json::json!({ "access_token": "at", "refresh_token": format!("rt-{tenant}"),
            "token_type": "Bearer", "expires_in": 0 });
        server.push(Reply::json(200, &dying));
        assert!(begun.back().await.status.is_success());
    }
}

fn invalid_client() -> Reply {
    Reply::json(401, &serde_json::json!({ "error": "invalid_client" }))
}

#[tokio::test]
async fn an_app_that_its_provider_refuses_holds_up_no_other() {
    let server = HostileServer::start().await;
    let broker = start_lazy(&server).await;
    create(&broker, "acme", app("acme-app", "wrong")).await;
    create(&broker, "globex", app("globex-app", "right")).await;
    expired_at(&server, &broker, &["acme", "globex"]).await;
    // The circuit of an app that is refused opens at once.
    server.push(invalid_client());
    let refused = get(&broker, "acme", "alice").await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "CLIENT_REJECTED"));
    server.push(Reply::tokens("at-2", "rt-2"));
    assert_eq!(token(&broker, "globex", "alice").await.access_token, "at-2");
    assert_eq!(last_client(&server), pair("globex-app", "right"));
    assert_eq!(
        missing(&broker, "initech", "alice").await,
        pb::AuthorizationRequiredReason::NotConnected.as_str_name()
    );
}

/// A tenant can make the provider refuse the operator's client, by tokens of another client for example.
#[tokio::test]
async fn a_tenant_to_whom_the_provider_says_no_shuts_out_no_other() {
    let server = HostileServer::start().await;
    let broker = start_lazy(&server).await;
    expired_at(&server, &broker, &["acme", "globex", "initech"]).await;
    let refused = async |tenant: &str| reason(&get(&broker, tenant, "alice").await.err().unwrap());
    server.push(invalid_client());
    assert_eq!(refused("globex").await, "CLIENT_REJECTED");
    let before = server.requests().len();
    assert_eq!(refused("globex").await, "CLIENT_REJECTED");
    assert_eq!(server.requests().len(), before, "that tenant is kept away from the provider");
    server.push(Reply::tokens("at-acme", "rt-acme-2"));
    assert_eq!(token(&broker, "acme", "alice").await.access_token, "at-acme");
    // An answer came between: what the next one is told is that one's alone, too.
    server.push(invalid_client());
    assert_eq!(refused("initech").await, "CLIENT_REJECTED");
    refresh(&broker, &server, "acme", "alice", "acme-3").await;
}

/// Whoever watches the metrics sees it, also if only one tenant asks.
#[tokio::test]
async fn a_client_that_is_refused_shows_in_the_metrics_until_somebody_is_answered() {
    let server = HostileServer::start().await;
    // In a process of its own, which has metrics of its own.
    let broker = builder(&server).set("oauth.refresh_ahead", "0s").spawn_process().await;
    let shown = "token_broker_circuit_open{provider=\"hostile\"}";
    expired_at(&server, &broker, &["acme", "globex"]).await;
    server.push(invalid_client());
    let refused = get(&broker, "globex", "alice").await.err().unwrap();
    assert_eq!(reason(&refused), "CLIENT_REJECTED");
    assert_eq!(broker.metric(shown).await, "1");
    server.push(Reply::tokens("at-acme", "rt-acme-2"));
    assert_eq!(token(&broker, "acme", "alice").await.access_token, "at-acme");
    assert_eq!(broker.metric(shown).await, "0");
}

#[tokio::test]
async fn what_the_provider_says_to_two_tenants_is_everybodys() {
    let server = HostileServer::start().await;
    let broker = start_lazy(&server).await;
    expired_at(&server, &broker, &["acme", "globex", "initech"]).await;
    let refused = async |tenant: &str| reason(&get(&broker, tenant, "alice").await.err().unwrap());
    for tenant in ["acme", "globex"] {
        server.push(invalid_client());
        assert_eq!(refused(tenant).await, "CLIENT_REJECTED");
    }
    let before = server.requests().len();
    assert_eq!(refused("initech").await, "CLIENT_REJECTED");
    assert_eq!(server.requests().len(), before, "the provider is left alone");
}
