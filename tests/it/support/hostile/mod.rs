//! An authorization server that does what it is told, fair or foul: the peer for everything that a provider may do wrong.
//!
//! It runs in the test's process on a loopback port, records every request, and plays one scripted [`Reply`] for each. It
//! speaks HTTP/1.1 by hand, since a proper server would not send what broken ones do. Connections are kept alive, so a
//! client that uses one twice is seen doing so.
//!
//! ```ignore
//! let server = HostileServer::start().await;
//! server.push(Reply::tokens("at-1", "rt-1"));           // the next token request
//! server.push_at("/revoke", Reply::status(503));        // the next revocation
//! server.always("/userinfo", Reply::json(200, &json!({ "sub": "alice" })));
//! let gate = Gate::default();
//! server.push(Reply::tokens("at-2", "rt-2").held_by(&gate));
//! server.wait_for_requests(1).await;                    // it has arrived, and hangs
//! gate.release();
//! ```

mod reply;
mod wire;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use url::{Url, form_urlencoded};

pub(crate) use reply::{Gate, Reply};

/// How long a request is waited for. A limit for broken code, never waited for in a test that passes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// Decoded.
    pub(crate) query: Vec<(String, String)>,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    /// A header, by lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body's parameters, form or JSON object by its content type. Panics if one comes twice.
    pub(crate) fn params(&self) -> BTreeMap<String, String> {
        let kind = self.header("content-type").unwrap_or_default();
        if kind.starts_with("application/json") {
            return serde_json::from_slice(&self.body).expect("a JSON object of strings");
        }
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&self.body) {
            let twice = params.insert(name.to_string(), value.to_string());
            assert!(twice.is_none(), "parameter {name} is there twice");
        }
        params
    }

    /// One of the body's parameters.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        self.params().remove(name)
    }
}

/// See the module. Stops when dropped.
pub(crate) struct HostileServer {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    standing: Mutex<HashMap<String, Reply>>,
    requests: watch::Sender<Vec<Recorded>>,
    connections: watch::Sender<usize>,
}

impl State {
    fn next_reply(&self, path: &str) -> Reply {
        let scripted = self.scripts.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front);
        let standing = || self.standing.lock().unwrap().get(path).cloned();
        scripted.or_else(standing).unwrap_or_else(|| Reply::json(500, &serde_json::json!("nothing scripted")))
    }
}

impl HostileServer {
    /// Starts one on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            scripts: Mutex::default(),
            standing: Mutex::default(),
            requests: watch::Sender::default(),
            connections: watch::Sender::default(),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            // Connections end with the server.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.send_modify(|n| *n += 1);
                serving.spawn(wire::serve(stream, Arc::clone(&shared)));
            }
        })
        .abort_handle();
        Self { address, state, accepting }
    }

    /// `http://127.0.0.1:{port}`, without a slash at the end; its issuer, too.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of a path that begins with a slash.
    pub(crate) fn url(&self, path: &str) -> Url {
        format!("{}{path}", self.base()).parse().unwrap()
    }

    /// `/token`.
    pub(crate) fn token_url(&self) -> Url {
        self.url("/token")
    }

    /// Scripts the answer to the next token request that has none.
    pub(crate) fn push(&self, reply: Reply) {
        self.push_at("/token", reply);
    }

    /// Scripts the answer to the next request for a path that has none.
    pub(crate) fn push_at(&self, path: &str, reply: Reply) {
        self.state.scripts.lock().unwrap().entry(path.to_owned()).or_default().push_back(reply);
    }

    /// Forgets the next scripted answer for a path. False: there is none.
    pub(crate) fn take_scripted(&self, path: &str) -> bool {
        self.state.scripts.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front).is_some()
    }

    /// The answer to every request for a path when nothing is scripted. Without it that is an error 500.
    pub(crate) fn always(&self, path: &str, reply: Reply) {
        self.state.standing.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// All requests so far, in the order of their arrival. A request is recorded before it is answered.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.state.requests.borrow().clone()
    }

    /// The requests for a path so far.
    pub(crate) fn requests_at(&self, path: &str) -> Vec<Recorded> {
        self.state.requests.borrow().iter().filter(|r| r.path == path).cloned().collect()
    }

    /// The only request so far. Panics if there were more or none.
    pub(crate) fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "exactly one request: {requests:#?}");
        requests.remove(0)
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }

    /// Waits until so many requests have arrived in all.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.state.requests.subscribe();
        let arrived = tokio::time::timeout(PATIENCE, requests.wait_for(|all| all.len() >= count)).await;
        assert!(arrived.is_ok(), "waited for {count} requests, got {}", self.requests().len());
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
