//! `/connect/{handle}`: the broker's own page in front of a consent. `GET` shows it, as often as anybody likes; its form comes
//! back by `POST` with the cookie that the page has set. No other site can send that form: it would come without the cookie
//! and does not know the token.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::request::Parts;
use http::{Method, header};
use url::form_urlencoded;

use super::page::Page;
use super::public::Answer;
use super::{callback, cookie};
use crate::application::Broker;
use crate::domain::secret::SecretString;

/// The path up to the handle.
pub(super) const PATH_PREFIX: &str = "/connect/";
/// Where a login issuer sends browsers back to.
pub(super) const LOGIN_CALLBACK: &str = "/login/callback";
/// The name of the form's one field.
pub(super) const TOKEN_FIELD: &str = "token";

/// The form has one short field.
const MAX_FORM_BYTES: usize = 1024;
/// How long it may take to arrive.
const FORM_TIME: Duration = Duration::from_secs(10);

/// The page behind a link, and its form.
pub(super) async fn on_link(broker: &Broker, head: &Parts, body: Body, https: bool) -> Answer {
    let handle = SecretString::from(head.uri.path().strip_prefix(PATH_PREFIX).unwrap_or_default());
    let browser = cookie::read(&head.headers, https);
    match head.method {
        Method::GET => match broker.open_link(&handle, &browser).await {
            Ok(view) => {
                let cookie = cookie::set(view.flow, &view.browser_key, view.seconds_left, https);
                Answer { cookie, ..Answer::page(Page::from(view)) }
            }
            Err(outcome) => Answer::page(outcome.into()),
        },
        Method::POST => match token(head, body).await {
            Some(token) => match broker.follow_link(&handle, &browser, &token).await {
                Ok(url) => Answer::redirect(url),
                Err(outcome) => Answer::page(outcome.into()),
            },
            None => Answer::page(Page::Invalid),
        },
        _ => Answer::page(Page::MethodNotAllowed { allowed: "GET, POST" }),
    }
}

/// The way back from a sign-in.
pub(super) async fn on_login(broker: &Broker, head: &Parts, https: bool) -> Answer {
    if head.method != Method::GET {
        return Answer::page(Page::MethodNotAllowed { allowed: "GET" });
    }
    let Some(answer) = callback::answer(head.uri.query()) else { return Answer::page(Page::Invalid) };
    match broker.take_login(answer, &cookie::read(&head.headers, https)).await {
        Ok(url) => Answer::redirect(url),
        Err(outcome) => Answer::page(outcome.into()),
    }
}

/// The form's token; `None`: this is not the page's form.
async fn token(head: &Parts, body: Body) -> Option<SecretString> {
    let kind = head.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return None;
    }
    let body = tokio::time::timeout(FORM_TIME, to_bytes(body, MAX_FORM_BYTES)).await.ok()?.ok()?;
    let mut fields = form_urlencoded::parse(&body).filter(|(name, _)| name == TOKEN_FIELD);
    let (_, token) = fields.next()?;
    fields.next().is_none().then(|| SecretString::new(token.into_owned()))
}
