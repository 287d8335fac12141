//! The broker's own page in front of a consent, `/connect/{handle}`: for the bindings *confirm* and *login*.
//!
//! 1. **Open**: shows whom and what the link is for. Reading it, however often and by whatever program, spends nothing. The
//!    browser is given a key, to be kept in a cookie.
//! 2. **Follow**: the page's form comes back with that cookie and a token that only the page knew. With *confirm*, the browser
//!    is let in; with *login*, its user has to sign in first (`login_return.rs`).
//! 3. Only a browser that was let in may come back from the provider (`take_return.rs`).
//!
//! What a sign-in needs (state, nonce, verifier) is derived from the browser's key, so that a sign-in belongs to one browser:
//! the answer to somebody else's is none for this one.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Broker;
use super::begin_oauth::is_random_text;
use super::consent_types::{BrowserKeys, CallbackOutcome, LinkView};
use super::exchange::Spent;
use super::login::Login;
use crate::domain::flow::{ConsentBinding, Flow, FlowSecrets, FlowStatus, SecretHash};
use crate::domain::ports::{AuthorizationRequest, StoreError};
use crate::domain::provider::Provider;
use crate::domain::secret::SecretString;

/// What is derived from a browser's key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Derived {
    FormToken,
    LoginState,
    LoginNonce,
    LoginVerifier,
}

