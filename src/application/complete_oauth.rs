//! The callback: from the browser's return to a stored grant.
//!
//! 1. **Spend the flow's one use** by one statement; whoever comes second, or at another provider, gets nothing.
//! 2. **Issuer**: `iss` is compared exactly where it is promised or present, on errors too (RFC 9207).
//! 3. **Exchange** the code at the endpoint that was recorded when the flow began.
//! 4. **Identify** the account; another one than the connected one is refused.
//! 5. **Store** the grant and end the flow in one transaction.
//!
//! Whatever fails after step 3 revokes the new grant: nobody could use it. All of it runs in a task of its own, so that a
//! browser that hangs up interrupts nothing.

use std::sync::Arc;

use super::begin_oauth::{hash_state, looks_like_state};
use super::sealing::{PlainTokens, Profile};
use super::types::{CallbackInput, CallbackOutcome};
use super::{Broker, metrics};
use crate::domain::audit::Outcome;
use crate::domain::flow::{Flow, FlowFailure, FlowSecrets, FlowStatus};
use crate::domain::key::{CredentialId, GrantId, ProviderId};
use crate::domain::ports::{Consumed, GrantCondition, NewGrant, ProviderFailure, StoreError, StoredGrant};
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;
use crate::domain::step::Step;
use crate::domain::token_set::{AccessLife, ProviderAccount, TokenResponse};

/// What the authorization endpoint answered (RFC 6749 section 4.1.2).
enum Return {
    Code(SecretString),
    Error(String),
}

/// A flow whose one use this task has spent.
struct Spent {
    flow: Flow,
    provider: Arc<Provider>,
    secrets: FlowSecrets,
}

impl Broker {
    /// Takes what the browser brought from the provider. Runs to its end even if the browser hangs up.
    pub async fn complete_oauth(self: &Arc<Self>, input: CallbackInput) -> CallbackOutcome {
        let broker = Arc::clone(self);
        let provider_name =
            ProviderId::new(&*input.provider).map_or("The provider".to_owned(), |id| id.to_string());
        let work = self.tasks.spawn(async move { broker.take_return(input).await });
        // A task that panicked left its flow `exchanging`; the sweeper marks it as interrupted.
        work.await.unwrap_or(CallbackOutcome::Failed { provider_name, return_url: None })
    }

    async fn take_return(self: &Arc<Self>, input: CallbackInput) -> CallbackOutcome {
        let (Ok(provider), Some(state)) = (ProviderId::new(input.provider), input.state) else {
            return CallbackOutcome::Invalid;
        };
        let returned = match (input.error, input.code) {
            (Some(error), _) => Return::Error(error),
            (None, Some(code)) if !code.is_empty() => Return::Code(code),
            (None, _) => return CallbackOutcome::Invalid,
        };
        if !looks_like_state(&state) {
            return CallbackOutcome::Invalid;
        }
        let now = self.ports.clock.now();
        let flow = match self.ports.flows.consume_flow(hash_state(&state), &provider, now).await {
            Ok(Consumed::Won(flow)) => *flow,
            Ok(Consumed::Spent(FlowStatus::Expired | FlowStatus::Pending)) => {
                return CallbackOutcome::Expired;
            }
            Ok(Consumed::Spent(
                FlowStatus::Exchanging
                | FlowStatus::Completed
                | FlowStatus::Denied
                | FlowStatus::Failed(_)
                | FlowStatus::Cancelled,
            )) => return CallbackOutcome::AlreadyUsed,
            Ok(Consumed::Unknown) => return CallbackOutcome::Invalid,
            Err(error) => {
                tracing::error!(%error, "a callback could not look up its flow");
                return CallbackOutcome::TryAgain;
            }
        };
        match self.prepare_exchange(flow).await {
            Ok(spent) => self.go_on(spent, returned, input.iss.as_deref()).await,
            Err(outcome) => outcome,
        }
    }

    async fn prepare_exchange(&self, flow: Flow) -> Result<Spent, CallbackOutcome> {
        let provider = self.ports.providers.provider(&flow.key.tenant, &flow.key.provider);
        let Some(provider) = provider else {
            tracing::warn!(flow = %flow.id, "the provider of a flow is not configured any more");
            self.end(&flow, FlowStatus::Failed(FlowFailure::ProviderError), "provider_unknown").await;
            return Err(CallbackOutcome::Invalid);
        };
        match self.open_flow_secrets(&flow).await {
            Ok(secrets) => Ok(Spent { flow, provider, secrets }),
            Err(error) => {
                tracing::error!(flow = %flow.id, %error, "a flow's secrets do not open");
                Err(self.fail(&flow, &provider, FlowFailure::StoreFailed, "secrets_do_not_open").await)
            }
        }
    }

