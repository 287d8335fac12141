//! Plays the provider that a definition describes, on loopback, and is as strict as a server can be: whatever the
//! definition does not ask for is refused, and every refusal is noted down with its reason.

mod answers;
mod request;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use token_broker::domain::flow::RecordedEndpoints;
use token_broker::domain::provider::{EndpointSource, Provider, Revocation};
use tokio::task::JoinHandle;
use url::Url;

pub(crate) use answers::{ACCOUNT, LIFETIME_SECONDS, value_at};

/// Plays one provider until it is dropped.
pub(crate) struct Player {
    scene: Arc<Scene>,
    server: JoinHandle<()>,
}

impl Drop for Player {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the next request meets instead of an honest answer.
#[derive(Debug, Clone)]
pub(crate) enum Mishap {
    /// This error word with this status.
    Error {
        /// Ours or the provider's own.
        word: String,
        /// Success or not.
        status: u16,
    },
    /// This status, an empty body, and perhaps `Retry-After`.
    Status(u16, Option<u32>),
}

/// What the handlers share.
struct Scene {
    /// With its endpoints here.
    provider: Provider,
    endpoints: RecordedEndpoints,
    /// What ID tokens are dated with, in seconds.
    now: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counter: u32,
    codes: BTreeMap<String, Code>,
    grants: Vec<Grant>,
    mishap: Option<Mishap>,
    complaints: Vec<String>,
    revocations: u32,
}

/// A consent that has not been exchanged yet.
struct Code {
    redirect_uri: String,
    challenge: Option<String>,
    nonce: Option<String>,
    scopes: Vec<String>,
}

/// A consent that has.
#[derive(Default)]
struct Grant {
    alive: bool,
    scopes: Vec<String>,
    /// Those that still work.
    access: Vec<String>,
    refresh: Option<String>,
    spent: Vec<String>,
}

impl Scene {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes down why a request is refused.
    fn complain(&self, what: impl Into<String>) {
        self.state().complaints.push(what.into());
    }
}

impl State {
    fn token(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}-{:03}-of-the-player", self.counter)
    }

    fn grant_of(&mut self, token: &str) -> Option<&mut Grant> {
        self.grants.iter_mut().find(|grant| {
            grant.access.iter().any(|access| access == token) || grant.refresh.as_deref() == Some(token)
        })
    }
}

impl Player {
    /// Starts to play this provider. `now`, in seconds, dates ID tokens.
    pub(crate) async fn start(provider: &Provider, now: i64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let provider = moved_to(provider, &base);
        let endpoints = match &provider.endpoints {
            EndpointSource::Literal(endpoints) => endpoints.clone(),
            EndpointSource::Discovered { issuer } => discovered_endpoints(issuer),
        };
        let state = Mutex::new(State::default());
        let scene = Arc::new(Scene { provider, endpoints, now, state });
        scene.assert_paths_differ();
        let app = routes::router(Arc::clone(&scene));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { scene, server }
    }

    /// The provider, to be found here.
    pub(crate) fn provider(&self) -> Provider {
        self.scene.provider.clone()
    }

    /// What the next request meets.
    pub(crate) fn next(&self, mishap: Mishap) {
        self.scene.state().mishap = Some(mishap);
    }

    /// Why requests were refused since the last time.
    pub(crate) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.scene.state().complaints)
    }

    /// How many grants have not been ended.
    pub(crate) fn alive(&self) -> usize {
        self.scene.state().grants.iter().filter(|grant| grant.alive).count()
    }

    /// How many revocations were accepted.
    pub(crate) fn revocations(&self) -> u32 {
        self.scene.state().revocations
    }

    /// A user follows this link and says yes: the code. `None`: the link is not as the definition wants it.
    pub(crate) fn consent(&self, link: &Url) -> Option<String> {
        request::consent(&self.scene, link)
    }
}

impl Scene {
    /// The handlers go by path, so each endpoint needs its own.
    fn assert_paths_differ(&self) {
        let endpoints = &self.endpoints;
        let mut paths = vec![endpoints.authorization.path(), endpoints.token.path()];
        paths.extend(endpoints.revocation.as_ref().map(Url::path));
        paths.extend(endpoints.userinfo.as_ref().map(Url::path));
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count, "{}: endpoints share a path: {paths:?}", self.provider.id);
    }
}

/// The same URL on this server.
fn moved(url: &Url, base: &Url) -> Url {
    let mut here = base.clone();
    here.set_path(url.path());
    here.set_query(url.query());
    here
}

fn moved_to(provider: &Provider, base: &Url) -> Provider {
    let mut provider = provider.clone();
    provider.endpoints = match provider.endpoints {
        EndpointSource::Literal(endpoints) => EndpointSource::Literal(RecordedEndpoints {
            authorization: moved(&endpoints.authorization, base),
            token: moved(&endpoints.token, base),
            revocation: endpoints.revocation.map(|url| moved(&url, base)),
            userinfo: endpoints.userinfo.map(|url| moved(&url, base)),
            ..endpoints
        }),
        EndpointSource::Discovered { .. } => {
            EndpointSource::Discovered { issuer: base.as_str().trim_end_matches('/').to_owned() }
        }
    };
    if let Some(userinfo) = &mut provider.identity.userinfo {
        userinfo.url = userinfo.url.take().map(|url| moved(&url, base));
    }
    if let Revocation::Call(call) = &mut provider.revocation {
        // Not parsed as a whole: that would encode the braces of `{client_id}`.
        let path = call.url.splitn(4, '/').nth(3).unwrap_or_default();
        call.url = format!("{base}{path}");
    }
    provider
}

/// What a discovered provider's metadata says.
fn discovered_endpoints(issuer: &str) -> RecordedEndpoints {
    let url = |path: &str| format!("{issuer}{path}").parse().unwrap();
    RecordedEndpoints {
        issuer: Some(issuer.to_owned()),
        iss_required: false,
        authorization: url("/authorize"),
        token: url("/token"),
        revocation: Some(url("/revoke")),
        userinfo: Some(url("/userinfo")),
    }
}
