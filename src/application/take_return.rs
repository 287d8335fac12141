//! The callback: what a browser brings back from a provider.
//!
//! 1. **Find** the flow by the hash of its state, at this provider and this configuration's redirect URI. What is forged, late or used changes nothing.
//! 2. **Browser**: with *confirm* and *login* it must be the one that was let in. Any other ends the flow.
//! 3. **Issuer**: `iss` is compared exactly where it is promised or present, on errors too (RFC 9207).
//! 4. With *confirm* and *login*: **spend** the flow's one use by one statement, and exchange the code (`exchange.rs`).
//!    With *app*: **hold** the code, sealed, by one statement, and send the browser to the application with its half of the
//!    proof. Nothing is exchanged before CompleteOAuth (`complete_oauth.rs`) has both.
//!
//! Of many that come at a time one statement passes. All of it runs in a task of its own, so that a browser that hangs up
//! interrupts nothing.

use std::sync::Arc;

use super::begin_oauth::hash_state;
use super::consent_types::{CallbackAnswer, CallbackInput, CallbackOutcome, Returned};
use super::exchange::Spent;
use super::link::{failed, unreadable};
use super::refused_consent::Refusal;
use super::sealing::seal_text;
use super::{Broker, return_url};
use crate::domain::cipher::{Binding, CipherError, Field};
use crate::domain::flow::{ConsentBinding, Flow, FlowFailure, FlowStatus, RecordedEndpoints, SecretHash};
use crate::domain::key::ProviderId;
use crate::domain::ports::{Consumed, HeldCode, ProviderStanding};
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;

use CallbackAnswer::Page;

impl Broker {
    /// Takes what the browser brought from the provider. Runs to its end even if the browser hangs up.
    pub async fn take_callback(self: &Arc<Self>, input: CallbackInput) -> CallbackAnswer {
        let broker = Arc::clone(self);
        let provider_name =
            ProviderId::new(&*input.provider).map_or("The provider".to_owned(), |id| id.to_string());
        let work = self.tasks.spawn(async move { broker.take_return(input).await });
        // A task that panicked left its flow `exchanging`; the sweeper marks it as interrupted.
        work.await.unwrap_or(Page(CallbackOutcome::Failed { provider_name, return_url: None }))
    }

    async fn take_return(self: &Arc<Self>, input: CallbackInput) -> CallbackAnswer {
        let CallbackInput { provider, configuration, answer, browser } = input;
        let (Ok(provider), Some((state, returned, iss))) = (ProviderId::new(provider), answer.read()) else {
            return Page(CallbackOutcome::Invalid);
        };
        let spent = match self.ports.flows.flow_of_state(hash_state(&state), &provider).await {
            // Another app's redirect URI: a mix-up. The code may be another server's, and goes to neither.
            Ok(Some(flow)) if flow.configuration != configuration => Err(CallbackOutcome::Invalid),
            Ok(Some(flow)) => self.still_pending(flow).await,
            Ok(None) => Err(CallbackOutcome::Invalid),
            Err(error) => Err(unreadable(&error)),
        };
        match spent {
            Ok(spent) => {
                let key = browser.get(spent.flow.id);
                self.go_on(spent, returned, iss.as_deref(), key).await
            }
            Err(outcome) => Page(outcome),
        }
    }

    /// The provider and the secrets of a flow. A flow that has none any more ends.
    pub(super) async fn with_provider(&self, flow: Flow) -> Result<Spent, CallbackOutcome> {
        let provider = match self.provider_of_flow(&flow).await {
            Ok(standing) => standing.and_then(ProviderStanding::ready),
            Err(error) => {
                tracing::error!(flow = %flow.id, %error, "a flow's provider could not be looked up");
                return Err(CallbackOutcome::TryAgain);
            }
        };
        let Some(provider) = provider else {
            tracing::warn!(flow = %flow.id, "the provider of a flow is not configured any more");
            let status = FlowStatus::Failed(FlowFailure::ProviderError);
            return Err(self.end_pending(&flow, status, "provider_unknown", CallbackOutcome::Invalid).await);
        };
        match self.open_flow_secrets(&flow).await {
            Ok(secrets) => Ok(Spent { flow, provider, secrets }),
            Err(error) => {
                tracing::error!(flow = %flow.id, %error, "a flow's secrets do not open");
                let failure = FlowFailure::StoreFailed;
                Err(self.fail_pending(&flow, &provider, failure, "secrets_do_not_open").await)
            }
        }
    }

    /// The app that a flow was begun with, and is ended with: its endpoints were recorded, and another app's secret is not for
    /// them.
    pub(super) async fn provider_of_flow(
        &self,
        flow: &Flow,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        let key = &flow.key;
        self.ports.providers.of_configuration(&key.tenant, &key.provider, flow.configuration).await
    }

