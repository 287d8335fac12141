//! gRPC clients with an API key.

use std::time::Duration;

use token_broker::r#gen::v1::admin_service_client::AdminServiceClient;
use token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

/// A client that sends the caller's key with every call.
pub(crate) type Client = TokenBrokerServiceClient<InterceptedService<Channel, WithKey>>;

/// The same of the service for operators.
pub(crate) type AdminClient = AdminServiceClient<InterceptedService<Channel, WithKey>>;

/// Puts the key on every call.
#[derive(Clone)]
pub(crate) struct WithKey(Option<MetadataValue<Ascii>>);

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl WithKey {
    fn new(key: Option<&str>) -> Self {
        Self(key.map(|key| MetadataValue::try_from(format!("Bearer {key}")).unwrap()))
    }
}

pub(super) fn with_key(channel: Channel, key: Option<&str>) -> Client {
    TokenBrokerServiceClient::with_interceptor(channel, WithKey::new(key))
}

pub(super) fn admin_with_key(channel: Channel, key: Option<&str>) -> AdminClient {
    AdminServiceClient::with_interceptor(channel, WithKey::new(key))
}

pub(super) async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(30))
        .connect()
        .await
        .unwrap()
}

/// The answer. The test fails with the status if there is none.
pub(crate) fn answered<T>(result: Result<Response<T>, Status>) -> T {
    result.unwrap_or_else(|status| panic!("{status}")).into_inner()
}

/// What a refusal calls its cause; empty if it has none.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The refusal. Answers have no `Debug`, since they hold tokens, so `unwrap_err` can't be used on them.
pub(crate) fn refused<T>(result: Result<Response<T>, Status>) -> Status {
    result.err().expect("the call is refused")
}
