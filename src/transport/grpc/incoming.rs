//! Connections of callers: bounded in number, in the time until they begin to speak, and in age.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use crate::transport::accept::{Acceptor, Slot};

/// What the listener puts up with.
#[derive(Debug, Clone, Copy)]
pub struct IncomingLimits {
    /// How many connections at a time.
    pub connections: usize,
    /// How long a connection may take to begin to speak.
    pub first_bytes: Duration,
    /// After this a connection is cut off. Longer than [`super::GrpcOptions::max_connection_age`], after which it is asked
    /// to close.
    pub age: Duration,
}

/// As many as the preface of HTTP/2 (RFC 9113 section 3.4) has; a TLS handshake begins with more.
const PREFACE_BYTES: usize = 24;

/// Connections for the gRPC server.
pub fn incoming(listener: TcpListener, limits: IncomingLimits) -> impl Stream<Item = io::Result<Connection>> {
    let acceptor = Acceptor::new("grpc", listener, limits.connections);
    futures_util::stream::unfold(acceptor, move |acceptor| async move {
        let (stream, slot) = acceptor.accept().await;
        Some((Ok(Connection::new(stream, slot, limits)), acceptor))
    })
}

/// What a call can know of its connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    /// When it was accepted.
    pub opened_at: Instant,
    /// The other end.
    pub peer: Option<IpAddr>,
}

/// A connection that ends by itself.
pub struct Connection {
    info: ConnectionInfo,
    stream: TcpStream,
    _slot: Slot,
    /// Bytes of the preface that have not come yet.
    silent: usize,
    ends_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, slot: Slot, limits: IncomingLimits) -> Self {
        let now = Instant::now();
        let ends_at = now + limits.age;
        let timer = Box::pin(tokio::time::sleep_until(ends_at.min(now + limits.first_bytes)));
        Self {
            info: ConnectionInfo {
                opened_at: now,
                peer: stream.peer_addr().ok().map(|address| address.ip()),
            },
            stream,
            _slot: slot,
            silent: PREFACE_BYTES,
            ends_at,
            timer,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if this.silent > 0 && read.is_ready() {
            this.silent = this.silent.saturating_sub(buffer.filled().len() - before);
            if this.silent == 0 {
                this.timer.as_mut().reset(this.ends_at);
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info
    }
}
