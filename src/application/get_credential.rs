//! GetCredential: a valid token of the user, refreshed first if needed, or the need to consent.

use std::sync::Arc;

use jiff::Timestamp;

use super::Broker;
use super::begin_oauth::ConsentPlan;
use super::error::BrokerError;
use super::metrics;
use super::target::{Target, permit};
use super::token_answer::{Missing, Reading};
use super::types::{AuthorizationRequired, ConsentReason, GetCredentialInput, TokenAnswer};
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::flow::FlowStatus;
use crate::domain::refresh_policy::Demand;

impl GetCredentialInput {
    /// All that the policy has to allow.
    #[must_use]
    pub fn questions(&self) -> Vec<Question<'_>> {
        let read = self.key.question(Action::GetCredential).asking(&self.scopes);
        self.question_of_consent().into_iter().chain([read]).collect()
    }

    /// Whether or not there is a token: what a caller may not do it may not ask for.
    fn question_of_consent(&self) -> Option<Question<'_>> {
        let begins = self.begin_if_missing.is_some();
        begins.then(|| self.key.question(Action::BeginOauth).asking(&self.scopes))
    }
}

impl Broker {
    /// A valid token of the user, refreshed first if needed, or the need to consent.
    pub async fn get_credential(
        self: &Arc<Self>,
        principal: &Principal,
        input: GetCredentialInput,
    ) -> Result<TokenAnswer, BrokerError> {
        if let Some(question) = input.question_of_consent() {
            permit(principal, &question)?;
        }
        let target = self.target(principal, Action::GetCredential, input.key, &input.scopes).await?;
        let user = &target.key.user;
        let consent = input.begin_if_missing;
        let wishes = consent
            .map(|options| self.check_options(options, user, "key.user_id"))
            .transpose()
            .map_err(|mut bad| {
                for violation in &mut bad {
                    violation.field = violation.field.replacen("options", "begin_if_missing", 1);
                }
                BrokerError::InvalidArgument(bad)
            })?;
        let required = target.service_scopes.union(&input.scopes);
        let missing = match self
            .read_token(&target, Demand::ValidFor(input.min_ttl), &required, input.time_left)
            .await?
        {
            Reading::Token(token) => {
                metrics::token_answer("token");
                return Ok(TokenAnswer::Token(token));
            }
            Reading::Missing(missing) => missing,
        };
        metrics::token_answer("authorization_required");
        let mut answer = self.explain(&target, missing).await?;
        if let Some((options, binding)) = wishes {
            let plan = ConsentPlan {
                provider: Arc::clone(&target.provider),
                key: target.key,
                services: [target.asked.service].into(),
                scopes: required,
                options,
                binding,
            };
            answer.flow = Some(self.begin_or_reuse(principal, plan).await?);
        }
        Ok(TokenAnswer::AuthorizationRequired(answer))
    }

    /// Looks at the user's latest consent, which may say more than the row.
    pub(super) async fn explain(
        &self,
        target: &Target,
        missing: Missing,
    ) -> Result<AuthorizationRequired, BrokerError> {
        let reason = match missing.reason {
            ConsentReason::NotConnected | ConsentReason::Revoked => {
                self.latest_answer(target, missing.since).await?.unwrap_or(missing.reason)
            }
            reason => reason,
        };
        Ok(AuthorizationRequired { reason, missing_scopes: missing.lacking, flow: None })
    }

    /// What the user is doing, or did, about a consent begun after this time.
    async fn latest_answer(
        &self,
        target: &Target,
        since: Option<Timestamp>,
    ) -> Result<Option<ConsentReason>, BrokerError> {
        let Some(flow) = self.ports.flows.latest_flow(&target.key).await? else { return Ok(None) };
        if since.is_some_and(|since| flow.created_at < since) {
            return Ok(None);
        }
        Ok(match flow.status_at(self.ports.clock.now()) {
            FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging => {
                Some(ConsentReason::FlowPending)
            }
            FlowStatus::Denied => Some(ConsentReason::ConsentDenied),
            FlowStatus::Completed | FlowStatus::Failed(_) | FlowStatus::Expired | FlowStatus::Cancelled => {
                None
            }
        })
    }
}
