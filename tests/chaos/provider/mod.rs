//! The authorization servers of a run, in the harness's own process: a strict one, one with a grace period and one that
//! does not rotate, on one port. They keep the book that the checks read, and misbehave as the seed says.

mod book;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock;
use crate::dice::Dice;
use crate::history::{CredentialNo, ProviderFault};
pub(crate) use book::{Book, Mood, Pair, token_names};
use wire::{Reply, Request};

/// How often an access token has to be renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// The shortest and the longest life of an access token.
    pub(crate) life: (Duration, Duration),
    /// Of the provider with a grace period.
    pub(crate) grace: Duration,
    /// The brokers' deadline for a request.
    pub(crate) deadline: Duration,
    /// How long a refresh takes that meets no fault.
    pub(crate) latency: Duration,
}

/// The ids of the providers, as the brokers know them.
pub(crate) const PROVIDERS: [&str; 3] = ["strict", "grace", "steady"];

/// The servers. They end with this value.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    pub(crate) book: Arc<Book>,
    settings: Settings,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    pub(crate) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::new(Book::new(settings));
        let shared = Arc::clone(&book);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let book = Arc::clone(&shared);
                tokio::spawn(wire::serve(stream, move |request| answer(Arc::clone(&book), request)));
            }
        });
        Self { address, book, settings, task }
    }

    /// The definition of one of [`PROVIDERS`] for the brokers.
    pub(crate) fn definition(&self, id: &str) -> String {
        let rotation = match id {
            "strict" => "rotation = \"strict\"".to_owned(),
            "grace" => {
                format!("rotation = \"grace\"\ngrace = \"{}s\"", self.settings.grace.as_secs())
            }
            _ => "rotation = \"none\"".to_owned(),
        };
        let base = format!("http://{}/{id}", self.address);
        format!(
            r#"id = "{id}"
display_name = "{id}"
[endpoints]
authorization = "{base}/authorize"
token = "{base}/token"
revocation = "{base}/revoke"
[client]
auth = "basic"
[refresh]
{rotation}
[services.api]
display_name = "API"
scopes = ["api"]
"#
        )
    }
}

async fn answer(book: Arc<Book>, request: Request) -> Reply {
    let mut path = request.path.trim_start_matches('/').split('/');
    let (provider, endpoint) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
    let Some(provider) = PROVIDERS.into_iter().find(|id| *id == provider) else {
        return Reply::json(404, &json!({}));
    };
    match endpoint {
        "authorize" => authorize(&book, provider, &request),
        "token" => match (request.form("code"), request.form("refresh_token")) {
            (Some(code), _) => exchanged(book.exchange(provider, &code)),
            (None, Some(token)) => refresh(&book, provider, &token).await,
            (None, None) => invalid_grant(),
        },
        "revoke" => {
            book.revoke(&request.form("token").unwrap_or_default());
            Reply::json(200, &json!({}))
        }
        _ => Reply::json(404, &json!({})),
    }
}

/// The user says yes at once. Who it is stands in the login hint.
fn authorize(book: &Book, provider: &str, request: &Request) -> Reply {
    let credential = request.query("login_hint").and_then(|hint| hint.parse::<CredentialNo>().ok());
    let back = request.query("redirect_uri").and_then(|uri| uri.parse::<url::Url>().ok());
    let (Some(credential), Some(mut back)) = (credential, back) else { return Reply::json(400, &json!({})) };
    back.query_pairs_mut()
        .append_pair("state", &request.query("state").unwrap_or_default())
        .append_pair("code", &book.code(provider, credential));
    Reply::redirect(back.as_str())
}

async fn refresh(book: &Book, provider: &str, token: &str) -> Reply {
    let began = clock::now();
    let Some(visit) = book.arrived(provider, token, began) else { return invalid_grant() };
    let fault = book.fault(&visit);
    let takes = match fault {
        Some((ProviderFault::Slow | ProviderFault::Hang, wait)) => wait,
        Some(_) => Duration::ZERO,
        None => book.latency(),
    };
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let fault = fault.map(|(fault, _)| fault);
    let lost = match fault {
        Some(ProviderFault::LostRequest) => Some(Reply::Close),
        Some(ProviderFault::Reset) => Some(Reply::Reset),
        Some(ProviderFault::ServerError) => Some(Reply::json(500, &json!({"error": "server_error"}))),
        Some(ProviderFault::RateLimited) => Some(Reply::TooMany),
        _ => None,
    };
    if let Some(reply) = lost {
        book.left(&visit, fault, None);
        return reply;
    }
    let (outcome, pair) = book.rotate(&visit);
    book.left(&visit, fault, Some(outcome));
    match fault {
        Some(ProviderFault::LostAnswer) => Reply::Close,
        Some(ProviderFault::ResetAfter) => Reply::Reset,
        _ => exchanged(pair),
    }
}

fn exchanged(pair: Option<Pair>) -> Reply {
    let Some(Pair { access, refresh, expires_in }) = pair else { return invalid_grant() };
    let mut body =
        json!({"access_token": access, "token_type": "Bearer", "expires_in": expires_in.as_secs()});
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.into();
    }
    Reply::json(200, &body)
}

fn invalid_grant() -> Reply {
    Reply::json(400, &json!({"error": "invalid_grant"}))
}

/// How long a slow answer takes, and how long one that is too late. Longer is not allowed: a request must have ended when
/// another may be made, at the earliest when the owner of the first is known to be dead.
fn waits(dice: &mut Dice, deadline: Duration, fault: ProviderFault) -> Duration {
    match fault {
        ProviderFault::Hang => {
            dice.between(deadline + Duration::from_millis(50), deadline + Duration::from_millis(400))
        }
        _ => dice.between(Duration::from_millis(50), deadline / 2),
    }
}