impl Derived {
    /// 43 characters of base64url: a hash of 256 random bits, of its own for each purpose.
    pub(super) fn of(self, key: &SecretString) -> SecretString {
        let purpose = match self {
            Self::FormToken => "form token",
            Self::LoginState => "login state",
            Self::LoginNonce => "login nonce",
            Self::LoginVerifier => "login verifier",
        };
        let hash = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(key.expose_secret());
        SecretString::new(BASE64_URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

/// Compares in constant time.
pub(super) fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret().as_bytes().ct_eq(other.expose_secret().as_bytes()).into()
}

impl Broker {
    /// The page behind a link. Changes nothing.
    pub async fn open_link(
        &self,
        handle: &SecretString,
        browser: &BrowserKeys,
    ) -> Result<LinkView, CallbackOutcome> {
        let Spent { flow, provider, .. } = self.linked(handle).await?;
        let next = match self.login_of(&flow)? {
            Some(login) => self.login_endpoint(login).await?,
            None => flow.endpoints.authorization.clone(),
        };
        let now = self.ports.clock.now();
        // Without it the id alone says whose it is.
        let tenant = self.ports.tenants.load_tenant(&flow.key.tenant).await.ok().flatten();
        let tenant_name = tenant.map(|tenant| tenant.display_name).filter(|name| !name.is_empty());
        let browser_key = browser.get(flow.id).cloned().unwrap_or_else(|| self.random_text());
        Ok(LinkView {
            binding: flow.proof.binding,
            flow: flow.id,
            service_names: service_names(&provider, &flow),
            provider_name: provider.display_name.clone(),
            next,
            form_token: Derived::FormToken.of(&browser_key),
            browser_key,
            seconds_left: u64::try_from(flow.expires_at.duration_since(now).as_secs()).unwrap_or(0),
            tenant: flow.key.tenant,
            tenant_name,
            caller: flow.caller,
            user: flow.key.user,
        })
    }

    /// Where a browser goes that has sent the page's form.
    pub async fn follow_link(
        &self,
        handle: &SecretString,
        browser: &BrowserKeys,
        form_token: &SecretString,
    ) -> Result<SecretString, CallbackOutcome> {
        let spent = self.linked(handle).await?;
        let Some(key) = browser.get(spent.flow.id) else { return Err(CallbackOutcome::NoCookie) };
        if !same(&Derived::FormToken.of(key), form_token) {
            return Err(CallbackOutcome::NoCookie);
        }
        match self.login_of(&spent.flow)? {
            Some(login) => self.login_url(login, &spent.flow, key).await,
            None => self.let_in(&spent, key).await,
        }
    }

    /// Lets a browser in that has shown that it is the user's, and sends it to the provider.
    pub(super) async fn let_in(
        &self,
        spent: &Spent,
        key: &SecretString,
    ) -> Result<SecretString, CallbackOutcome> {
        let Spent { flow, provider, secrets } = spent;
        let url = self.provider_url(provider, flow, secrets).map_err(|_| failed(provider, flow))?;
        let now = self.ports.clock.now();
        match self.ports.flows.admit_browser(flow.id, SecretHash::of(key), now).await {
            Ok(true) => Ok(url),
            Ok(false) => Err(CallbackOutcome::AlreadyUsed),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// The flow of a link that still works.
    async fn linked(&self, handle: &SecretString) -> Result<Spent, CallbackOutcome> {
        if !is_random_text(handle) {
            return Err(CallbackOutcome::Invalid);
        }
        let found = self.ports.flows.flow_of_link(SecretHash::of(handle)).await;
        let flow = found.map_err(|error| unreadable(&error))?.ok_or(CallbackOutcome::Invalid)?;
        self.still_pending(flow).await
    }

    /// The flow with all that the next step needs, if it is still to be taken.
    pub(super) async fn still_pending(&self, flow: Flow) -> Result<Spent, CallbackOutcome> {
        match flow.status_at(self.ports.clock.now()) {
            FlowStatus::Pending => {}
            FlowStatus::Expired => return Err(CallbackOutcome::Expired),
            FlowStatus::Returned
            | FlowStatus::Exchanging
            | FlowStatus::Completed
            | FlowStatus::Denied
            | FlowStatus::Failed(_)
            | FlowStatus::Cancelled => return Err(CallbackOutcome::AlreadyUsed),
        }
        self.with_provider(flow).await
    }

    /// Where the user of a flow has to sign in; `None`: nowhere.
    #[expect(clippy::result_large_err, reason = "one for each request of a browser")]
    fn login_of(&self, flow: &Flow) -> Result<Option<&Login>, CallbackOutcome> {
        match flow.proof.binding {
            ConsentBinding::Confirm => Ok(None),
            ConsentBinding::Login => self.settings.login.as_ref().map(Some).ok_or_else(|| {
                tracing::error!(flow = %flow.id, "a flow's user has to sign in, but [login] is not configured any more");
                CallbackOutcome::SignInFailed
            }),
            // It has no such link.
            ConsentBinding::App => Err(CallbackOutcome::Invalid),
        }
    }

    async fn login_endpoint(&self, login: &Login) -> Result<url::Url, CallbackOutcome> {
        match self.ports.oauth.endpoints(&login.provider).await {
            Ok(endpoints) => Ok(endpoints.authorization),
            Err(failure) => {
                tracing::error!(%failure, "the endpoints of the login issuer could not be discovered");
                Err(CallbackOutcome::TryAgain)
            }
        }
    }

    /// Where this browser's user signs in.
    async fn login_url(
        &self,
        login: &Login,
        flow: &Flow,
        key: &SecretString,
    ) -> Result<SecretString, CallbackOutcome> {
        let endpoints = match self.ports.oauth.endpoints(&login.provider).await {
            Ok(endpoints) => endpoints,
            Err(failure) => {
                tracing::error!(%failure, "the endpoints of the login issuer could not be discovered");
                return Err(CallbackOutcome::TryAgain);
            }
        };
        let request = AuthorizationRequest {
            endpoints: &endpoints,
            redirect_uri: &self.login_redirect_uri(),
            secrets: &login_secrets(key),
            scopes: &login.scopes,
            login_hint: None,
        };
        self.ports.oauth.authorization_url(&login.provider, request).map_err(|error| {
            tracing::error!(flow = %flow.id, %error, "the URL of the login issuer could not be built");
            CallbackOutcome::SignInFailed
        })
    }
}

/// State, verifier and nonce of a browser's sign-in.
pub(super) fn login_secrets(key: &SecretString) -> FlowSecrets {
    FlowSecrets {
        state: Derived::LoginState.of(key),
        code_verifier: Derived::LoginVerifier.of(key),
        nonce: Derived::LoginNonce.of(key),
        link: None,
        flow_secret: None,
    }
}

/// The names of a flow's services for people.
pub(super) fn service_names(provider: &Provider, flow: &Flow) -> Vec<String> {
    let name = |id| provider.services.get(id).map(|service| service.display_name.clone());
    flow.services.iter().filter_map(name).collect()
}

/// The page of a consent that can't go on.
pub(super) fn failed(provider: &Provider, flow: &Flow) -> CallbackOutcome {
    CallbackOutcome::Failed {
        provider_name: provider.display_name.clone(),
        return_url: flow.options.return_url.clone(),
    }
}

/// The page while the database can't be asked.
pub(super) fn unreadable(error: &StoreError) -> CallbackOutcome {
    tracing::error!(%error, "a browser's flow could not be looked up or stepped on");
    CallbackOutcome::TryAgain
}
