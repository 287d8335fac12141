//! The listeners for callers and for operators' tools.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic_health::pb::health_server::{Health, HealthServer};

use super::StartError;
use crate::application::Broker;
use crate::application::limits::Limits;
use crate::config;
use crate::domain::ports::{CallerDirectory, Entropy};
use crate::transport::grpc::{self, GrpcOptions, IncomingLimits, Services};

/// How long a connection may take to begin to speak.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// What the listeners have in common.
pub(super) struct Door<H: Health> {
    pub(super) broker: Arc<Broker>,
    pub(super) callers: Arc<dyn CallerDirectory>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) health: HealthServer<H>,
    pub(super) settings: config::Grpc,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) limits: Arc<Limits>,
}

impl<H: Health> Door<H> {
    /// Serves on one listener, or on one for callers and one for operators' tools.
    pub(super) fn open(
        self,
        callers: TcpListener,
        admin: Option<TcpListener>,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        match admin {
            None => Ok(vec![self.serve(callers, Services::Both)?]),
            Some(admin) => {
                Ok(vec![self.serve(callers, Services::Broker)?, self.serve(admin, Services::Admin)?])
            }
        }
    }

    fn serve(&self, listener: TcpListener, services: Services) -> Result<JoinHandle<()>, StartError> {
        let router = grpc::router(
            Arc::clone(&self.broker),
            Arc::clone(&self.callers),
            self.entropy.as_ref(),
            self.health.clone(),
            self.options(services)?,
        )
        .map_err(StartError::Tls)?;
        let incoming = grpc::incoming(listener, incoming_limits(&self.settings));
        let served = router.serve_with_incoming_shutdown(incoming, self.stop.clone().cancelled_owned());
        Ok(tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, ?services, "a gRPC listener failed");
            }
        }))
    }

    fn options(&self, services: Services) -> Result<GrpcOptions, StartError> {
        let grpc = &self.settings;
        Ok(GrpcOptions {
            services,
            reflection: grpc.reflection,
            max_deadline: grpc.max_deadline,
            max_request_bytes: grpc.max_request_bytes,
            max_connection_age: grpc.max_connection_age,
            keepalive_interval: grpc.keepalive_interval,
            keepalive_timeout: grpc.keepalive_timeout,
            tls: tls(grpc)?,
            calls: self.tasks.clone(),
            stop: self.stop.clone(),
            limits: Arc::clone(&self.limits),
            ..GrpcOptions::default()
        })
    }
}

fn incoming_limits(grpc: &config::Grpc) -> IncomingLimits {
    IncomingLimits {
        connections: grpc.max_connections,
        first_bytes: FIRST_BYTES,
        age: grpc.max_connection_age + grpc.max_connection_age_grace,
    }
}

pub(super) fn tls(grpc: &config::Grpc) -> Result<Option<ServerTlsConfig>, StartError> {
    let Some(files) = &grpc.tls else { return Ok(None) };
    let read = |key, path| std::fs::read(path).map_err(|source| StartError::TlsFile { key, source });
    let certificate = read("grpc.tls_certificate_file", &files.certificate)?;
    let key = read("grpc.tls_key_file", &files.key)?;
    Ok(Some(ServerTlsConfig::new().identity(Identity::from_pem(certificate, key))))
}
