//! One request, sent once.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::clients::Clients;
use super::guard::Reach;
use super::settings::{HttpSettings, HttpSetupError};
use crate::domain::loopback::is_loopback;
use crate::domain::provider::ClientCertificate;

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
    clients: Arc<Clients>,
}

/// By which way a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    /// Who named the destination.
    pub(crate) reach: Reach,
    /// Shown to the server in the TLS handshake, if it asks.
    pub(crate) certificate: Option<&'a ClientCertificate>,
}

impl Route<'static> {
    /// To where the operator said, without a certificate.
    pub(crate) const CONFIGURED: Self = Self { reach: Reach::Configured, certificate: None };
}

impl Http {
    /// Sets it up.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSetupError> {
        Ok(Self { clients: Arc::new(Clients::new(settings)?) })
    }

    /// The same with these authorities (PEM) alone, not the system's.
    pub(crate) fn trusting_only(&self, authorities: String) -> Result<Self, HttpSetupError> {
        let settings = self.clients.settings().clone();
        Self::new(HttpSettings { authorities: Some(authorities), authorities_alone: true, ..settings })
    }

    /// Whether the URL can be one to send to on such a way.
    pub(crate) fn admits(&self, url: &Url, reach: Reach) -> bool {
        is_allowed(url) && self.clients.settings().guard.admits_url(url, reach)
    }

    /// The moment by which a call with this deadline, begun now, has ended. Timers of the runtime go by its own clock.
    pub(crate) fn until(&self, deadline: Duration) -> Instant {
        Instant::now() + deadline.min(self.clients.settings().total_timeout)
    }

    /// Sends once on a way, and reads the answer, all within the deadline. What a document from outside names goes by
    /// [`Reach::Discovered`].
    pub(crate) async fn send_by(
        &self,
        route: Route<'_>,
        request: Request,
        until: Instant,
    ) -> Result<Answer, SendError> {
        if !self.admits(&request.url, route.reach) || until <= Instant::now() {
            return Err(SendError::NotSent);
        }
        let client = self.clients.client(route).map_err(|_| SendError::NotSent)?;
        let request = client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .build()
            .map_err(|_| SendError::NotSent)?;
        let response = within(until, client.execute(request))
            .await
            .ok_or(SendError::Lost)?
            .map_err(|error| send_error(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = within(until, read(response, self.clients.settings().max_body_bytes)).await;
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
