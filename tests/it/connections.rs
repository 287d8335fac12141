//! Connections are bounded: in number, in the time that a client takes to say what it wants, and in age.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt as _;
use token_broker::app::Overrides;
use token_broker::transport::grpc::{IncomingLimits, incoming};
use token_broker::transport::http::{Limits, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::broker::BrokerBuilder;

/// Longer than any test takes: what has this limit has none.
const NEVER: Duration = Duration::from_secs(600);
/// After this a closed connection would long have been seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing is watched not to happen.
const A_WHILE: Duration = Duration::from_millis(300);

const UNLIMITED: Limits = Limits { connections: 100, head_time: NEVER, age: NEVER, age_grace: NEVER };

struct Pages {
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

async fn pages(limits: Limits) -> Pages {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hang = || async { std::future::pending::<&'static str>().await };
    let router = Router::new().route("/", get(|| async { "hello" })).route("/hang", get(hang));
    let stop = CancellationToken::new();
    tokio::spawn(serve("test", listener, router, limits, stop.clone()));
    Pages { address, _stop: stop.drop_guard() }
}

async fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads the answer to `GET /` and leaves the connection open.
async fn answer(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"hello") {
        assert_ne!(stream.read_buf(&mut text).await.unwrap(), 0, "closed");
    }
}

/// Reads until the server closes; everything that came.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    bytes
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let pages = pages(Limits { head_time: Duration::from_millis(50), ..UNLIMITED }).await;
    let mut silent = connect(pages.address).await;
    let mut half = connect(pages.address).await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow:").await.unwrap();
    let mut idle = connect(pages.address).await;
    ask(&mut idle, "/").await;
    answer(&mut idle).await;
    for stream in [&mut silent, &mut half, &mut idle] {
        closed(stream).await;
    }
}

#[tokio::test]
async fn a_client_that_trickles_is_not_waited_for() {
    let pages = pages(Limits { head_time: Duration::from_millis(200), ..UNLIMITED }).await;
    let (mut read, mut write) = connect(pages.address).await.into_split();
    write.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let trickle = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while write.write_all(b"x: y\r\n").await.is_ok() {
            ticks.tick().await;
        }
    });
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut bytes)).await.expect("the server closes");
    drop(read);
    timeout(PATIENCE, trickle).await.expect("the way is closed").unwrap();
}

#[tokio::test]
async fn an_old_connection_is_closed_whatever_it_does() {
    let short = Duration::from_millis(50);
    let pages = pages(Limits { age: short, age_grace: short, ..UNLIMITED }).await;
    let mut idle = connect(pages.address).await;
    let mut waits = connect(pages.address).await;
    ask(&mut waits, "/hang").await;
    for stream in [&mut idle, &mut waits] {
        closed(stream).await;
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let pages = pages(Limits { connections: 2, ..UNLIMITED }).await;
    let (mut one, mut two) = (connect(pages.address).await, connect(pages.address).await);
    for stream in [&mut one, &mut two] {
        ask(stream, "/").await;
        answer(stream).await;
    }
    let mut three = connect(pages.address).await;
    ask(&mut three, "/").await;
    assert!(timeout(A_WHILE, answer(&mut three)).await.is_err(), "there is no place");
    drop(one);
    timeout(PATIENCE, answer(&mut three)).await.expect("there is a place now");
    // A place is one place.
    ask(&mut two, "/").await;
    answer(&mut two).await;
}

const CALLERS: IncomingLimits = IncomingLimits { connections: 1, first_bytes: NEVER, age: NEVER };

#[tokio::test]
async fn a_caller_that_says_nothing_is_not_waited_for() {
    for (limits, says) in [
        (IncomingLimits { first_bytes: Duration::from_millis(50), ..CALLERS }, &b""[..]),
        (IncomingLimits { first_bytes: Duration::from_millis(50), ..CALLERS }, b"PRI * HTTP/2.0\r\n"),
        (IncomingLimits { age: Duration::from_millis(50), ..CALLERS }, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = connect(listener.local_addr().unwrap()).await;
        caller.write_all(says).await.unwrap();
        let mut incoming = pin!(incoming(listener, limits, None));
        let mut connection = incoming.next().await.unwrap().unwrap();
        let mut bytes = Vec::new();
        let ended = timeout(PATIENCE, connection.read_to_end(&mut bytes)).await.expect("it ends");
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(bytes, says);
    }
}

#[tokio::test]
async fn more_callers_than_allowed_wait_for_a_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _callers = (connect(address).await, connect(address).await);
    let mut incoming = pin!(incoming(listener, CALLERS, None));
    let first = incoming.next().await.unwrap().unwrap();
    assert!(timeout(A_WHILE, incoming.next()).await.is_err(), "there is no place");
    drop(first);
    timeout(PATIENCE, incoming.next()).await.expect("there is a place now");
}

/// The types of the HTTP/2 frames in what a server sent (RFC 9113 section 4.1).
fn frame_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [a, b, c, kind, rest @ ..] = bytes {
        types.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        bytes = rest.get(5 + length..).unwrap_or_default();
    }
    types
}

#[tokio::test]
async fn an_old_callers_connection_is_asked_to_close_before_it_is_cut_off() {
    const GOAWAY: u8 = 7;
    let broker = BrokerBuilder::new()
        .set("grpc.max_connection_age", "1s")
        .set("grpc.max_connection_age_grace", "1s")
        .start_in_process(Overrides::default())
        .await;
    let mut stream = connect(broker.grpc_address().parse().unwrap()).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // It never acknowledges anything, so only the cut ends it.
    let types = frame_types(&closed(&mut stream).await);
    assert!(types.contains(&GOAWAY), "{types:?}");
}
