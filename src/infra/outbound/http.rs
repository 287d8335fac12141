//! One request, sent once.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::domain::loopback::is_loopback;

/// The limits of a call.
#[derive(Debug, Clone, Copy)]
pub struct HttpSettings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The whole call. A shorter deadline of a single call wins.
    pub total_timeout: Duration,
    /// A longer body makes the answer unreadable.
    pub max_body_bytes: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(30),
            max_body_bytes: 256 * 1024,
        }
    }
}

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be set up")]
pub struct HttpSetupError(#[source] reqwest::Error);

/// A request, ready to go.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None`: it was too long, too slow, or broke off.
    pub(crate) body: Option<Zeroizing<Vec<u8>>>,
}

/// Nothing came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    /// No byte of the request was written.
    NotSent,
    /// It may have arrived.
    Lost,
}

/// The hardened client. Clones share it.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    settings: HttpSettings,
}

impl Http {
    /// Sets it up.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSetupError> {
        let client = builder(settings).build().or_else(|error| {
            // A machine without root certificates: providers on loopback (the demo, the tests) still work, and every
            // TLS handshake fails, as it must.
            tracing::warn!(
                cause = %error,
                "no root certificates found, so no provider can be reached by https; install ca-certificates"
            );
            builder(settings).tls_certs_only([]).build().map_err(HttpSetupError)
        })?;
        Ok(Self { client, settings })
    }

    /// The moment by which a call with this deadline, begun now, has ended. Timers of the runtime go by its own clock.
    pub(crate) fn until(&self, deadline: Duration) -> Instant {
        Instant::now() + deadline.min(self.settings.total_timeout)
    }

    /// Sends once and reads the answer, all within the deadline.
    pub(crate) async fn send(&self, request: Request, until: Instant) -> Result<Answer, SendError> {
        if !is_allowed(&request.url) || until <= Instant::now() {
            return Err(SendError::NotSent);
        }
        let request = self
            .client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .build()
            .map_err(|_| SendError::NotSent)?;
        let response = within(until, self.client.execute(request))
            .await
            .ok_or(SendError::Lost)?
            .map_err(|error| send_error(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = within(until, read(response, self.settings.max_body_bytes)).await;
        Ok(Answer { status, headers, body: body.unwrap_or(None) })
    }
}

/// So late a timer is only after the process was paused.
const PAUSED: Duration = Duration::from_millis(100);
/// How long a process that was paused takes to read what has arrived meanwhile.
const CATCH_UP: Duration = Duration::from_millis(250);

/// `None`: not in time. A process that was paused beyond the deadline wakes with the answer in its socket, and with its timer
/// before it: the answer counts, if it is there.
async fn within<F: Future>(until: Instant, work: F) -> Option<F::Output> {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout_at(until, &mut work).await {
        Ok(output) => Some(output),
        Err(_) if Instant::now() > until + PAUSED => tokio::time::timeout(CATCH_UP, work).await.ok(),
        Err(_) => None,
    }
}

fn builder(settings: HttpSettings) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("token-broker/", env!("CARGO_PKG_VERSION")))
        // A redirect would carry codes, tokens and secrets to wherever the answer says.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        // A refresh token is presented once; a second presentation is the protocol's decision, not this layer's.
        .retry(reqwest::retry::never())
        // No connection is used twice: one that the server closes just as a request is written would leave it unknown
        // whether a refresh token was spent. It also makes every connection error one from before the request.
        .pool_max_idle_per_host(0)
        .http1_only()
        .connect_timeout(settings.connect_timeout)
}

/// Only errors from establishing the connection prove that nothing was sent.
fn send_error(error: &reqwest::Error) -> SendError {
    if error.is_connect() || error.is_builder() { SendError::NotSent } else { SendError::Lost }
}

async fn read(mut response: reqwest::Response, max: usize) -> Option<Zeroizing<Vec<u8>>> {
    let announced =
        response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced > max {
        return None;
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() <= max - body.len() => body.extend_from_slice(&chunk),
            Ok(None) => return Some(body),
            Ok(Some(_)) | Err(_) => return None,
        }
    }
}

/// Whether secrets may be sent there: by TLS, or to this machine. Credentials in the URL would end up in logs.
pub(crate) fn is_allowed(url: &Url) -> bool {
    let bare = url.username().is_empty() && url.password().is_none();
    bare && match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_loopback(url),
        _ => false,
    }
}

impl Request {
    /// A request for JSON without a body.
    pub(crate) fn get(url: Url) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
        Self { method: Method::GET, url, headers, body: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine() {
        for good in [
            "https://example.com/token",
            "http://localhost:1/token",
            "http://127.0.0.1/token",
            "http://127.9.9.9/token",
            "http://[::1]:8080/token",
            "http://[::ffff:127.0.0.1]/token",
        ] {
            assert!(is_allowed(&Url::parse(good).unwrap()), "{good}");
        }
        for bad in [
            "http://example.com/token",
            "http://localhost.example.com/token",
            "http://127.0.0.1.example.com/token",
            "http://10.0.0.1/token",
            "http://0.0.0.0/token",
            "http://[::]/token",
            "https://user@example.com/token",
            "https://user:password@example.com/token",
            "https://:password@example.com/token",
            "ftp://localhost/token",
            "file:///etc/passwd",
            "data:text/plain,x",
        ] {
            assert!(!is_allowed(&Url::parse(bad).unwrap()), "{bad}");
        }
    }
}
