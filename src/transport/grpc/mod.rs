//! The gRPC door.
//!
//! | file | does |
//! |---|---|
//! | `guard.rs` | what happens to every call, in order: request id, caller, deadline, panic, log, metrics |
//! | `incoming.rs` | connections, and their limits |
//! | `auth.rs` | what a call presents |
//! | `identify.rs` | who calls, and for which user |
//! | `audit.rs` | the row that each call has in the audit log |
//! | `deadline.rs` | how long the caller waits |
//! | `service.rs` | the RPCs: parse, one use case, convert |
//! | `admin/` | those of operators |
//! | `convert/` | messages to what use cases take, and back |
//! | `status.rs` | errors to statuses: the one map |
//! | `watch.rs` | the one stream: what it tells and what ends it |
//! | `observe.rs` | methods, metrics, request ids |

mod admin;
mod audit;
mod auth;
mod convert;
mod deadline;
mod guard;
mod identify;
mod incoming;
mod observe;
mod service;
pub mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::application::Broker;
use crate::application::keys::Keys;
use crate::application::limits::Limits;
use crate::domain::ports::{CallerDirectory, Entropy, TokenVerifier};
use crate::r#gen::FILE_DESCRIPTOR_SET;
use crate::r#gen::v1::admin_service_server::AdminServiceServer;
use crate::r#gen::v1::token_broker_service_server::TokenBrokerServiceServer;
use crate::transport::proxies::Proxies;
use admin::Admin;
pub(crate) use convert::callers::identity_messages;
pub(crate) use convert::rules::{read_rule, rule_message};
use guard::Guard;
use identify::Identifier;
pub use incoming::{Connection, ConnectionInfo, IncomingLimits, IncomingTls, Peer, ReadPeer, incoming};
use service::BrokerService;

/// Which of the broker's services a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// `TokenBrokerService`.
    Broker,
    /// `AdminService`.
    Admin,
    /// Both.
    Both,
}

/// What the operator decides about the gRPC door.
#[derive(Clone)]
pub struct GrpcOptions {
    /// What is served beside health.
    pub services: Services,
    /// Serve reflection (v1 and v1alpha). It needs a known caller like every other call but health.
    pub reflection: bool,
    /// No call takes longer, whatever deadline the caller sent. Above the 5 seconds that a reader waits for a refresh.
    pub max_deadline: Duration,
    /// The largest request message, after decompression.
    pub max_request_bytes: usize,
    /// A connection is asked to close after this, so that callers spread over new addresses. [`incoming`] ends those that
    /// do not.
    pub max_connection_age: Duration,
    /// How often an idle connection is pinged.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take before the connection is closed.
    pub keepalive_timeout: Duration,
    /// How many calls may be under way on one connection.
    pub max_concurrent_streams: u32,
    /// Verifies JWTs of callers and users; `None`: none is anybody's.
    pub tokens: Option<Arc<dyn TokenVerifier>>,
    /// Calls under way are counted here, so that shutdown can wait for them and not for connections.
    pub calls: TaskTracker,
    /// Ends the watches.
    pub stop: CancellationToken,
    /// Who may ask how often.
    pub limits: Arc<Limits>,
    /// Whose word about a caller's address counts.
    pub proxies: Proxies,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            services: Services::Both,
            reflection: true,
            max_deadline: Duration::from_secs(30),
            // The largest valid import is two tokens of 16 KiB and 32 values of 4 KiB.
            max_request_bytes: 256 * 1024,
            max_connection_age: Duration::from_secs(30 * 60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            max_concurrent_streams: 1_000,
            tokens: None,
            calls: TaskTracker::new(),
            stop: CancellationToken::new(),
            limits: Arc::new(Limits::none()),
            proxies: Proxies::none(),
        }
    }
}

/// The largest header list. A token of the caller and one of the user have at most 8 KiB each; what proxies add takes a few
/// hundred bytes.
const MAX_HEADER_LIST_BYTES: u32 = 24 * 1024;

/// The largest request to health and reflection, which ask for a name. Health is open to everybody, and each of a thousand
/// streams on a connection could fill as much memory.
const MAX_NAME_BYTES: usize = 4 * 1024;

/// A service with the limit and the compressions of all. A macro, since generated servers share no trait.
macro_rules! on_the_wire {
    ($service:expr, $max_request_bytes:expr) => {
        $service
            .max_decoding_message_size($max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
    };
}

/// The whole gRPC surface: the broker's service and, behind the same guard, reflection; health is open to everybody.
pub fn router<H: Health>(
    broker: Arc<Broker>,
    keys: Arc<Keys>,
    callers: Arc<dyn CallerDirectory>,
    entropy: &dyn Entropy,
    health: HealthServer<H>,
    options: GrpcOptions,
) -> Router {
    let auditor = broker.auditor();
    let mut routes = Routes::new(health.max_decoding_message_size(MAX_NAME_BYTES));
    if options.services != Services::Broker {
        let service = AdminServiceServer::new(Admin::new(Arc::clone(&broker), keys));
        routes = routes.add_service(on_the_wire!(service, options.max_request_bytes));
    }
    if options.services != Services::Admin {
        let service = BrokerService::new(broker, options.max_connection_age, options.stop);
        let service = TokenBrokerServiceServer::new(service);
        routes = routes.add_service(on_the_wire!(service, options.max_request_bytes));
    }
    if options.reflection {
        routes = add_reflection(routes);
    }
    let identifier = Identifier { callers, tokens: options.tokens, limits: options.limits };
    let guard = Arc::new(Guard::new(
        identifier,
        auditor,
        options.proxies,
        entropy,
        options.max_deadline,
        options.calls,
    ));
    // Outside all services, unknown ones included: no RPC can forget it.
    let guarded =
        routes.prepare().into_axum_router().layer(middleware::from_fn_with_state(guard, guard::run));
    let mut server = Server::builder()
        .tcp_nodelay(true)
        // Not tonic's own grace: with it a connection is never asked to close, but cut off in the middle of its calls.
        .max_connection_age(options.max_connection_age)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(options.max_concurrent_streams);
    server.add_routes(Routes::from(guarded))
}

/// Both versions: grpcurl and older clients ask v1alpha, newer ones v1.
fn add_reflection(routes: Routes) -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes
            .add_service(v1.max_decoding_message_size(MAX_NAME_BYTES))
            .add_service(v1alpha.max_decoding_message_size(MAX_NAME_BYTES)),
        (Err(error), _) | (_, Err(error)) => {
            // The descriptors are compiled in; a test keeps them readable. Not worth refusing to serve tokens for.
            tracing::error!(%error, "reflection is off: a compiled-in descriptor is unreadable");
            routes
        }
    }
}
