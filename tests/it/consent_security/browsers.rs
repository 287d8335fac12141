//! A person's steps in a real browser (headless Chromium), for all three bindings, refusals included. Each step also shows
//! that the browser found nothing to complain about: no blocked form, no blocked style.

use std::sync::{Arc, Mutex};

use axum::extract::RawQuery;
use axum::routing::get;
use token_broker::r#gen::v1::{
    BeginOAuthRequest, CompleteOAuthRequest, ConsentBinding, ConsentOptions, FlowStatus, GetFlowRequest,
    StartedFlow,
};
use tokio::net::TcpListener;

use crate::support::broker::{BrokerBuilder, TestBroker, answered};
use crate::support::chromium::{Chromium, Seen};
use crate::support::oidc::{self, OidcOptions, OidcServer, subject};

/// The application that users come back to. Remembers what browsers bring.
struct App {
    url: String,
    brought: Arc<Mutex<Vec<String>>>,
    _serving: tokio::task::JoinSet<()>,
}

impl App {
    async fn start() -> Self {
        let brought: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&brought);
        let page = get(move |RawQuery(query): RawQuery| {
            seen.lock().unwrap().push(query.unwrap_or_default());
            async {
                axum::response::Html(
                    "<!doctype html><html data-page=\"app\"><title>The application</title></html>",
                )
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/chat", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        let router = axum::Router::new().route("/chat", page);
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, brought, _serving: serving }
    }
}

struct Stage {
    oidc: OidcServer,
    broker: TestBroker,
    chromium: Chromium,
    app: App,
}

impl Stage {
    async fn set_up() -> Self {
        let mut options = OidcOptions::default();
        options.redirect_uris.push("http://127.0.0.1/login/callback".to_owned());
        let oidc = OidcServer::start(options).await;
        let app = App::start().await;
        let broker = BrokerBuilder::new()
            .oidc(&oidc)
            .set("consent.bindings", vec!["app", "login", "confirm"])
            .set("login.issuer", oidc.issuer())
            .set("login.client_id", oidc::CLIENT_ID)
            .set("login.client_secret_env", "LOGIN_SECRET")
            .set("login.name", "corp")
            .env("LOGIN_SECRET", oidc::CLIENT_SECRET)
            .set("public.return_urls", vec![app.url.clone()])
            .spawn_process()
            .await;
        Self { oidc, broker, chromium: Chromium::start(), app }
    }

    async fn begin(&self, user: &str, binding: ConsentBinding) -> StartedFlow {
        let return_url = self.app.url.clone();
        let request = BeginOAuthRequest {
            provider: "oidc".to_owned(),
            user_id: user.to_owned(),
            services: vec!["mail".to_owned(), "calendar".to_owned()],
            options: Some(ConsentOptions {
                return_url,
                binding: binding.into(),
                ..ConsentOptions::default()
            }),
            ..BeginOAuthRequest::default()
        };
        answered(self.broker.client("agent").await.begin_o_auth(request).await).flow.unwrap()
    }

    async fn status(&self, flow: &StartedFlow) -> (FlowStatus, String) {
        let request = GetFlowRequest { flow_id: flow.flow_id.clone() };
        let flow = answered(self.broker.client("agent").await.get_flow(request).await).flow.unwrap();
        (flow.status(), flow.failure)
    }

    /// At the OpenID provider: signs in, if it asks, and allows.
    async fn allows(&self, person: &str, user: &str, mut seen: Seen) -> Seen {
        if seen.title == "Sign in" {
            seen = self.signs_in(person, user).await;
        }
        assert_eq!(seen.title, "Allow access?", "{seen:?}");
        self.chromium.click(person, "button[value=allow]").await
    }

    async fn signs_in(&self, person: &str, user: &str) -> Seen {
        self.chromium.fill(person, "input[name=user]", user).await;
        self.chromium.click(person, "button[type=submit]").await
    }

