//! TLS in front of a server of a test: it ends the encryption, may ask for the client's certificate, and passes the bytes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A file of `tests/it/support/tls/mutual`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/tls/mutual").join(name)
}

/// Its text.
pub(crate) fn pem(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The client's certificate, as it arrives.
pub(crate) fn certificate(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(file(name)).unwrap().to_vec()
}

/// Stops when dropped.
pub(crate) struct TlsFront {
    address: SocketAddr,
    /// Of each connection whose handshake was completed, the client's certificate.
    peers: watch::Sender<Vec<Option<Vec<u8>>>>,
    accepting: AbortHandle,
}

impl TlsFront {
    /// In front of a port of 127.0.0.1. With `mutual`, only clients with a certificate of the test's authority come in.
    pub(crate) async fn start(to: u16, mutual: bool) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), to, mutual).await
    }

    /// The same on another address of this machine.
    pub(crate) async fn start_at(address: IpAddr, to: u16, mutual: bool) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(file("ca.crt")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(file("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = watch::Sender::default();
        let seen = peers.clone();
        let accepting = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                serving.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let certificates = stream.get_ref().1.peer_certificates();
                    let peer = certificates.and_then(|chain| chain.first()).map(|first| first.to_vec());
                    seen.send_modify(|all: &mut Vec<_>| all.push(peer));
                    let mut behind = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        })
        .abort_handle();
        Self { address, peers, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// See the field.
    pub(crate) fn peers(&self) -> Vec<Option<Vec<u8>>> {
        self.peers.borrow().clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