    async fn go_on(
        self: &Arc<Self>,
        spent: Spent,
        returned: Returned,
        iss: Option<&str>,
        key: Option<&SecretString>,
    ) -> CallbackAnswer {
        let Spent { flow, provider, .. } = &spent;
        if flow.proof.binding != ConsentBinding::App && !flow.proof.is_browser(key) {
            self.refused(flow, Refusal::OtherBrowser);
            let status = FlowStatus::Failed(FlowFailure::BrowserMismatch);
            let page = CallbackOutcome::OtherBrowser;
            return Page(self.end_pending(flow, status, "browser_mismatch", page).await);
        }
        if !issuer_matches(&flow.endpoints, iss) {
            let failure = FlowFailure::IdTokenInvalid;
            return Page(self.fail_pending(flow, provider, failure, "issuer_mismatch").await);
        }
        match returned {
            Returned::Code(code) => match flow.proof.browser {
                Some(browser) => Page(self.spend(spent, browser, &code).await),
                None => self.hold(&spent, &code).await,
            },
            Returned::Error(error) if is_denial(provider, &error) => {
                let page = CallbackOutcome::Denied {
                    provider_name: provider.display_name.clone(),
                    return_url: flow.options.return_url.clone(),
                };
                Page(self.end_pending(flow, FlowStatus::Denied, "denied", page).await)
            }
            Returned::Error(_) => {
                let failure = FlowFailure::ProviderError;
                Page(self.fail_pending(flow, provider, failure, "provider_error").await)
            }
        }
    }

    async fn spend(
        self: &Arc<Self>,
        spent: Spent,
        browser: SecretHash,
        code: &SecretString,
    ) -> CallbackOutcome {
        let Spent { flow, provider, secrets } = spent;
        let (state, at, now) = (flow.state_hash, &flow.key.provider, self.ports.clock.now());
        match self.ports.flows.consume_flow(state, at, browser, now).await {
            Ok(Consumed::Won(flow)) => self.exchange(&Spent { flow: *flow, provider, secrets }, code).await,
            Ok(lost) => not_won(&lost),
            Err(error) => unreadable(&error),
        }
    }

    async fn hold(&self, spent: &Spent, code: &SecretString) -> CallbackAnswer {
        let Spent { flow, provider, .. } = spent;
        // Both are there unless the flow was begun by a version that asked for no proof.
        let (Some(_), Some(return_url)) = (flow.proof.flow_secret, &flow.options.return_url) else {
            return Page(self.fail_pending(flow, provider, FlowFailure::Interrupted, "no_proof").await);
        };
        let binding = Binding { key: &flow.key, grant: flow.grant_id, field: Field::AuthorizationCode };
        let keys = self.ports.cipher.sealer(&flow.key, Some(&flow.secrets_sealed)).await;
        let code = match keys.and_then(|keys| seal_text(&*keys, binding, code)) {
            Ok(code) => code,
            Err(error) => {
                tracing::error!(flow = %flow.id, %error, "a code could not be sealed");
                return Page(CallbackOutcome::TryAgain);
            }
        };
        let completion_code = self.random_text();
        let held = HeldCode {
            state: flow.state_hash,
            provider: flow.key.provider.clone(),
            code,
            completion_code: SecretHash::of(&completion_code),
        };
        match self.ports.flows.hold_code(held, self.ports.clock.now()).await {
            Ok(Consumed::Won(flow)) => {
                tracing::info!(flow = %flow.id, provider = %flow.key.provider, "the browser is back; its proof is due");
                let url = return_url::with_completion(return_url, flow.id, &completion_code);
                CallbackAnswer::ToApplication(url)
            }
            Ok(lost) => Page(not_won(&lost)),
            Err(error) => Page(unreadable(&error)),
        }
    }

    async fn fail_pending(
        &self,
        flow: &Flow,
        provider: &Provider,
        failure: FlowFailure,
        outcome: &'static str,
    ) -> CallbackOutcome {
        self.end_pending(flow, FlowStatus::Failed(failure), outcome, failed(provider, flow)).await
    }

    /// Ends a pending flow; answers the page, or another one if the flow was not pending any more.
    pub(super) async fn end_pending(
        &self,
        flow: &Flow,
        status: FlowStatus,
        outcome: &'static str,
        page: CallbackOutcome,
    ) -> CallbackOutcome {
        let now = self.ports.clock.now();
        match self.ports.flows.end_flow(flow.id, FlowStatus::Pending, status, now).await {
            Ok(true) => {
                self.tell_end(flow, status, outcome);
                page
            }
            Ok(false) => CallbackOutcome::AlreadyUsed,
            Err(error) => unreadable(&error),
        }
    }
}

/// The page of whoever came second.
fn not_won(lost: &Consumed) -> CallbackOutcome {
    match lost {
        Consumed::Spent(FlowStatus::Expired) => CallbackOutcome::Expired,
        Consumed::Spent(_) | Consumed::Won(_) => CallbackOutcome::AlreadyUsed,
        Consumed::Unknown => CallbackOutcome::Invalid,
    }
}

/// RFC 9207 section 2.4. A provider whose issuer is not known can't be compared with.
pub(super) fn issuer_matches(endpoints: &RecordedEndpoints, iss: Option<&str>) -> bool {
    match (&endpoints.issuer, iss) {
        (Some(expected), Some(given)) => expected == given,
        (_, None) => !endpoints.iss_required,
        (None, Some(_)) => true,
    }
}

/// RFC 6749 section 4.1.2.1, or the provider's own word for it.
fn is_denial(provider: &Provider, error: &str) -> bool {
    provider.response.error_aliases.get(error).map_or(error, String::as_str) == "access_denied"
}
