//! An agent: a gRPC client with an API key, as it would be in any language.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::error::DemoError;
use super::stage::{PROVIDER, SERVICE};
use crate::domain::secret::SecretString;
use crate::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use crate::r#gen::v1::{
    AuthorizationRequired, ConsentOptions, Credential, CredentialKey, GetCredentialRequest, GetFlowRequest,
    ListCredentialsRequest, RevokeRequest, RevokeResponse, get_credential_response as got,
};

/// A connected client.
#[derive(Clone)]
pub(super) struct Agent {
    client: TokenBrokerServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

/// A token, or the need to consent.
pub(super) enum Answer {
    Token(Box<Credential>),
    Consent(AuthorizationRequired),
}

impl Answer {
    /// The token; the error names what came instead.
    pub(super) fn token(self) -> Result<Credential, DemoError> {
        match self {
            Self::Token(credential) => Ok(*credential),
            Self::Consent(required) => {
                Err(DemoError::NotAsExpected(format!("a token, but the answer was {}", reason(&required))))
            }
        }
    }

    /// The need to consent; a token is an error.
    pub(super) fn consent(self) -> Result<AuthorizationRequired, DemoError> {
        match self {
            Self::Consent(required) => Ok(required),
            Self::Token(_) => Err(DemoError::NotAsExpected("no token, but there was one".to_owned())),
        }
    }
}

/// The reason without the enum's name.
pub(super) fn reason(required: &AuthorizationRequired) -> &'static str {
    let name = required.reason().as_str_name();
    name.strip_prefix("AUTHORIZATION_REQUIRED_REASON_").unwrap_or(name)
}

fn key(user: &str) -> CredentialKey {
    CredentialKey {
        provider: PROVIDER.to_owned(),
        user_id: user.to_owned(),
        service: SERVICE.to_owned(),
        account: String::new(),
    }
}

fn answer<T>(method: &'static str, result: Result<Response<T>, Status>) -> Result<T, DemoError> {
    result.map(Response::into_inner).map_err(|status| DemoError::Call { method, status: Box::new(status) })
}

impl Agent {
    /// Connects over a connection of its own.
    pub(super) async fn connect(
        address: std::net::SocketAddr,
        api_key: &SecretString,
    ) -> Result<Self, DemoError> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let header = SecretString::new(format!("Bearer {}", api_key.expose_secret()));
        let mut authorization = MetadataValue::try_from(header.expose_secret())
            .map_err(|_| DemoError::NotAsExpected("an API key of plain characters".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self { client: TokenBrokerServiceClient::new(channel), authorization })
    }

    /// A user's token. With `begin`, a link if there is none.
    pub(super) async fn get(&mut self, user: &str, begin: bool) -> Result<Answer, DemoError> {
        let request = self.with_key(GetCredentialRequest {
            key: Some(key(user)),
            begin_if_missing: begin
                .then(|| ConsentOptions { login_hint: user.to_owned(), ..ConsentOptions::default() }),
            ..GetCredentialRequest::default()
        });
        let method = "GetCredential";
        match answer(method, self.client.get_credential(request).await)?.result {
            Some(got::Result::Credential(credential)) => Ok(Answer::Token(Box::new(credential))),
            Some(got::Result::AuthorizationRequired(required)) => Ok(Answer::Consent(required)),
            None => Err(DemoError::NotAsExpected(format!("{method} answers something"))),
        }
    }

    /// How a consent stands, without the enum's name.
    pub(super) async fn flow_status(&mut self, flow_id: &str) -> Result<String, DemoError> {
        let request = self.with_key(GetFlowRequest { flow_id: flow_id.to_owned() });
        let flow = answer("GetFlow", self.client.get_flow(request).await)?.flow.unwrap_or_default();
        let name = flow.status().as_str_name();
        Ok(name.strip_prefix("FLOW_STATUS_").unwrap_or(name).to_owned())
    }

    /// Disconnects a user.
    pub(super) async fn revoke(&mut self, user: &str) -> Result<RevokeResponse, DemoError> {
        let request = self.with_key(RevokeRequest { key: Some(key(user)), force: false });
        answer("Revoke", self.client.revoke(request).await)
    }

    /// The users of the caller's tenant who are connected.
    pub(super) async fn connected_users(&mut self) -> Result<Vec<String>, DemoError> {
        let request = self.with_key(ListCredentialsRequest::default());
        let page = answer("ListCredentials", self.client.list_credentials(request).await)?;
        Ok(page.credentials.into_iter().map(|credential| credential.user_id).collect())
    }

    fn with_key<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}
