//! What browsers and applications bring during a consent, and what they are answered.

use std::collections::BTreeMap;

use crate::domain::flow::ConsentBinding;
use crate::domain::key::{CallerId, ConfigId, FlowId, TenantId, UserId};
use crate::domain::secret::SecretString;

use super::types::{CredentialView, FlowView};

/// The keys that a browser shows in its cookies: one for each flow whose page it has opened.
#[derive(Debug, Clone, Default)]
pub struct BrowserKeys(BTreeMap<FlowId, SecretString>);

impl BrowserKeys {
    /// The key for a flow.
    #[must_use]
    pub fn get(&self, flow: FlowId) -> Option<&SecretString> {
        self.0.get(&flow)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &SecretString)> {
        self.0.iter().map(|(flow, key)| (*flow, key))
    }
}

impl FromIterator<(FlowId, SecretString)> for BrowserKeys {
    fn from_iter<I: IntoIterator<Item = (FlowId, SecretString)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// What the browser brought to the callback, as it came: nothing is trusted.
#[derive(Debug, Clone)]
pub struct CallbackInput {
    /// From the path.
    pub provider: String,
    /// From the path, of a tenant's own app.
    pub configuration: Option<ConfigId>,
    /// What an authorization endpoint answers.
    pub answer: AuthorizationAnswer,
    /// From its cookies.
    pub browser: BrowserKeys,
}

/// The parameters of an authorization response (RFC 6749 section 4.1.2), as they came.
#[derive(Debug, Clone)]
pub struct AuthorizationAnswer {
    /// `state`.
    pub state: Option<SecretString>,
    /// `code`.
    pub code: Option<SecretString>,
    /// `error` (RFC 6749 section 4.1.2.1).
    pub error: Option<String>,
    /// `iss` (RFC 9207).
    pub iss: Option<String>,
}

/// What the authorization endpoint said.
#[derive(Debug)]
pub(super) enum Returned {
    Code(SecretString),
    Error(String),
}

impl AuthorizationAnswer {
    /// The state and what was said; `None`: no authorization endpoint answers so. An error with a code beside it is an
    /// error.
    pub(super) fn read(self) -> Option<(SecretString, Returned, Option<String>)> {
        let state = self.state.filter(super::begin_oauth::is_random_text)?;
        let returned = match (self.error, self.code) {
            (Some(error), _) => Returned::Error(error),
            (None, Some(code)) if !code.is_empty() => Returned::Code(code),
            (None, _) => return None,
        };
        Some((state, returned, self.iss))
    }
}

/// Where the browser goes from the callback.
#[derive(Debug, Clone)]
pub enum CallbackAnswer {
    /// It stays at a page of the broker.
    Page(CallbackOutcome),
    /// To the application, with the browser's half in the query.
    ToApplication(SecretString),
}

/// What the page has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// Connected.
    Connected {
        /// The provider's name for people.
        provider_name: String,
        /// The services' names for people.
        service_names: Vec<String>,
        /// The account that consented, if known.
        account_label: Option<String>,
        /// Where to go on.
        return_url: Option<url::Url>,
    },
    /// The user said no.
    Denied {
        /// The provider's name for people.
        provider_name: String,
        /// Where to go on.
        return_url: Option<url::Url>,
    },
    /// The link was too old.
    Expired,
    /// The link was used before, or the flow was cancelled or superseded.
    AlreadyUsed,
    /// Not a link of this broker: no such state at this provider, or parameters missing.
    Invalid,
    /// It went wrong; the user can start again.
    Failed {
        /// The provider's name for people.
        provider_name: String,
        /// Where to go on.
        return_url: Option<url::Url>,
    },
    /// Another browser than the one that was let in. Nothing was exchanged; the flow has ended.
    OtherBrowser,
    /// Another user signed in than the one that the link is for. Nothing was exchanged; the flow has ended.
    OtherUser,
    /// The browser did not bring the cookie that the page had set. Nothing was spent.
    NoCookie,
    /// The sign-in came to nothing. Nothing was spent.
    SignInFailed,
    /// The database can't be asked; the link may still work later.
    TryAgain,
}

/// What the page behind a link shows.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// Confirm or login.
    pub binding: ConsentBinding,
    /// Which consent.
    pub flow: FlowId,
    /// Whose caller asks: ids of callers and users say little, since each tenant chooses its own.
    pub tenant: TenantId,
    /// The tenant's name for people, if it has one.
    pub tenant_name: Option<String>,
    /// Who asks.
    pub caller: CallerId,
    /// For whom an account will be connected.
    pub user: UserId,
    /// The provider's name for people.
    pub provider_name: String,
    /// The services' names for people.
    pub service_names: Vec<String>,
    /// Where the form leads to behind the broker.
    pub next: url::Url,
    /// The browser's key for this flow, to be kept in a cookie: the one that it has shown, or a new one.
    pub browser_key: SecretString,
    /// What the form has to bring along with that cookie: no other site can know it.
    pub form_token: SecretString,
    /// How many seconds the link still works.
    pub seconds_left: u64,
}

/// See `complete_oauth`.
#[derive(Debug, Clone)]
pub struct CompleteInput {
    /// Which consent.
    pub flow: FlowId,
    /// The half of whoever began.
    pub flow_secret: SecretString,
    /// The half of the browser that came back.
    pub completion_code: SecretString,
    /// Whose session that browser has.
    pub user: UserId,
    /// How long the caller waits for an exchange that another call began.
    pub time_left: Option<std::time::Duration>,
}

/// How a completed consent stands.
#[derive(Debug, Clone)]
pub struct CompletedFlow {
    /// The flow, ended as a rule.
    pub flow: FlowView,
    /// What is connected now, if it succeeded.
    pub credential: Option<CredentialView>,
}
