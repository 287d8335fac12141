//! BeginOAuth: starts a consent.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};

use super::endings::later;
use super::error::{BrokerError, Limit, Unavailable, Violation};
use super::target::{permit, service};
use super::types::{BeginInput, ConsentInput, StartedFlow};
use super::{Broker, return_url};
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::flow::{ConsentOptions, Flow, FlowSecrets, FlowStatus, MAX_PENDING_FLOWS, StateHash};
use crate::domain::key::{CredentialKey, FlowId, GrantId, ServiceId};
use crate::domain::ports::{AuthorizationRequest, ProviderFailure};
use crate::domain::provider::Provider;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;

/// A link with less than this left is not given out again: the user needs time to log in.
const REUSE_LEFT: SignedDuration = SignedDuration::from_secs(120);
/// When to come back if the provider could not be asked for its endpoints.
const PROVIDER_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// A consent to begin: permitted and valid.
pub(super) struct ConsentPlan {
    pub(super) provider: Arc<Provider>,
    pub(super) key: CredentialKey,
    pub(super) services: BTreeSet<ServiceId>,
    /// The services' own and those asked for beside them.
    pub(super) scopes: ScopeSet,
    pub(super) options: ConsentOptions,
}

impl Broker {
    /// Starts a consent.
    pub async fn begin_oauth(
        self: &Arc<Self>,
        principal: &Principal,
        input: BeginInput,
    ) -> Result<StartedFlow, BrokerError> {
        let question = Question::about(Action::BeginOauth, &input.provider, &input.services, &input.user);
        permit(principal, &question.asking(&input.scopes))?;
        let provider = self.provider(principal, &input.provider)?;
        let mut scopes = input.scopes;
        let mut grants = BTreeSet::new();
        for id in &input.services {
            let service = service(&provider, id)?;
            scopes = scopes.union(&service.scopes);
            grants.insert(service.grant.clone());
        }
        let mut violations = Vec::new();
        let grant = grants.pop_first();
        if grant.is_none() || !grants.is_empty() {
            violations.push(Violation::new(
                "services",
                "One consent connects services that share a grant; see the services' `grant` in ListProviders and begin \
                 one consent for each.",
            ));
        }
        let options = self.check_options(input.options).map_err(|bad| violations.extend(bad)).ok();
        let (Some(grant), Some(options), true) = (grant, options, violations.is_empty()) else {
            return Err(BrokerError::InvalidArgument(violations));
        };
        let key = CredentialKey {
            tenant: principal.tenant().clone(),
            provider: input.provider,
            user: input.user,
            grant,
            account: input.account,
        };
        let plan = ConsentPlan { provider, key, services: input.services, scopes, options };
        let scopes = self.with_held_scopes(&plan).await?;
        self.begin(principal, plan, scopes).await
    }

    /// Checks what a caller wishes of a consent.
    pub(super) fn check_options(&self, input: ConsentInput) -> Result<ConsentOptions, Vec<Violation>> {
        let return_url = input
            .return_url
            .map(|text| return_url::check(&self.settings.return_urls, &text))
            .transpose()
            .map_err(|violation| vec![violation])?;
        Ok(ConsentOptions { return_url, client_state: input.client_state, login_hint: input.login_hint })
    }

    /// The link of the pending consent for the same thing, or a new one. An agent that polls does not flood the user with
    /// links, and of many that ask at once all get the same.
    pub(super) async fn begin_or_reuse(
        &self,
        principal: &Principal,
        plan: ConsentPlan,
    ) -> Result<StartedFlow, BrokerError> {
        let _turn = self.begin_turns.lock(&plan.key).await;
        let scopes = self.with_held_scopes(&plan).await?;
        let now = self.ports.clock.now();
        // Not only the latest: agents that ask in turn, or one that asks for several services, each have their own.
        let pending = self.ports.flows.pending_flows(&plan.key, now).await?;
        let same = pending.into_iter().find(|flow| {
            flow.expires_at.duration_since(now) > REUSE_LEFT
                && flow.caller == *principal.id()
                && flow.services == plan.services
                && flow.scopes == scopes
                && flow.options == plan.options
        });
        if let Some(flow) = same {
            let secrets = self.open_flow_secrets(&flow).await?;
            return self.link(&plan.provider, &flow, &secrets);
        }
        self.begin(principal, plan, scopes).await
    }

