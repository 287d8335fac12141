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
use crate::domain::flow::{
    ConsentBinding, ConsentOptions, Flow, FlowSecrets, FlowStatus, MAX_PENDING_FLOWS, Proof, SecretHash,
    StateHash,
};
use crate::domain::key::{CredentialKey, FlowId, GrantId, ServiceId, UserId};
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
    pub(super) binding: ConsentBinding,
}

impl BeginInput {
    /// What the policy has to allow.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        let about = Question::about(Action::BeginOauth, &self.provider, &self.services, &self.user);
        about.asking(&self.scopes)
    }
}

impl Broker {
    /// Starts a consent.
    pub async fn begin_oauth(
        self: &Arc<Self>,
        principal: &Principal,
        input: BeginInput,
    ) -> Result<StartedFlow, BrokerError> {
        permit(principal, &input.question())?;
        let provider = self.provider(principal, &input.provider).await?;
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
        let wishes = self.check_options(input.options, &input.user, "user_id");
        let wishes = wishes.map_err(|bad| violations.extend(bad)).ok();
        let (Some(grant), Some((options, binding)), true) = (grant, wishes, violations.is_empty()) else {
            return Err(BrokerError::InvalidArgument(violations));
        };
        let key = CredentialKey {
            tenant: principal.tenant().clone(),
            provider: input.provider,
            user: input.user,
            grant,
            account: input.account,
        };
        let plan = ConsentPlan { provider, key, services: input.services, scopes, options, binding };
        let scopes = self.with_held_scopes(&plan).await?;
        self.begin(principal, plan, scopes).await
    }

    /// Checks what a caller wishes of a consent for this user, whose id is in this field of the request.
    pub(super) fn check_options(
        &self,
        input: ConsentInput,
        user: &UserId,
        user_field: &str,
    ) -> Result<(ConsentOptions, ConsentBinding), Vec<Violation>> {
        let mut violations = Vec::new();
        let return_url = input.return_url.map(|text| return_url::check(&self.settings.return_urls, &text));
        let return_url = return_url.transpose().unwrap_or_else(|violation| {
            violations.push(violation);
            None
        });
        let binding = self.binding(input.binding).map_err(|violation| violations.push(violation)).ok();
        match (binding, &return_url) {
            (Some(ConsentBinding::App), Some(url)) => violations.extend(return_url::check_room(url).err()),
            (Some(ConsentBinding::App), None) if violations.is_empty() => violations.push(Violation::new(
                "options.return_url",
                "Required by the binding `app`: the browser is sent there, and the application calls CompleteOAuth.",
            )),
            (Some(ConsentBinding::Login), _) => violations.extend(self.not_of_login(user, user_field)),
            (Some(ConsentBinding::App | ConsentBinding::Confirm) | None, _) => {}
        }
        match binding {
            Some(binding) if violations.is_empty() => {
                let ConsentInput { client_state, login_hint, .. } = input;
                Ok((ConsentOptions { return_url, client_state, login_hint }, binding))
            }
            _ => Err(violations),
        }
    }

    /// The binding that is asked for, or the first one that is allowed.
    fn binding(&self, asked: Option<ConsentBinding>) -> Result<ConsentBinding, Violation> {
        let allowed = &self.settings.bindings;
        let Some(asked) = asked.or_else(|| allowed.first().copied()) else {
            return Err(Violation::new(
                "options.binding",
                "No binding is allowed by the broker's configuration.",
            ));
        };
        if allowed.contains(&asked) {
            return Ok(asked);
        }
        let names: Vec<_> = allowed.iter().map(|binding| binding.as_str()).collect();
        Err(Violation::new(
            "options.binding",
            format!(
                "The binding `{}` is not allowed; `consent.bindings` in the broker's configuration has: {}.",
                asked.as_str(),
                names.join(", ")
            ),
        ))
    }

    /// With the binding `login`, a user that can't sign in could never consent.
    fn not_of_login(&self, user: &UserId, field: &str) -> Option<Violation> {
        let login = self.settings.login.as_ref()?;
        (!login.may_have(user)).then(|| {
            Violation::new(
                field,
                format!(
                    "The binding `login` needs users of the login issuer, whose ids are `{}|` and their subject there.",
                    login.name
                ),
            )
        })
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
                && flow.configuration == plan.provider.configuration()
                && flow.scopes == scopes
                && flow.options == plan.options
                && flow.proof.binding == plan.binding
        });
        if let Some(flow) = same {
            let secrets = self.open_flow_secrets(&flow).await?;
            return self.started(&plan.provider, &flow, secrets);
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
        let of_app = plan.binding == ConsentBinding::App;
        let secrets = FlowSecrets {
            state: self.random_text(),
            code_verifier: self.random_text(),
            nonce: self.random_text(),
            link: (!of_app).then(|| self.random_text()),
            flow_secret: of_app.then(|| self.random_text()),
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
            redirect_uri: self.redirect_uri(&plan.provider),
            configuration: plan.provider.configuration(),
            options: plan.options,
            proof: Proof {
                binding: plan.binding,
                link: secrets.link.as_ref().map(SecretHash::of),
                flow_secret: secrets.flow_secret.as_ref().map(SecretHash::of),
                browser: None,
                completion_code: None,
            },
            code_sealed: None,
            status: FlowStatus::Pending,
            created_at: now,
            expires_at: later(now, self.settings.flow_lifetime),
            ended_at: None,
            key: plan.key,
        };
        // The link first: what can't be built is not stored.
        let started = self.started(&plan.provider, &flow, secrets)?;
        if self.ports.flows.insert_flow(&flow, MAX_PENDING_FLOWS).await? {
            Ok(started)
        } else {
            let retry_after = self.settings.flow_lifetime;
            Err(BrokerError::ResourceExhausted { limit: Limit::PendingConsents, retry_after })
        }
    }

    fn started(
        &self,
        provider: &Provider,
        flow: &Flow,
        secrets: FlowSecrets,
    ) -> Result<StartedFlow, BrokerError> {
        let provider_url = self.provider_url(provider, flow, &secrets)?;
        Ok(StartedFlow {
            id: flow.id,
            binding: flow.proof.binding,
            authorization_url: secrets.link.map_or(provider_url, |handle| self.link_url(&handle)),
            flow_secret: secrets.flow_secret,
            expires_at: flow.expires_at,
            scopes: flow.scopes.clone(),
        })
    }

    /// Where the browser consents.
    pub(super) fn provider_url(
        &self,
        provider: &Provider,
        flow: &Flow,
        secrets: &FlowSecrets,
    ) -> Result<SecretString, BrokerError> {
        let request = AuthorizationRequest {
            endpoints: &flow.endpoints,
            redirect_uri: &flow.redirect_uri,
            secrets,
            scopes: &flow.scopes,
            login_hint: flow.options.login_hint.as_deref(),
        };
        self.ports.oauth.authorization_url(provider, request).map_err(|error| {
            tracing::error!(provider = %provider.id, %error, "the authorization URL could not be built");
            BrokerError::Internal
        })
    }

    /// 256 random bits in base64url: 43 characters, fit for a state, a PKCE verifier (RFC 7636 section 4.1), a
    /// nonce and all else that must not be guessed.
    pub(super) fn random_text(&self) -> SecretString {
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

/// Whether a text can be a state, a handle or a key of this broker's making.
pub(super) fn is_random_text(text: &SecretString) -> bool {
    let text = text.expose_secret();
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
