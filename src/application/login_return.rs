//! The way back from a sign-in, for the binding *login*: is this browser's user the one that the consent is for?
//!
//! The state must be the one that was made for this browser's key, so the code is the answer to a sign-in that this very
//! browser began. Of the ID token issuer, audience, times and nonce are checked, and the signature by the issuer's keys, although
//! it comes from the token endpoint itself (OpenID Connect Core section 3.1.3.7): this is who the user is. Only then is the
//! browser let in.

use super::Broker;
use super::consent_types::{AuthorizationAnswer, BrowserKeys, CallbackOutcome, Returned};
use super::link::{Derived, login_secrets, same, unreadable};
use super::login::Login;
use super::refused_consent::Refusal;
use super::take_return::issuer_matches;
use crate::domain::flow::{ConsentBinding, FlowFailure, FlowStatus};
use crate::domain::key::UserId;
use crate::domain::ports::{TokenError, Verified};
use crate::domain::secret::SecretString;

impl Broker {
    /// Takes what the browser brought from the login issuer; answers where it goes.
    pub async fn take_login(
        &self,
        answer: AuthorizationAnswer,
        browser: &BrowserKeys,
    ) -> Result<SecretString, CallbackOutcome> {
        let Some((state, returned, iss)) = answer.read() else { return Err(CallbackOutcome::Invalid) };
        let found = browser.iter().find(|(_, key)| same(&Derived::LoginState.of(key), &state));
        let Some((id, key)) = found else { return Err(CallbackOutcome::NoCookie) };
        let flow = self.ports.flows.flow_of_browser(id).await.map_err(|error| unreadable(&error))?;
        let flow = flow.filter(|flow| flow.proof.binding == ConsentBinding::Login);
        let spent = self.still_pending(flow.ok_or(CallbackOutcome::Invalid)?).await?;
        let login = self.settings.login.as_ref().ok_or(CallbackOutcome::SignInFailed)?;
        let user = self.signed_in(login, returned, iss.as_deref(), key).await?;
        if user != spent.flow.key.user {
            self.refused(&spent.flow, Refusal::OtherUserSignedIn);
            let status = FlowStatus::Failed(FlowFailure::UserMismatch);
            return Err(self
                .end_pending(&spent.flow, status, "user_mismatch", CallbackOutcome::OtherUser)
                .await);
        }
        self.let_in(&spent, key).await
    }

    /// The user who has signed in.
    async fn signed_in(
        &self,
        login: &Login,
        returned: Returned,
        iss: Option<&str>,
        key: &SecretString,
    ) -> Result<UserId, CallbackOutcome> {
        let failed = |what: &'static str| {
            tracing::warn!(what, "a sign-in failed");
            CallbackOutcome::SignInFailed
        };
        let Returned::Code(code) = returned else { return Err(failed("the issuer answered with an error")) };
        let endpoints = self.ports.oauth.endpoints(&login.provider).await;
        let Ok(endpoints) = endpoints else { return Err(failed("the issuer's endpoints are not known")) };
        if !issuer_matches(&endpoints, iss) {
            return Err(failed("the answer is another issuer's"));
        }
        let secrets = login_secrets(key);
        let redirect_uri = self.login_redirect_uri();
        let exchanged = self
            .ports
            .oauth
            .exchange_code(&login.provider, &endpoints, &redirect_uri, &code, &secrets.code_verifier)
            .await;
        let Ok(response) = exchanged else { return Err(failed("the code was not exchanged")) };
        let Some(id_token) = &response.id_token else { return Err(failed("there is no ID token")) };
        let account = self.ports.oauth.identify(&login.provider, &endpoints, &response, &secrets.nonce).await;
        let subject = account.ok().and_then(|account| account.subject);
        let user = subject.and_then(|subject| login.user_of(&subject));
        let user = user.ok_or_else(|| failed("the ID token is not this sign-in's"))?;
        match login.tokens.user(id_token).await {
            Ok(Verified { who, .. }) if who == user => Ok(user),
            Ok(_) | Err(TokenError::Refused) => Err(failed("the ID token is not signed by the issuer")),
            Err(TokenError::KeysUnavailable) => Err(failed("the keys of the issuer are not known")),
        }
    }
}
