//! The RPCs. Each: parse, one use case, convert. The guard has authenticated the caller; what it may do, the use cases
//! decide.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::{answers, requests};
use super::guard::open;
use super::watch;
use crate::application::Broker;
use crate::r#gen::v1::token_broker_service_server::TokenBrokerService;
use crate::r#gen::v1::{
    AcquireLeaseRequest, AcquireLeaseResponse, BeginOAuthRequest, BeginOAuthResponse, CancelFlowRequest,
    CancelFlowResponse, CompleteOAuthRequest, CompleteOAuthResponse, GetCredentialRequest,
    GetCredentialResponse, GetFlowRequest, GetFlowResponse, ImportCredentialRequest,
    ImportCredentialResponse, ListCredentialsRequest, ListCredentialsResponse, ListProvidersRequest,
    ListProvidersResponse, RefreshRequest, RefreshResponse, ReleaseLeaseRequest, ReleaseLeaseResponse,
    RenewLeaseRequest, RenewLeaseResponse, RevokeRequest, RevokeResponse, WatchCredentialsRequest,
    WatchCredentialsResponse,
};

/// `tokenbroker.v1.TokenBrokerService`.
pub(super) struct BrokerService {
    broker: Arc<Broker>,
    max_connection_age: Duration,
    stop: CancellationToken,
}

impl BrokerService {
    /// Over these use cases. Watches end when their connection has this age, and at the stop.
    pub(super) fn new(broker: Arc<Broker>, max_connection_age: Duration, stop: CancellationToken) -> Self {
        Self { broker, max_connection_age, stop }
    }
}

#[tonic::async_trait]
impl TokenBrokerService for BrokerService {
    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::get_credential(message, call.deadline.time_left())?;
        let answer = self.broker.get_credential(&call.principal, input).await?;
        Ok(Response::new(answers::get_credential(answer)))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::refresh(message, call.deadline.time_left())?;
        let answer = self.broker.refresh(&call.principal, input).await?;
        Ok(Response::new(answers::refresh(answer)))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let (call, message) = open(request)?;
        let (key, force) = requests::revoke(message)?;
        let answer = self.broker.revoke(&call.principal, key, force).await?;
        Ok(Response::new(answers::revoke(&answer)))
    }

    async fn begin_o_auth(
        &self,
        request: Request<BeginOAuthRequest>,
    ) -> Result<Response<BeginOAuthResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::begin_oauth(message)?;
        let flow = self.broker.begin_oauth(&call.principal, input).await?;
        Ok(Response::new(answers::begin_oauth(&flow)))
    }

    async fn complete_o_auth(
        &self,
        request: Request<CompleteOAuthRequest>,
    ) -> Result<Response<CompleteOAuthResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::complete_oauth(message, call.deadline.time_left())?;
        let completed = self.broker.complete_oauth(&call.principal, input).await?;
        Ok(Response::new(answers::complete_oauth(completed)))
    }

    async fn get_flow(&self, request: Request<GetFlowRequest>) -> Result<Response<GetFlowResponse>, Status> {
        let (call, message) = open(request)?;
        let id = requests::flow_id(&message.flow_id)?;
        let flow = self.broker.get_flow(&call.principal, id).await?;
        Ok(Response::new(GetFlowResponse { flow: Some(answers::flow(flow)) }))
    }

    async fn cancel_flow(
        &self,
        request: Request<CancelFlowRequest>,
    ) -> Result<Response<CancelFlowResponse>, Status> {
        let (call, message) = open(request)?;
        let id = requests::flow_id(&message.flow_id)?;
        let flow = self.broker.cancel_flow(&call.principal, id).await?;
        Ok(Response::new(CancelFlowResponse { flow: Some(answers::flow(flow)) }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::list_credentials(message)?;
        let answer = self.broker.list_credentials(&call.principal, input).await?;
        Ok(Response::new(answers::list_credentials(answer)))
    }

    async fn import_credential(
        &self,
        request: Request<ImportCredentialRequest>,
    ) -> Result<Response<ImportCredentialResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::import_credential(message)?;
        let credential = self.broker.import_credential(&call.principal, input).await?;
        Ok(Response::new(ImportCredentialResponse {
            credential: Some(answers::credential_summary(credential)),
        }))
    }

    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let (call, ListProvidersRequest {}) = open(request)?;
        let providers = self.broker.list_providers(&call.principal)?;
        Ok(Response::new(answers::list_providers(&providers)))
    }

    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<AcquireLeaseResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::acquire_lease(message, call.deadline.time_left())?;
        let answer = self.broker.acquire_lease(&call.principal, input).await?;
        Ok(Response::new(answers::acquire_lease(answer)))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::renew_lease(message, call.deadline.time_left())?;
        let (grant, lease) = self.broker.renew_lease(&call.principal, input).await?;
        Ok(Response::new(RenewLeaseResponse { leased: Some(answers::leased(*grant, lease)) }))
    }

    async fn release_lease(
        &self,
        request: Request<ReleaseLeaseRequest>,
    ) -> Result<Response<ReleaseLeaseResponse>, Status> {
        let (call, message) = open(request)?;
        let input = requests::release_lease(message)?;
        let released = self.broker.release_lease(&call.principal, input).await?;
        Ok(Response::new(ReleaseLeaseResponse { released }))
    }

    type WatchCredentialsStream =
        Pin<Box<dyn Stream<Item = Result<WatchCredentialsResponse, Status>> + Send>>;

    async fn watch_credentials(
        &self,
        request: Request<WatchCredentialsRequest>,
    ) -> Result<Response<Self::WatchCredentialsStream>, Status> {
        let (call, message) = open(request)?;
        let input = requests::watch_credentials(message)?;
        let watch = self.broker.watch_credentials(&call.principal, input).await?;
        let ends = watch::Ends {
            deadline: call.deadline.of_caller(),
            old_at: call.connected_at + self.max_connection_age,
            stop: self.stop.clone(),
        };
        Ok(Response::new(Box::pin(watch::stream(watch, ends))))
    }
}
