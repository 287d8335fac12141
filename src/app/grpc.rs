//! The listeners for callers and for operators' tools.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::application::Broker;
use crate::application::keys::Keys;
use crate::application::limits::Limits;
use crate::config;
use crate::domain::ports::{CallerDirectory, Entropy, TokenVerifier};
use crate::transport::grpc::{self, GrpcOptions, IncomingLimits, IncomingTls, Services};

/// How long a connection may take to begin to speak.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// What the listeners have in common.
pub(super) struct Door<H: Health> {
    pub(super) broker: Arc<Broker>,
    pub(super) keys: Arc<Keys>,
    pub(super) callers: Arc<dyn CallerDirectory>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) health: HealthServer<H>,
    pub(super) settings: config::Grpc,
    pub(super) tokens: Option<Arc<dyn TokenVerifier>>,
    pub(super) tls: Option<IncomingTls>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) limits: Arc<Limits>,
}

impl<H: Health> Door<H> {
    /// Serves on one listener, or on one for callers and one for operators' tools.
    pub(super) fn open(self, callers: TcpListener, admin: Option<TcpListener>) -> Vec<JoinHandle<()>> {
        match admin {
            None => vec![self.serve(callers, Services::Both)],
            Some(admin) => vec![self.serve(callers, Services::Broker), self.serve(admin, Services::Admin)],
        }
    }

    fn serve(&self, listener: TcpListener, services: Services) -> JoinHandle<()> {
        let router = grpc::router(
            Arc::clone(&self.broker),
            Arc::clone(&self.keys),
            Arc::clone(&self.callers),
            self.entropy.as_ref(),
            self.health.clone(),
            self.options(services),
        );
        let incoming = grpc::incoming(listener, incoming_limits(&self.settings), self.tls.clone());
        let served = router.serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, ?services, "a gRPC listener failed");
            }
        })
    }

    fn options(&self, services: Services) -> GrpcOptions {
        let grpc = &self.settings;
        GrpcOptions {
            services,
            reflection: grpc.reflection,
            max_deadline: grpc.max_deadline,
            max_request_bytes: grpc.max_request_bytes,
            max_connection_age: grpc.max_connection_age,
            keepalive_interval: grpc.keepalive_interval,
            keepalive_timeout: grpc.keepalive_timeout,
            tokens: self.tokens.clone(),
            calls: self.tasks.clone(),
            stop: self.stop.clone(),
            limits: Arc::clone(&self.limits),
            proxies: super::proxies(&grpc.proxies),
            ..GrpcOptions::default()
        }
    }
}

fn incoming_limits(grpc: &config::Grpc) -> IncomingLimits {
    IncomingLimits {
        connections: grpc.max_connections,
        first_bytes: FIRST_BYTES,
        age: grpc.max_connection_age + grpc.max_connection_age_grace,
    }
}