    async fn go_on(self: &Arc<Self>, spent: Spent, returned: Return, iss: Option<&str>) -> CallbackOutcome {
        let Spent { flow, provider, .. } = &spent;
        if !issuer_matches(flow, iss) {
            return self.fail(flow, provider, FlowFailure::IdTokenInvalid, "issuer_mismatch").await;
        }
        let code = match returned {
            Return::Code(code) => code,
            Return::Error(error) if is_denial(provider, &error) => {
                self.end(flow, FlowStatus::Denied, "denied").await;
                return CallbackOutcome::Denied {
                    provider_name: provider.display_name.clone(),
                    return_url: flow.options.return_url.clone(),
                };
            }
            Return::Error(_) => {
                return self.fail(flow, provider, FlowFailure::ProviderError, "provider_error").await;
            }
        };
        let exchanged = self
            .ports
            .oauth
            .exchange_code(provider, &flow.endpoints, &flow.redirect_uri, &code, &spent.secrets.code_verifier)
            .await;
        match exchanged {
            Ok(response) => self.keep_grant(&spent, response).await,
            Err(
                failure @ (ProviderFailure::InvalidGrant
                | ProviderFailure::ClientRejected
                | ProviderFailure::Refused),
            ) => {
                tracing::warn!(flow = %flow.id, provider = %provider.id, %failure, "the code was not exchanged");
                self.fail(flow, provider, FlowFailure::ExchangeRejected, "exchange_rejected").await
            }
            Err(
                failure @ (ProviderFailure::NotSent
                | ProviderFailure::RateLimited { .. }
                | ProviderFailure::Ambiguous),
            ) => {
                tracing::warn!(flow = %flow.id, provider = %provider.id, %failure, "the code was not exchanged");
                self.fail(flow, provider, FlowFailure::ExchangeFailed, "exchange_failed").await
            }
        }
    }

    /// Steps 4 and 5.
    async fn keep_grant(self: &Arc<Self>, spent: &Spent, response: TokenResponse) -> CallbackOutcome {
        let Spent { flow, provider, secrets } = spent;
        let obtained_at = self.ports.clock.now();
        let account = self.ports.oauth.identify(provider, &flow.endpoints, &response, &secrets.nonce).await;
        let Ok(account) = account else {
            self.give_back(spent, &response).await;
            return self.fail(flow, provider, FlowFailure::IdTokenInvalid, "id_token_invalid").await;
        };
        let scopes_assumed = response.scopes.is_none();
        let scopes = match &response.scopes {
            Some(granted) => provider.normalise_granted(granted, &flow.scopes),
            None => flow.scopes.clone(),
        };
        let services = provider
            .covered_services(&flow.key.grant, &scopes)
            .filter_map(|id| provider.services.get(id).map(|service| service.display_name.clone()))
            .collect();
        let plain = PlainTokens {
            access_token: &response.access_token,
            refresh_token: response.refresh_token.as_ref(),
            token_type: response.token_type.clone(),
            life: AccessLife::starting(obtained_at, response.expires_in),
            scopes,
            scopes_assumed,
            profile: Profile::new(account.clone(), response.extra.clone()),
        };
        match self.store(flow, provider, plain, &account).await {
            Ok(Stored::Yes) => {
                self.tell_watches(&flow.key.tenant);
                metrics::consent(&provider.id, "completed");
                self.audit_consent(flow, Outcome::Allowed, "completed");
                tracing::info!(flow = %flow.id, provider = %provider.id, "consent completed");
                CallbackOutcome::Connected {
                    provider_name: provider.display_name.clone(),
                    service_names: services,
                    account_label: account.label,
                    return_url: flow.options.return_url.clone(),
                }
            }
            Ok(Stored::FlowEnded) => {
                metrics::consent(&provider.id, "cancelled_meanwhile");
                self.audit_consent(flow, Outcome::Failed, "cancelled_meanwhile");
                self.give_back(spent, &response).await;
                CallbackOutcome::AlreadyUsed
            }
            Ok(Stored::OtherAccount) => {
                self.give_back(spent, &response).await;
                self.fail(flow, provider, FlowFailure::AccountMismatch, "account_mismatch").await
            }
            Err(error) => {
                tracing::error!(flow = %flow.id, %error, "a new grant could not be stored");
                self.give_back(spent, &response).await;
                self.fail(flow, provider, FlowFailure::StoreFailed, "store_failed").await
            }
        }
    }

