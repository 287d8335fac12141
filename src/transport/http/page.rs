//! The pages: what happened, and what to do next. Templates escape every value; a provider's own words are never among
//! them.

use std::borrow::Cow;

use askama::Template;
use http::StatusCode;
use url::Url;

use crate::application::types::{CallbackOutcome, LinkView};
use crate::domain::flow::ConsentBinding;

/// The one style sheet, inside the page. The policy header names it by its hash.
pub(super) const STYLE: &str = include_str!("templates/page.css");

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// Connected.
    Connected {
        /// For people.
        provider: String,
        /// For people.
        services: Vec<String>,
        /// Who consented.
        account: Option<String>,
        /// Where to go on.
        back: Option<Back>,
    },
    /// The page in front of a consent.
    Link(Box<Link>),
    /// The user said no.
    Denied {
        /// For people.
        provider: String,
        /// Where to go on.
        back: Option<Back>,
    },
    /// It went wrong at the provider or here.
    Failed {
        /// For people.
        provider: String,
        /// Where to go on.
        back: Option<Back>,
    },
    /// The link was too old.
    Expired,
    /// The link was used before.
    AlreadyUsed,
    /// Not a link of this broker.
    Invalid,
    /// Came back in another browser.
    OtherBrowser,
    /// Somebody else signed in.
    OtherUser,
    /// The form came without its cookie.
    NoCookie,
    /// Nobody signed in.
    SignInFailed,
    /// The database can't be asked.
    TryAgain,
    /// The broker's own fault.
    Broken,
    /// There is nothing at this address.
    NotFound,
    /// The address takes other methods.
    MethodNotAllowed {
        /// Which.
        allowed: &'static str,
    },
    /// This client asks for too many pages.
    TooMany,
}

/// What the page in front of a consent shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The user has to sign in next.
    signs_in: bool,
    /// For people.
    provider: String,
    /// For people.
    services: Vec<String>,
    /// For whom an account is to be connected.
    user: String,
    /// Whose caller asks: the tenant's name and id.
    organization: String,
    /// Who asks.
    caller: String,
    /// The form's field: of no use without the cookie.
    token: String,
    /// Where the form leads to in the end.
    next: Url,
}

impl Link {
    fn words(&self) -> (Mood, Cow<'static, str>, &'static str, Cow<'static, str>) {
        let lead = if self.signs_in {
            "Check what this is for. Then sign in, so that we know it is you."
        } else {
            "Check whom and what this is for before you go on."
        };
        (Mood::Neutral, format!("Connect {}?", self.provider).into(), lead, Cow::default())
    }
}

impl From<LinkView> for Page {
    fn from(view: LinkView) -> Self {
        let tenant = view.tenant.to_string();
        let organization = match view.tenant_name {
            Some(name) if name != tenant => format!("{name} ({tenant})"),
            _ => tenant,
        };
        Self::Link(Box::new(Link {
            organization,
            signs_in: view.binding == ConsentBinding::Login,
            provider: view.provider_name,
            services: view.service_names,
            user: view.user.to_string(),
            caller: view.caller.to_string(),
            token: view.form_token.expose_secret().to_owned(),
            next: view.next,
        }))
    }
}

/// Where a page links to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Back {
    url: Url,
    host: String,
}

impl Back {
    /// Only what a browser opens as a web page: the allow-list has seen to that, and this is the last door.
    fn new(url: Option<Url>) -> Option<Self> {
        let url = url.filter(|url| matches!(url.scheme(), "https" | "http"))?;
        let host = url.host_str()?.to_owned();
        Some(Self { url, host })
    }
}