    /// How many codes the provider has exchanged for this broker, sign-ins aside.
    async fn exchanged(&self) -> usize {
        self.oidc
            .token_requests()
            .await
            .iter()
            .filter(|request| request.scope.as_deref().is_some_and(|scope| scope.contains("mail.read")))
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_confirms_and_connects() {
    let stage = Stage::set_up().await;
    let flow = stage.begin("alice", ConsentBinding::Confirm).await;
    let page = stage.chromium.open("alice", &flow.authorization_url).await;
    assert_eq!(page.page, "confirm", "{page:?}");
    for part in ["alice", "agent", "Test Provider", "Mail", "Calendar", "close this page"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let at_provider = stage.chromium.click("alice", "button").await;
    let page = stage.allows("alice", "alice", at_provider).await;
    assert_eq!(page.page, "connected", "{page:?}");
    assert!(!page.url.contains(&flow.authorization_url));
    assert!(stage.status(&flow).await.0 == FlowStatus::Completed);
    let page = stage.chromium.click("alice", "a.button").await;
    assert!(page.page == "app" && page.url == stage.app.url, "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_confirms_in_one_browser_does_not_connect_in_another() {
    let stage = Stage::set_up().await;
    let flow = stage.begin("mallory", ConsentBinding::Confirm).await;
    stage.chromium.open("mallory", &flow.authorization_url).await;
    // Mallory goes on as far as the provider, and sends the address there to Bob, who is signed in and says yes.
    let at_provider = stage.chromium.click("mallory", "button").await;
    assert_eq!(at_provider.title, "Sign in", "{at_provider:?}");
    let link = stage.chromium.redirected("mallory", "/auth?").await;
    let at_provider = stage.chromium.open("bob", &link).await;
    let page = stage.allows("bob", "bob", at_provider).await;
    assert_eq!(page.page, "other-browser", "{page:?}");
    assert!(stage.status(&flow).await == (FlowStatus::Failed, "BROWSER_MISMATCH".to_owned()));
    assert_eq!(stage.exchanged().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_comes_back_to_the_application_which_completes() {
    let stage = Stage::set_up().await;
    let flow = stage.begin("alice", ConsentBinding::App).await;
    let at_provider = stage.chromium.open("alice", &flow.authorization_url).await;
    let page = stage.allows("alice", "alice", at_provider).await;
    assert_eq!(page.page, "app", "{page:?}");
    assert_eq!(stage.exchanged().await, 0, "nothing before the proof");
    let brought = stage.app.brought.lock().unwrap().pop().unwrap();
    let value = |name: &str| {
        url::form_urlencoded::parse(brought.as_bytes()).find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    assert_eq!(value("flow_id"), flow.flow_id);
    let request = CompleteOAuthRequest {
        flow_id: flow.flow_id.clone(),
        flow_secret: flow.flow_secret.clone(),
        completion_code: value("completion_code"),
        user_id: "alice".to_owned(),
    };
    let answer = answered(stage.broker.client("agent").await.complete_o_auth(request).await);
    assert!(answer.flow.unwrap().status() == FlowStatus::Completed);
    assert_eq!(answer.credential.unwrap().provider_account.unwrap().label, "alice@example.test");
    assert_eq!(stage.exchanged().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_says_no_and_is_shown_the_way_back() {
    let stage = Stage::set_up().await;
    for binding in [ConsentBinding::App, ConsentBinding::Confirm] {
        let flow = stage.begin("carol", binding).await;
        let mut page = stage.chromium.open("carol", &flow.authorization_url).await;
        if page.page == "confirm" {
            page = stage.chromium.click("carol", "button").await;
        }
        if page.title == "Sign in" {
            stage.signs_in("carol", "carol").await;
        }
        let page = stage.chromium.click("carol", "button[value=deny]").await;
        assert_eq!(page.page, "denied", "{page:?}");
        assert!(stage.status(&flow).await.0 == FlowStatus::Denied);
        let page = stage.chromium.click("carol", "a.button").await;
        assert_eq!(page.page, "app", "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_and_connects_and_somebody_else_does_not() {
    let stage = Stage::set_up().await;
    let alice = format!("corp|{}", subject("alice"));
    // Bob opens Alice's link and signs in as Bob.
    let flow = stage.begin(&alice, ConsentBinding::Login).await;
    let page = stage.chromium.open("bob", &flow.authorization_url).await;
    assert_eq!(page.page, "sign-in", "{page:?}");
    stage.chromium.click("bob", "button").await;
    let mut page = stage.signs_in("bob", "bob").await;
    if page.title == "Allow access?" {
        page = stage.chromium.click("bob", "button[value=allow]").await;
    }
    assert_eq!(page.page, "other-user", "{page:?}");
    assert!(stage.status(&flow).await == (FlowStatus::Failed, "USER_MISMATCH".to_owned()));
    assert_eq!(stage.exchanged().await, 0);
    // Alice opens a link of her own: signs in, goes on to the provider, allows.
    let flow = stage.begin(&alice, ConsentBinding::Login).await;
    stage.chromium.open("alice", &flow.authorization_url).await;
    stage.chromium.click("alice", "button").await;
    let mut page = stage.signs_in("alice", "alice").await;
    while page.title == "Allow access?" {
        page = stage.chromium.click("alice", "button[value=allow]").await;
    }
    assert_eq!(page.page, "connected", "{page:?}");
    assert!(stage.status(&flow).await.0 == FlowStatus::Completed);
    assert_eq!(stage.exchanged().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_without_cookies_is_told_what_to_do() {
    let stage = Stage::set_up().await;
    let flow = stage.begin("alice", ConsentBinding::Confirm).await;
    stage.chromium.open("alice", &flow.authorization_url).await;
    stage.chromium.forget_cookies("alice").await;
    let page = stage.chromium.click("alice", "button").await;
    assert_eq!(page.page, "no-cookie", "{page:?}");
    assert!(page.text.contains("allow cookies"), "{}", page.text);
    // Opened once more, the link still works.
    assert_eq!(stage.chromium.open("alice", &flow.authorization_url).await.page, "confirm");
}