    async fn store(
        &self,
        flow: &Flow,
        provider: &Provider,
        plain: PlainTokens<'_>,
        account: &ProviderAccount,
    ) -> Result<Stored, StoreFailure> {
        let tokens = self.seal_grant(provider, &flow.key, flow.grant_id, plain).await?;
        let mut grant = NewGrant {
            id_if_new: CredentialId::from_random(self.random()),
            key: flow.key.clone(),
            grant_id: flow.grant_id,
            tokens,
            condition: GrantCondition::Flow { id: flow.id, over: None },
            now: self.ports.clock.now(),
        };
        let mut refused_over = None;
        loop {
            let Compared::Same { over } = self.compare(flow, account).await? else {
                return Ok(Stored::OtherAccount);
            };
            // Still the grant that it was compared with: so it was the flow that failed the condition.
            if refused_over == Some(over) {
                return Ok(Stored::FlowEnded);
            }
            grant.condition = GrantCondition::Flow { id: flow.id, over };
            match self.ports.credentials.store_grant(grant.clone()).await? {
                StoredGrant::Stored(row) => {
                    self.ports.steps.reached(Step::GrantStored, row.id);
                    return Ok(Stored::Yes);
                }
                // The flow has ended, or another consent for the key was stored meanwhile, perhaps by another replica:
                // then the account is compared with that one's.
                StoredGrant::ConditionFailed => refused_over = Some(over),
            }
        }
    }

    /// Compares a new account with the one that the key has tokens of.
    async fn compare(&self, flow: &Flow, account: &ProviderAccount) -> Result<Compared, StoreFailure> {
        let row = self.ports.credentials.load(&flow.key).await?;
        let Some((row, tokens)) = row.as_ref().and_then(|row| Some((row, row.tokens()?))) else {
            return Ok(Compared::Same { over: None });
        };
        let held = self.open_profile(row, tokens).await?.subject;
        let another = held.zip(account.subject.as_ref()).is_some_and(|(held, new)| held != *new);
        Ok(if another { Compared::Another } else { Compared::Same { over: Some(row.grant_id) } })
    }

    async fn give_back(self: &Arc<Self>, spent: &Spent, response: &TokenResponse) {
        self.revoke_orphan(
            &spent.provider,
            &spent.flow.key,
            spent.flow.grant_id,
            &response.access_token,
            response.refresh_token.as_ref(),
        )
        .await;
    }

    async fn fail(
        &self,
        flow: &Flow,
        provider: &Provider,
        failure: FlowFailure,
        outcome: &'static str,
    ) -> CallbackOutcome {
        self.end(flow, FlowStatus::Failed(failure), outcome).await;
        CallbackOutcome::Failed {
            provider_name: provider.display_name.clone(),
            return_url: flow.options.return_url.clone(),
        }
    }

    async fn end(&self, flow: &Flow, status: FlowStatus, outcome: &'static str) {
        metrics::consent(&flow.key.provider, outcome);
        let decided = if status == FlowStatus::Denied { Outcome::Denied } else { Outcome::Failed };
        self.audit_consent(flow, decided, outcome);
        tracing::info!(flow = %flow.id, provider = %flow.key.provider, outcome, "consent ended");
        if let Err(error) = self.ports.flows.end_flow(flow.id, status, self.ports.clock.now()).await {
            // The sweeper marks it as interrupted.
            tracing::error!(flow = %flow.id, %error, "the end of a flow could not be stored");
        }
        self.tell_watches(&flow.key.tenant);
    }
}

enum Compared {
    /// The same, or one of the two is not known.
    Same {
        /// What the key has tokens of; `None`: it has none.
        over: Option<GrantId>,
    },
    Another,
}

enum Stored {
    Yes,
    FlowEnded,
    OtherAccount,
}

/// Both mean the same here: the grant can't be kept.
#[derive(Debug, thiserror::Error)]
enum StoreFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cipher(#[from] crate::domain::ports::CipherError),
}

/// RFC 9207 section 2.4. A provider whose issuer is not known can't be compared with.
fn issuer_matches(flow: &Flow, iss: Option<&str>) -> bool {
    match (&flow.endpoints.issuer, iss) {
        (Some(expected), Some(given)) => expected == given,
        (_, None) => !flow.endpoints.iss_required,
        (None, Some(_)) => true,
    }
}

/// RFC 6749 section 4.1.2.1, or the provider's own word for it.
fn is_denial(provider: &Provider, error: &str) -> bool {
    provider.response.error_aliases.get(error).map_or(error, String::as_str) == "access_denied"
}
