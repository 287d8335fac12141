//! Connections of callers: bounded in number, in the time until they begin to speak, and in age; by TLS if there is any.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::application::limits::Limits;
use crate::domain::spiffe::SpiffeId;
use crate::transport::accept::{Acceptor, Slot};
use crate::transport::proxies::Proxies;

/// What the listener puts up with.
#[derive(Debug, Clone, Copy)]
pub struct IncomingLimits {
    /// How many connections at a time.
    pub connections: usize,
    /// How long a connection may take to begin to speak; a TLS handshake may take as long before.
    pub first_bytes: Duration,
    /// After this a connection is cut off. Longer than [`super::GrpcOptions::max_connection_age`], after which it is asked
    /// to close.
    pub age: Duration,
}

/// Reads a certificate.
pub type ReadPeer = dyn Fn(&CertificateDer<'_>) -> Option<(SpiffeId, Duration)> + Send + Sync;

/// How connections speak TLS.
#[derive(Clone)]
pub struct IncomingTls {
    /// The settings for the next handshake: they change when files do.
    pub config: Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>,
    /// Whom a certificate names that the handshake has verified, and for how long from now.
    pub peer: Arc<ReadPeer>,
    /// How many handshakes of an address may fail: what it costs to refuse a certificate.
    pub limits: Arc<Limits>,
    /// Behind one of these, if it passes TLS through, is everybody: their handshakes are not counted, since one client's bad
    /// certificate must not keep all others from coming in.
    pub proxies: Arc<Proxies>,
}

/// As many as the preface of HTTP/2 (RFC 9113 section 3.4) has.
const PREFACE_BYTES: usize = 24;

/// Connections for the gRPC server. Handshakes run beside each other, so that a slow one holds up nobody; each has its place
/// among the connections from the beginning.
pub fn incoming(
    listener: TcpListener,
    limits: IncomingLimits,
    tls: Option<IncomingTls>,
) -> impl Stream<Item = io::Result<Connection>> {
    let state = Incoming {
        acceptor: Acceptor::new("grpc", listener, limits.connections),
        limits,
        tls,
        handshakes: JoinSet::new(),
    };
    futures_util::stream::unfold(state, |mut state| async move { Some((Ok(state.next().await), state)) })
}

struct Incoming {
    acceptor: Acceptor,
    limits: IncomingLimits,
    tls: Option<IncomingTls>,
    handshakes: JoinSet<io::Result<Connection>>,
}

impl Incoming {
    async fn next(&mut self) -> Connection {
        loop {
            let (stream, slot) = tokio::select! {
                accepted = self.acceptor.accept() => accepted,
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(connection)) => return connection,
                    // Whoever does not manage a handshake is none of the server's business.
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a TLS handshake failed");
                        continue;
                    }
                    Err(_panicked) => continue,
                },
            };
            let (limits, opened_at) = (self.limits, Instant::now());
            let address = stream.peer_addr().ok().map(|address| address.ip());
            let Some(tls) = self.tls.clone() else {
                return Connection::new(
                    Wire::Plain(stream),
                    slot,
                    limits,
                    ConnectionInfo { opened_at, address, peer: None },
                );
            };
            let counts = address.is_none_or(|address| !tls.proxies.trust(address));
            if counts && tls.limits.may_shake_hands(address).is_err() {
                continue;
            }
            self.handshakes.spawn(async move {
                let handshake = TlsAcceptor::from((tls.config)()).accept(stream);
                let shaken = tokio::time::timeout(limits.first_bytes, handshake).await?;
                let stream = shaken.inspect_err(|error| {
                    if counts && is_of_tls(error) {
                        tls.limits.handshake_failed(address);
                    }
                })?;
                let peer = peer(&stream, &tls);
                let info = ConnectionInfo { opened_at, address, peer };
                Ok(Connection::new(Wire::Tls(Box::new(stream)), slot, limits, info))
            });
        }
    }
}

/// Whether it was about TLS, such as a certificate that is no good. Probes connect and say nothing, which costs nothing.
fn is_of_tls(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

fn peer(stream: &TlsStream<TcpStream>, tls: &IncomingTls) -> Option<Peer> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (id, valid_for) = (tls.peer)(certificate)?;
    Some(Peer { id, valid_until: Instant::now() + valid_for })
}

/// What a call can know of its connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// When it was accepted.
    pub opened_at: Instant,
    /// The address at its other end.
    pub address: Option<IpAddr>,
    /// Who is at its other end, by a certificate that the handshake has verified.
    pub peer: Option<Peer>,
}

/// The owner of a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub id: SpiffeId,
    /// When the certificate expires: a connection can outlive it.
    pub valid_until: Instant,
}

/// A connection that ends by itself.
pub struct Connection {
    info: ConnectionInfo,
    wire: Wire,
    _slot: Slot,
    /// Bytes of the preface that have not come yet.
    silent: usize,
    ends_at: Instant,
    timer: Pin<Box<Sleep>>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn new(wire: Wire, slot: Slot, limits: IncomingLimits, info: ConnectionInfo) -> Self {
        let ends_at = info.opened_at + limits.age;
        let speaks_by = Instant::now() + limits.first_bytes;
        let timer = Box::pin(tokio::time::sleep_until(ends_at.min(speaks_by)));
        Self { info, wire, _slot: slot, silent: PREFACE_BYTES, ends_at, timer }
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
        let read = match &mut this.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
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
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}
