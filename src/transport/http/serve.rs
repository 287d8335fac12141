//! Connections of browsers and orchestrators: bounded in number, in the time that a request may take to arrive, and in age.
//! Else a handful of clients that send a header a minute, or never read an answer, would lock everybody else out.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::client::Peer;
use crate::transport::accept::{Acceptor, Slot};

/// What a listener puts up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections at a time.
    pub connections: usize,
    /// How long a request's head may take to arrive; an idle connection is closed after this too.
    pub head_time: Duration,
    /// After this a connection is closed as soon as its request is answered.
    pub age: Duration,
    /// And after this besides in any case. Longer than the longest request, which waits for a provider.
    pub age_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_time: Duration::from_secs(10),
            age: Duration::from_secs(60),
            age_grace: Duration::from_secs(120),
        }
    }
}

/// The longest head of a request. A callback's query has up to 8 KiB, cookies and what proxies add come on top.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves until `stop`, then until the connections have ended; each ends when its request is answered. `name` is for the
/// log.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let acceptor = Acceptor::new(name, listener, limits.connections);
    let connections = TaskTracker::new();
    while let Some((stream, slot)) = stop.run_until_cancelled(acceptor.accept()).await {
        connections.spawn(connection(stream, slot, router.clone(), limits, stop.clone()));
    }
    // New connections are refused from here on.
    drop(acceptor);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, _slot: Slot, router: Router, limits: Limits, stop: CancellationToken) {
    let peer = Peer(stream.peer_addr().ok().map(|address| address.ip()));
    let service = router.map_request(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        request
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    // What goes wrong on a connection is the client's business.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stop.cancelled() => {}
        () = sleep(limits.age) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.age_grace, serving).await;
}