    /// What the user is asked for: with what was granted before, so that no connected service loses its access.
    async fn with_held_scopes(&self, plan: &ConsentPlan) -> Result<ScopeSet, BrokerError> {
        let row = self.ports.credentials.load(&plan.key).await?;
        let held = row.as_ref().and_then(|row| row.tokens()).map(|tokens| &tokens.scopes);
        Ok(held.map_or_else(|| plan.scopes.clone(), |held| plan.scopes.union(held)))
    }

    async fn begin(
        &self,
        principal: &Principal,
        plan: ConsentPlan,
        scopes: ScopeSet,
    ) -> Result<StartedFlow, BrokerError> {
        let endpoints = self.ports.oauth.endpoints(&plan.provider).await.map_err(discovery_failed)?;
        let secrets = FlowSecrets {
            state: self.random_text(),
            code_verifier: self.random_text(),
            nonce: self.random_text(),
        };
        let now = self.ports.clock.now();
        let grant_id = GrantId::from_random(self.random());
        let flow = Flow {
            id: FlowId::from_random(self.random()),
            caller: principal.id().clone(),
            services: plan.services,
            scopes,
            grant_id,
            state_hash: hash_state(&secrets.state),
            secrets_sealed: self.seal_flow_secrets(&plan.key, grant_id, &secrets).await?,
            endpoints,
            redirect_uri: self.redirect_uri(&plan.key.provider),
            options: plan.options,
            status: FlowStatus::Pending,
            created_at: now,
            expires_at: later(now, self.settings.flow_lifetime),
            ended_at: None,
            key: plan.key,
        };
        // The link first: what can't be built is not stored.
        let started = self.link(&plan.provider, &flow, &secrets)?;
        if self.ports.flows.insert_flow(&flow, MAX_PENDING_FLOWS).await? {
            Ok(started)
        } else {
            let retry_after = self.settings.flow_lifetime;
            Err(BrokerError::ResourceExhausted { limit: Limit::PendingConsents, retry_after })
        }
    }

    fn link(
        &self,
        provider: &Provider,
        flow: &Flow,
        secrets: &FlowSecrets,
    ) -> Result<StartedFlow, BrokerError> {
        let request = AuthorizationRequest {
            endpoints: &flow.endpoints,
            redirect_uri: &flow.redirect_uri,
            secrets,
            scopes: &flow.scopes,
            login_hint: flow.options.login_hint.as_deref(),
        };
        let authorization_url = self.ports.oauth.authorization_url(provider, request).map_err(|error| {
            tracing::error!(provider = %provider.id, %error, "the authorization URL could not be built");
            BrokerError::Internal
        })?;
        Ok(StartedFlow {
            id: flow.id,
            authorization_url,
            expires_at: flow.expires_at,
            scopes: flow.scopes.clone(),
        })
    }

    /// 256 random bits in base64url: 43 characters, fit for a state, a PKCE verifier (RFC 7636 section 4.1) and a nonce.
    fn random_text(&self) -> SecretString {
        SecretString::new(BASE64_URL_SAFE_NO_PAD.encode(self.random::<32>()))
    }
}

/// How a callback's state is looked up.
pub(super) fn hash_state(state: &SecretString) -> StateHash {
    StateHash(Sha256::digest(state.expose_secret().as_bytes()).into())
}

/// Only discovery asks the provider before the user comes.
fn discovery_failed(failure: ProviderFailure) -> BrokerError {
    tracing::warn!(%failure, "the provider's endpoints could not be discovered");
    let (what, retry_after) = match failure {
        ProviderFailure::RateLimited { retry_after } => {
            (Unavailable::ProviderRateLimited, retry_after.unwrap_or(PROVIDER_RETRY))
        }
        ProviderFailure::InvalidGrant
        | ProviderFailure::ClientRejected
        | ProviderFailure::Refused
        | ProviderFailure::NotSent
        | ProviderFailure::Ambiguous => (Unavailable::Provider, PROVIDER_RETRY),
    };
    BrokerError::Unavailable { what, retry_after }
}

/// Whether a text can be a state of this broker's making.
pub(super) fn looks_like_state(text: &SecretString) -> bool {
    let text = text.expose_secret();
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
