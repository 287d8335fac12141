//! The RPCs. Each: parse, one use case, convert. The guard has authenticated the caller; what it may do, the use cases
//! decide.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::user::{NamesUser, bind};
use super::convert::{answers, consent_reason_name, requests};
use super::guard::{Call, open};
use super::watch;
use crate::application::Broker;
use crate::application::types::{LeaseAnswer, TokenAnswer};
use crate::domain::access_policy::Action;
use crate::domain::audit::Subject;
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

/// The caller and the message, which names a user: with a user's token that is this user.
fn open_for_user<T: NamesUser>(request: Request<T>) -> Result<(Call, T), Status> {
    let (call, mut message) = open(request)?;
    bind(&call.principal, &mut message)?;
    Ok((call, message))
}

/// For the call's row in the audit log.
fn note_token(call: &Call, answer: &TokenAnswer) {
    match answer {
        TokenAnswer::Token(grant) => call.notes.gave(grant),
        TokenAnswer::AuthorizationRequired(required) => {
            if let Some(flow) = &required.flow {
                call.notes.about_flow(flow.id);
            }
            call.notes.because(consent_reason_name(required.reason));
        }
    }
}

#[tonic::async_trait]
impl TokenBrokerService for BrokerService {
    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::get_credential(message, call.deadline.time_left())?;
        call.is_about(&input.key, &input.questions()).await?;
        let answer = self.broker.get_credential(&call.principal, input).await?;
        note_token(&call, &answer);
        Ok(Response::new(answers::get_credential(answer)))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::refresh(message, call.deadline.time_left())?;
        call.is_about(&input.key, &[input.key.question(Action::Refresh)]).await?;
        let answer = self.broker.refresh(&call.principal, input).await?;
        note_token(&call, &answer);
        Ok(Response::new(answers::refresh(answer)))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let (key, force) = requests::revoke(message)?;
        call.is_about(&key, &[key.question(Action::Revoke)]).await?;
        let answer = self.broker.revoke(&call.principal, key, force).await?;
        Ok(Response::new(answers::revoke(&answer)))
    }

    async fn begin_o_auth(
        &self,
        request: Request<BeginOAuthRequest>,
    ) -> Result<Response<BeginOAuthResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::begin_oauth(message)?;
        call.notes.about_subject(Subject {
            user: Some(input.user.clone()),
            provider: Some(input.provider.clone()),
            services: input.services.clone(),
            account: Some(input.account.clone()),
            ..Subject::default()
        });
        call.limited(&[input.question()]).await?;
        let flow = self.broker.begin_oauth(&call.principal, input).await?;
        call.notes.about_flow(flow.id);
        Ok(Response::new(answers::begin_oauth(&flow)))
    }

    async fn complete_o_auth(
        &self,
        request: Request<CompleteOAuthRequest>,
    ) -> Result<Response<CompleteOAuthResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::complete_oauth(message, call.deadline.time_left())?;
        call.notes.about_subject(Subject {
            user: Some(input.user.clone()),
            flow: Some(input.flow),
            ..Subject::default()
        });
        call.limited(&[input.question()]).await?;
        let completed = self.broker.complete_oauth(&call.principal, input).await?;
        Ok(Response::new(answers::complete_oauth(completed)))
    }

    async fn get_flow(&self, request: Request<GetFlowRequest>) -> Result<Response<GetFlowResponse>, Status> {
        let (call, message) = open(request)?;
        let id = requests::flow_id(&message.flow_id)?;
        call.notes.about_flow(id);
        call.limited(&[]).await?;
        let flow = self.broker.get_flow(&call.principal, id).await?;
        call.notes.flow_is_for(&flow.key, &flow.services);
        Ok(Response::new(GetFlowResponse { flow: Some(answers::flow(flow)) }))
    }

    async fn cancel_flow(
        &self,
        request: Request<CancelFlowRequest>,
    ) -> Result<Response<CancelFlowResponse>, Status> {
        let (call, message) = open(request)?;
        let id = requests::flow_id(&message.flow_id)?;
        call.notes.about_flow(id);
        call.limited(&[]).await?;
        let flow = self.broker.cancel_flow(&call.principal, id).await?;
        call.notes.flow_is_for(&flow.key, &flow.services);
        Ok(Response::new(CancelFlowResponse { flow: Some(answers::flow(flow)) }))
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::list_credentials(message)?;
        call.notes.about_user(input.user.as_ref(), input.provider.as_ref());
        call.limited(&[input.question()]).await?;
        let answer = self.broker.list_credentials(&call.principal, input).await?;
        Ok(Response::new(answers::list_credentials(answer)))
    }

    async fn import_credential(
        &self,
        request: Request<ImportCredentialRequest>,
    ) -> Result<Response<ImportCredentialResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::import_credential(message)?;
        let question = input.key.question(Action::ImportCredential).asking(&input.scopes);
        call.is_about(&input.key, &[question]).await?;
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
        call.limited(&[]).await?;
        let providers = self.broker.list_providers(&call.principal).await?;
        Ok(Response::new(answers::list_providers(&providers)))
    }

    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<AcquireLeaseResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::acquire_lease(message, call.deadline.time_left())?;
        let question = input.key.question(Action::AcquireLease).asking(&input.scopes);
        call.is_about(&input.key, &[question]).await?;
        let answer = self.broker.acquire_lease(&call.principal, input).await?;
        match &answer {
            LeaseAnswer::Leased { grant, .. } => call.notes.gave(grant),
            LeaseAnswer::AuthorizationRequired(required) => {
                call.notes.because(consent_reason_name(required.reason));
            }
        }
        Ok(Response::new(answers::acquire_lease(answer)))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::renew_lease(message, call.deadline.time_left())?;
        let key = &input.lease.key;
        call.is_about(key, &[key.question(Action::RenewLease)]).await?;
        let (grant, lease) = self.broker.renew_lease(&call.principal, input).await?;
        call.notes.gave(&grant);
        Ok(Response::new(RenewLeaseResponse { leased: Some(answers::leased(*grant, lease)) }))
    }

    async fn release_lease(
        &self,
        request: Request<ReleaseLeaseRequest>,
    ) -> Result<Response<ReleaseLeaseResponse>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::release_lease(message)?;
        call.is_about(&input.key, &[input.key.question(Action::ReleaseLease)]).await?;
        let released = self.broker.release_lease(&call.principal, input).await?;
        Ok(Response::new(ReleaseLeaseResponse { released }))
    }

    type WatchCredentialsStream =
        Pin<Box<dyn Stream<Item = Result<WatchCredentialsResponse, Status>> + Send>>;

    async fn watch_credentials(
        &self,
        request: Request<WatchCredentialsRequest>,
    ) -> Result<Response<Self::WatchCredentialsStream>, Status> {
        let (call, message) = open_for_user(request)?;
        let input = requests::watch_credentials(message)?;
        call.notes.about_user(input.user.as_ref(), None);
        call.limited(&[input.question()]).await?;
        let watch = self.broker.watch_credentials(&call.principal, call.identified, input).await?;
        let ends = watch::Ends {
            deadline: call.deadline.of_caller(),
            expires: call.identity_until,
            old_at: call.connected_at + self.max_connection_age,
            stop: self.stop.clone(),
        };
        Ok(Response::new(Box::pin(watch::stream(watch, ends))))
    }
}
