//! CompleteOAuth: the application's proof that the browser that came back belongs to the user, for the binding *app*.
//!
//! 1. **Both halves**: the secret of whoever began and the code that the browser brought. Neither alone is of any use, and the
//!    answer does not say which one was wrong. A wrong one spends nothing.
//! 2. **Spend** the flow's one use by one statement.
//! 3. **User**: the one whose session the application found. Another than the flow's ends the flow.
//! 4. Only now the code is **exchanged**, in a task of its own: an application that hangs up interrupts nothing.
//!
//! Calling again with both halves, as after a lost answer, exchanges nothing: it answers how the consent ended.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::consent_types::{CompleteInput, CompletedFlow};
use super::error::{BrokerError, NotFound, Precondition};
use super::exchange::Spent;
use super::pauses::Pauses;
use super::refused_consent::Refusal;
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::cipher::Field;
use crate::domain::flow::{ConsentBinding, Flow, FlowFailure, FlowStatus, SecretHash};
use crate::domain::key::UserId;
use crate::domain::ports::{Consumed, ProviderStanding};

impl CompleteInput {
    /// What the policy has to allow of what the call says itself. What the flow is for, only the flow says.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question { user: Some(&self.user), ..Question::of(Action::CompleteOauth) }
    }
}

impl Broker {
    /// Completes a consent of the binding *app*; answers how it ended.
    pub async fn complete_oauth(
        self: &Arc<Self>,
        principal: &Principal,
        input: CompleteInput,
    ) -> Result<CompletedFlow, BrokerError> {
        let flow = self.permitted_flow(principal, Action::CompleteOauth, input.flow).await?;
        let status = flow.status_at(self.ports.clock.now());
        match flow.proof.has_halves(&input.flow_secret, &input.completion_code) {
            Some(true) => {}
            Some(false) => {
                self.refused(&flow, Refusal::WrongHalf);
                return Err(BrokerError::CompletionRefused);
            }
            None => return Err(BrokerError::FailedPrecondition(not_due(&flow, status))),
        }
        // Only who has both halves comes here.
        if status == FlowStatus::Returned {
            let completion_code = SecretHash::of(&input.completion_code);
            let (broker, flow, user) = (Arc::clone(self), flow.clone(), input.user.clone());
            let work = self.tasks.spawn(async move { broker.redeem(flow, completion_code, user).await });
            // A task that panicked left its flow `exchanging`; the sweeper marks it as interrupted.
            work.await.map_err(|_| BrokerError::Internal)??;
        }
        let wait = input.time_left.map_or(self.settings.max_wait, |left| left.min(self.settings.max_wait));
        self.completed(flow, &input.user, wait).await
    }

    /// Steps 2 to 4. Whoever comes second finds what the first one does.
    async fn redeem(
        self: &Arc<Self>,
        flow: Flow,
        completion_code: SecretHash,
        user: UserId,
    ) -> Result<(), BrokerError> {
        let provider = self.provider_of_flow(&flow).await?.and_then(ProviderStanding::ready);
        let provider = provider.ok_or(BrokerError::NotFound(NotFound::Provider))?;
        let secrets = self.open_flow_secrets(&flow).await?;
        let sealed = flow.code_sealed.as_ref().ok_or(BrokerError::Internal)?;
        let code = self.open_text(&flow.key, flow.grant_id, Field::AuthorizationCode, sealed).await?;
        let now = self.ports.clock.now();
        let Consumed::Won(flow) = self.ports.flows.redeem_flow(flow.id, completion_code, now).await? else {
            return Ok(());
        };
        if user != flow.key.user {
            self.refused(&flow, Refusal::OtherUserNamed);
            let status = FlowStatus::Failed(FlowFailure::UserMismatch);
            self.end_exchanging(&flow, status, "user_mismatch").await;
            return Ok(());
        }
        self.exchange(&Spent { flow: *flow, provider, secrets }, &code).await;
        Ok(())
    }

    /// How the consent ended, or stands after this wait: another call may be exchanging.
    async fn completed(
        &self,
        flow: Flow,
        user: &UserId,
        wait: Duration,
    ) -> Result<CompletedFlow, BrokerError> {
        let (tenant, id) = (&flow.key.tenant, flow.id);
        let ended = async {
            let mut pauses = Pauses::new();
            loop {
                let flow = self.ports.flows.load_flow(tenant, id).await?;
                let flow = flow.ok_or(BrokerError::NotFound(NotFound::Flow))?;
                if flow.status != FlowStatus::Exchanging {
                    return Ok::<_, BrokerError>(flow);
                }
                pauses.wait().await;
            }
        };
        let flow = match tokio::time::timeout(wait, ended).await {
            Ok(ended) => ended?,
            Err(_elapsed) => Flow { status: FlowStatus::Exchanging, ..flow },
        };
        if flow.status != FlowStatus::Completed {
            return Ok(CompletedFlow { flow: self.view_flow(flow), credential: None });
        }
        // It was completed for another user than this call names: no success for this one.
        if *user != flow.key.user {
            self.refused(&flow, Refusal::OtherUserNamed);
            return Err(BrokerError::CompletionRefused);
        }
        let row = self.ports.credentials.load(&flow.key).await?.filter(|row| row.tokens().is_some());
        let credential = match &row {
            Some(row) => Some(self.view_opened(row).await?),
            None => None,
        };
        Ok(CompletedFlow { flow: self.view_flow(flow), credential })
    }
}

/// Why there is nothing to complete.
fn not_due(flow: &Flow, status: FlowStatus) -> Precondition {
    match (flow.proof.binding, status) {
        (ConsentBinding::App, FlowStatus::Pending) => Precondition::BrowserNotBack,
        (ConsentBinding::Confirm | ConsentBinding::Login, FlowStatus::Pending) => Precondition::OtherBinding,
        _ => Precondition::FlowEnded,
    }
}
