//! The port: which request, in which order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use url::Url;

use super::discovery::{Asked, Discovery, Need};
use super::reach::reach;
use super::revoke::Presented;
use super::{assertion, classify, identity, request, revoke};
use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::{
    AuthorizationRequest, Clock, Entropy, IdentityError, OAuthClient, ProviderFailure, RevocationOutcome,
};
use crate::domain::provider::{ClientAuth, EndpointSource, Provider, Revocation, RevocationAuth};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;
use crate::domain::token_set::{Excess, ProviderAccount, TokenResponse};
use crate::infra::outbound::{Answer, Http, HttpSettings, HttpSetupError, Request, Route, SendError};

/// A call without a shorter deadline of its own ends within the settings' total time.
const NO_DEADLINE: Duration = Duration::MAX;

/// Who consented is asked between the exchange and the storing of its tokens, so it must not take long; without an answer
/// only the label is missing.
const USERINFO_DEADLINE: Duration = Duration::from_secs(5);

/// The OAuth client over HTTP.
pub struct HttpOAuthClient {
    http: Http,
    discovery: Discovery,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl HttpOAuthClient {
    /// Sets up the HTTP client.
    pub fn new(
        settings: HttpSettings,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, HttpSetupError> {
        Ok(Self { http: Http::new(settings)?, discovery: Discovery::default(), clock, entropy })
    }

    /// The proof of who the client is, where it signs one.
    fn assertion(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
    ) -> Result<Option<SecretString>, ProviderFailure> {
        assertion::assertion(&provider.client, endpoints, self.entropy.as_ref(), self.clock.now())
    }

    async fn find(
        &self,
        provider: &Provider,
        need: Need,
        until: Instant,
    ) -> Result<Arc<RecordedEndpoints>, ProviderFailure> {
        match &provider.endpoints {
            EndpointSource::Literal(endpoints) => Ok(Arc::new(endpoints.clone())),
            EndpointSource::Discovered { issuer } => {
                let named_by = match Url::parse(issuer) {
                    Ok(url) => reach(provider, &url),
                    Err(_) => return Err(ProviderFailure::NotSent),
                };
                let asked = Asked { issuer, reach: named_by, need, until };
                let found = self.discovery.endpoints(&self.http, self.clock.as_ref(), asked).await?;
                Ok(if provider.client.certificate.is_some() { found.by_certificate } else { found.usual })
            }
        }
    }

    /// Sends a request once. What is logged of it: provider, what for, host, status; never a body, a query or a header.
    async fn send(
        &self,
        provider: &Provider,
        operation: &'static str,
        request: Request,
        until: Instant,
    ) -> Result<Answer, ProviderFailure> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let sent = self.http.send_by(route(provider, &request.url), request, until).await;
        let status = sent.as_ref().ok().map(|answer| answer.status.as_u16());
        let error = sent.as_ref().err();
        tracing::debug!(provider = %provider.id, operation, host, ?status, ?error, "provider called");
        sent.map_err(|error| match error {
            SendError::NotSent => ProviderFailure::NotSent,
            SendError::Lost => ProviderFailure::Ambiguous,
        })
    }
}

/// By which way a provider's URL is reached.
pub(super) fn route<'a>(provider: &'a Provider, url: &Url) -> Route<'a> {
    Route { reach: reach(provider, url), certificate: provider.client.certificate.as_ref() }
}

#[async_trait]
impl OAuthClient for HttpOAuthClient {
    async fn endpoints(&self, provider: &Provider) -> Result<RecordedEndpoints, ProviderFailure> {
        let found = self.find(provider, Need::Fresh, self.http.until(NO_DEADLINE)).await?;
        Ok(Arc::unwrap_or_clone(found))
    }

    fn authorization_url(
        &self,
        provider: &Provider,
        request: AuthorizationRequest<'_>,
    ) -> Result<SecretString, ProviderFailure> {
        request::authorization_url(provider, request)
    }

    async fn exchange_code(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        redirect_uri: &Url,
        code: &SecretString,
        verifier: &SecretString,
    ) -> Result<TokenResponse, ProviderFailure> {
        let assertion = self.assertion(provider, endpoints)?;
        let request =
            request::exchange(provider, endpoints, assertion.as_ref(), redirect_uri, code, verifier).await?;
        let answer = self.send(provider, "exchange", request, self.http.until(NO_DEADLINE)).await?;
        classify::token_answer(provider, &answer, &ScopeSet::default(), self.clock.now())
    }

    async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        scopes: &ScopeSet,
        deadline: Duration,
    ) -> Result<TokenResponse, ProviderFailure> {
        let until = self.http.until(deadline);
        let endpoints = self.find(provider, Need::Usable, until).await?;
        let assertion = self.assertion(provider, &endpoints)?;
        let request =
            request::refresh(provider, &endpoints, assertion.as_ref(), refresh_token, scopes).await?;
        let answer = self.send(provider, "refresh", request, until).await?;
        let response = classify::token_answer(provider, &answer, scopes, self.clock.now())?;
        match response.excess {
            None => {}
            // The pair must not be lost for what came with it.
            Some(Excess::Values) => {
                tracing::warn!(provider = %provider.id, "a refresh gave more scopes or longer values than are kept");
            }
            Some(Excess::Token) => {
                tracing::warn!(provider = %provider.id, "a refresh gave a token that is too long to be kept");
                return Err(ProviderFailure::Ambiguous);
            }
        }
        Ok(response)
    }

    async fn revoke(
        &self,
        provider: &Provider,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<RevocationOutcome, ProviderFailure> {
        let until = self.http.until(NO_DEADLINE);
        let (request, presented, by_bearer) = match &provider.revocation {
            Revocation::NotSupported => return Ok(RevocationOutcome::NotSupported),
            Revocation::Rfc7009 { token } => {
                let endpoints = self.find(provider, Need::Usable, until).await?;
                let Some(url) = &endpoints.revocation else { return Ok(RevocationOutcome::NotSupported) };
                let presented = Presented::choose(*token, access_token, refresh_token);
                let assertion = self.assertion(provider, &endpoints)?;
                (revoke::rfc7009(provider, url, assertion.as_ref(), presented)?, presented, false)
            }
            Revocation::Call(call) => {
                let presented = Presented::choose(call.token, access_token, refresh_token);
                let by_bearer = call.auth == RevocationAuth::Bearer;
                // The client's proof is made only where it is shown.
                let assertion = match (call.auth, provider.client.auth) {
                    (RevocationAuth::ClientBasic | RevocationAuth::ClientBody, ClientAuth::PrivateKeyJwt) => {
                        self.assertion(provider, &*self.find(provider, Need::Usable, until).await?)?
                    }
                    _ => None,
                };
                (revoke::described(provider, call, assertion.as_ref(), presented)?, presented, by_bearer)
            }
        };
        let answer = self.send(provider, "revoke", request, until).await?;
        revoke::answer(provider, &answer, presented, by_bearer, self.clock.now())
    }

    async fn identify(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        response: &TokenResponse,
        nonce: &SecretString,
    ) -> Result<ProviderAccount, IdentityError> {
        let told = identity::told(provider, endpoints, response, nonce, self.clock.now())?;
        let until = self.http.until(USERINFO_DEADLINE);
        Ok(identity::ask(&self.http, provider, endpoints, &response.access_token, told, until).await)
    }
}
