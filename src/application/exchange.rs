//! The exchange of a proved flow's code, and what becomes of the tokens.
//!
//! 1. **Exchange** the code at the endpoint that was recorded when the flow began. An answer beyond the limits of
//!    `domain/token_set.rs` is refused.
//! 2. **Identify** the account; another one than the connected one is refused.
//! 3. **Store** the grant and end the flow in one transaction.
//!
//! Whatever fails after step 1 revokes the new grant: nobody could use it. Runs in a task of its own, so that a browser or
//! application that hangs up interrupts nothing.

use std::sync::Arc;

use super::Broker;
use super::consent_types::CallbackOutcome;
use super::link::failed;
use super::metrics;
use super::sealing::{PlainTokens, Profile};
use crate::domain::audit::Outcome;
use crate::domain::flow::{Flow, FlowFailure, FlowSecrets, FlowStatus};
use crate::domain::key::{CredentialId, GrantId};
use crate::domain::ports::{GrantCondition, NewGrant, ProviderFailure, StoreError, StoredGrant};
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;
use crate::domain::step::Step;
use crate::domain::token_set::{AccessLife, ProviderAccount, TokenResponse};

/// A flow with all that its next step needs.
pub(super) struct Spent {
    pub(super) flow: Flow,
    pub(super) provider: Arc<Provider>,
    pub(super) secrets: FlowSecrets,
}

impl Broker {
    /// Exchanges the code of a flow that this task has spent, and ends the flow.
    pub(super) async fn exchange(self: &Arc<Self>, spent: &Spent, code: &SecretString) -> CallbackOutcome {
        let Spent { flow, provider, .. } = spent;
        let exchanged = self
            .ports
            .oauth
            .exchange_code(provider, &flow.endpoints, &flow.redirect_uri, code, &spent.secrets.code_verifier)
            .await;
        match exchanged {
            Ok(response) => self.keep_grant(spent, response).await,
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

    /// Steps 2 and 3.
    async fn keep_grant(self: &Arc<Self>, spent: &Spent, response: TokenResponse) -> CallbackOutcome {
        let Spent { flow, provider, secrets } = spent;
        let obtained_at = self.ports.clock.now();
        // Nothing is lost yet, and a grant that is kept in part from its first day would only puzzle.
        if let Some(excess) = response.excess {
            tracing::warn!(flow = %flow.id, provider = %provider.id, ?excess, "a new grant is beyond the limits");
            self.give_back(spent, &response).await;
            return self.fail(flow, provider, FlowFailure::ExchangeFailed, "exchange_failed").await;
        }
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
                metrics::consent(flow, "completed");
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
                metrics::consent(flow, "cancelled_meanwhile");
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
        // With the key of the flow: if it is deleted meanwhile, the flow is gone with it, and nothing is stored.
        let sealer = self.ports.cipher.sealer(&flow.key, Some(&flow.secrets_sealed)).await?;
        let tokens = self.seal_grant(&*sealer, provider, (&flow.key, flow.grant_id), plain).await?;
        let mut grant = NewGrant {
            id_if_new: CredentialId::from_random(self.random()),
            key: flow.key.clone(),
            grant_id: flow.grant_id,
            configuration: flow.configuration,
            tokens,
            user_key: None,
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
                // A user is deleted with the flows.
                StoredGrant::KeyDeleted => return Ok(Stored::FlowEnded),
            }
        }
    }

    /// Compares a new account with the one that the key has tokens of.
    async fn compare(&self, flow: &Flow, account: &ProviderAccount) -> Result<Compared, StoreFailure> {
        let row = self.ports.credentials.load(&flow.key).await?;
        let Some((row, tokens)) = row.as_ref().and_then(|row| Some((row, row.tokens()?))) else {
            return Ok(Compared::Same { over: None });
        };
        // What two apps call one account need not be the same (OpenID Connect Core section 8.1).
        let comparable = row.configuration == flow.configuration;
        let held = self.open_profile(row, tokens).await?.subject.filter(|_| comparable);
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
        self.end_exchanging(flow, FlowStatus::Failed(failure), outcome).await;
        failed(provider, flow)
    }

    /// Ends a flow that this task has spent.
    pub(super) async fn end_exchanging(&self, flow: &Flow, status: FlowStatus, outcome: &'static str) {
        let now = self.ports.clock.now();
        if let Err(error) = self.ports.flows.end_flow(flow.id, FlowStatus::Exchanging, status, now).await {
            // The sweeper marks it as interrupted.
            tracing::error!(flow = %flow.id, %error, "the end of a flow could not be stored");
        }
        self.tell_end(flow, status, outcome);
    }

    /// Tells operators and watches how a flow ended.
    pub(super) fn tell_end(&self, flow: &Flow, status: FlowStatus, outcome: &'static str) {
        let decided = if status == FlowStatus::Denied { Outcome::Denied } else { Outcome::Failed };
        self.audit_consent(flow, decided, outcome);
        metrics::consent(flow, outcome);
        tracing::info!(flow = %flow.id, provider = %flow.key.provider, outcome, "consent ended");
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
    Cipher(#[from] crate::domain::cipher::CipherError),
}