impl From<CallbackOutcome> for Page {
    fn from(outcome: CallbackOutcome) -> Self {
        match outcome {
            CallbackOutcome::Connected { provider_name, service_names, account_label, return_url } => {
                Self::Connected {
                    provider: provider_name,
                    services: service_names,
                    account: account_label.filter(|label| !label.is_empty()),
                    back: Back::new(return_url),
                }
            }
            CallbackOutcome::Denied { provider_name, return_url } => {
                Self::Denied { provider: provider_name, back: Back::new(return_url) }
            }
            CallbackOutcome::Failed { provider_name, return_url } => {
                Self::Failed { provider: provider_name, back: Back::new(return_url) }
            }
            CallbackOutcome::Expired => Self::Expired,
            CallbackOutcome::AlreadyUsed => Self::AlreadyUsed,
            CallbackOutcome::Invalid => Self::Invalid,
            CallbackOutcome::OtherBrowser => Self::OtherBrowser,
            CallbackOutcome::OtherUser => Self::OtherUser,
            CallbackOutcome::NoCookie => Self::NoCookie,
            CallbackOutcome::SignInFailed => Self::SignInFailed,
            CallbackOutcome::TryAgain => Self::TryAgain,
        }
    }
}

/// The colour and the sign of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    Neutral,
    Bad,
}

impl Mood {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Neutral => "neutral",
            Self::Bad => "bad",
        }
    }
}

/// What the template is filled with.
#[derive(Template)]
#[template(path = "page.html", config = "src/transport/http/askama.toml")]
struct View<'a> {
    name: &'static str,
    mood: Mood,
    title: Cow<'static, str>,
    lead: &'a str,
    advice: Cow<'static, str>,
    account: Option<&'a str>,
    services: &'a [String],
    link: Option<&'a Link>,
    back: Option<&'a Back>,
    reload: bool,
    style: &'static str,
}

impl Page {
    /// What it is called in logs, metrics and the page's `data-page`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Link(link) if link.signs_in => "sign-in",
            Self::Link(_) => "confirm",
            Self::Denied { .. } => "denied",
            Self::Failed { .. } => "failed",
            Self::Expired => "expired",
            Self::AlreadyUsed => "already-used",
            Self::Invalid => "invalid",
            Self::OtherBrowser => "other-browser",
            Self::OtherUser => "other-user",
            Self::NoCookie => "no-cookie",
            Self::SignInFailed => "sign-in-failed",
            Self::TryAgain => "try-again",
            Self::Broken => "broken",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed { .. } => "method-not-allowed",
            Self::TooMany => "too-many",
        }
    }

    /// The HTTP status. Not 502 or 504, which proxies like to replace by pages of their own.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            // That the user said no is an outcome like any other, and the request was carried out.
            Self::Connected { .. } | Self::Link(_) | Self::Denied { .. } => StatusCode::OK,
            Self::Failed { .. } | Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Expired | Self::AlreadyUsed => StatusCode::GONE,
            Self::Invalid | Self::NoCookie | Self::SignInFailed => StatusCode::BAD_REQUEST,
            Self::OtherBrowser | Self::OtherUser => StatusCode::FORBIDDEN,
            Self::TryAgain => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Where the page's form leads to in the end, if it has one.
    pub(super) fn form_target(&self) -> Option<&Url> {
        self.link().map(|link| &link.next)
    }

    fn link(&self) -> Option<&Link> {
        match self {
            Self::Link(link) => Some(link),
            _ => None,
        }
    }

    /// The HTML.
    pub(super) fn render(&self) -> Result<String, askama::Error> {
        self.view().render()
    }

    fn view(&self) -> View<'_> {
        let (mood, title, lead, advice) = self.words();
        let (account, services, back) = match self {
            Self::Connected { services, account, back, .. } => {
                (account.as_deref(), services.as_slice(), back.as_ref())
            }
            Self::Link(link) => (None, link.services.as_slice(), None),
            Self::Denied { back, .. } | Self::Failed { back, .. } => (None, [].as_slice(), back.as_ref()),
            Self::Expired
            | Self::AlreadyUsed
            | Self::Invalid
            | Self::OtherBrowser
            | Self::OtherUser
            | Self::NoCookie
            | Self::SignInFailed
            | Self::TryAgain
            | Self::Broken
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::TooMany => (None, [].as_slice(), None),
        };
        View {
            name: self.name(),
            mood,
            title,
            lead,
            advice,
            account,
            services,
            link: self.link(),
            back,
            reload: matches!(self, Self::TryAgain | Self::TooMany),
            style: STYLE,
        }
    }

    /// Mood, heading, what happened, what to do next.
    fn words(&self) -> (Mood, Cow<'static, str>, &'static str, Cow<'static, str>) {
        match self {
            Self::Connected { provider, .. } => (
                Mood::Good,
                format!("{provider} is connected").into(),
                "All done. You can close this page and carry on where you left off.",
                format!("Changed your mind? You can withdraw this access at any time at {provider}.").into(),
            ),
            Self::Link(link) => link.words(),
            Self::Denied { provider, .. } => (
                Mood::Neutral,
                format!("{provider} was not connected").into(),
                "You chose not to give access, so nothing was stored.",
                "If that was a mistake, go back to where you came from and start again.".into(),
            ),
            Self::Failed { provider, .. } => (
                Mood::Bad,
                format!("{provider} could not be connected").into(),
                "Something went wrong on the way back to us. Nothing was stored.",
                "Please go back and start again. If it keeps failing, tell whoever sent you here.".into(),
            ),
            Self::Expired => (
                Mood::Neutral,
                "This link has expired".into(),
                "To keep your account safe, a link like this works only for a short while.",
                "Go back to where you got it and ask for a new one.".into(),
            ),
            Self::AlreadyUsed => (
                Mood::Neutral,
                "This link was already used".into(),
                "To keep your account safe, a link like this works only once.",
                "If you are connected, there is nothing left to do. If not, ask for a new link.".into(),
            ),
            Self::Invalid => (
                Mood::Bad,
                "This link is not valid".into(),
                "It may be incomplete, or it was not made for this address. Nothing was changed.",
                "Go back and ask for a new one. If a stranger sent it to you, simply close this page.".into(),
            ),
            Self::OtherBrowser => (
                Mood::Bad,
                "You came back in another browser".into(),
                "The link was opened in one browser and came back in this one. Nothing was connected.",
                "If somebody sent you here, simply close this page. If you began this yourself, ask for a new link and \
                 stay in one browser."
                    .into(),
            ),
            Self::OtherUser => (
                Mood::Bad,
                "This link is for somebody else".into(),
                "You signed in as another user than the one that it was made for. Nothing was connected.",
                "If somebody sent you the link, simply close this page. Otherwise sign in as the right user and ask for a \
                 new link."
                    .into(),
            ),
            Self::NoCookie => (
                Mood::Bad,
                "We don\u{2019}t know this browser".into(),
                "It came without the cookie that our page sets. Nothing was changed.",
                "Open the link that you were given once more, and allow cookies for this address. If a stranger sent it \
                 to you, simply close this page."
                    .into(),
            ),
            Self::SignInFailed => (
                Mood::Neutral,
                "You are not signed in".into(),
                "The sign-in was not finished. Your link has not been used up.",
                "Open the link that you were given once more and try again.".into(),
            ),
            Self::TryAgain => (
                Mood::Neutral,
                "One moment, please".into(),
                "We can\u{2019}t finish this right now. Your link has not been used up.",
                "Wait a few seconds, then try again.".into(),
            ),
            Self::Broken => (
                Mood::Bad,
                "Something went wrong".into(),
                "The mistake is ours, not yours.",
                "Please go back and start again. If it keeps failing, tell whoever sent you here.".into(),
            ),
            Self::NotFound => (
                Mood::Neutral,
                "There is no page here".into(),
                "The address may be mistyped or incomplete.",
                "Check the link that brought you here.".into(),
            ),
            Self::MethodNotAllowed { .. } => (
                Mood::Neutral,
                "Please open this as a link".into(),
                "This address takes no other kind of request. Nothing was changed.",
                "Open the link that you were given in your browser.".into(),
            ),
            Self::TooMany => (
                Mood::Neutral,
                "One moment, please".into(),
                "Too many pages were opened from your address. Your link has not been used up.",
                "Wait a little, then try again.".into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
