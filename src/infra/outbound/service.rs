//! The client for services that the operator runs or rents for the broker itself: key services, and the metadata service of
//! the machine. As hardened as the client to providers, with two differences: a service of the operator's own may have an
//! authority of its own, and a metadata service speaks plain HTTP at a link-local address.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::domain::loopback::is_loopback;

/// The services' answers are some kilobytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The client can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceSetupError {
    /// The authorities are not PEM certificates.
    #[error("the file with authorities has no usable PEM certificates")]
    Authorities,
    /// Anything else.
    #[error("the HTTP client could not be set up")]
    Client,
}

/// No usable answer. The texts are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("its address is not allowed")]
    NotAllowed,
    #[error("no connection")]
    NoConnection,
    #[error("no answer in time")]
    TooLate,
    #[error("the answer broke off or is too long")]
    Broken,
}

/// What came back.
pub(crate) struct ServiceAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// The client.
#[derive(Debug, Clone)]
pub(crate) struct ServiceHttp {
    client: reqwest::Client,
    total: Duration,
    metadata: bool,
}

impl ServiceHttp {
    /// For a key service. `authorities`: PEM certificates that are trusted instead of the system's.
    pub(crate) fn new(
        connect: Duration,
        total: Duration,
        authorities: Option<&[u8]>,
    ) -> Result<Self, ServiceSetupError> {
        let builder = builder(connect);
        let builder = match authorities {
            None => builder,
            Some(pem) => {
                let certificates =
                    reqwest::Certificate::from_pem_bundle(pem).map_err(|_| ServiceSetupError::Authorities)?;
                if certificates.is_empty() {
                    return Err(ServiceSetupError::Authorities);
                }
                builder.tls_certs_only(certificates)
            }
        };
        let client = builder.build().or_else(|_| match authorities {
            Some(_) => Err(ServiceSetupError::Authorities),
            // Without root certificates, services on loopback still work, and every TLS handshake fails, as it must.
            None => self::builder(connect).tls_certs_only([]).build().map_err(|_| ServiceSetupError::Client),
        })?;
        Ok(Self { client, total, metadata: false })
    }

    /// The same, for the machine's metadata service too.
    pub(crate) fn for_metadata_too(&self) -> Self {
        Self { metadata: true, ..self.clone() }
    }

    /// Sends once, and reads the answer whatever its status.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<ServiceAnswer, ServiceError> {
        if !(is_allowed(url) || self.metadata && is_metadata_service(url)) {
            return Err(ServiceError::NotAllowed);
        }
        let until = Instant::now() + self.total;
        let request = self.client.request(method, url.clone()).headers(headers).body(body).send();
        let response = timeout_at(until, request).await.map_err(|_| ServiceError::TooLate)?;
        let mut response = response.map_err(|error| {
            if error.is_connect() { ServiceError::NoConnection } else { ServiceError::Broken }
        })?;
        let status = response.status();
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY_BYTES));
        let read = async {
            while let Some(chunk) = response.chunk().await.map_err(|_| ServiceError::Broken)? {
                if chunk.len() > MAX_BODY_BYTES - body.len() {
                    return Err(ServiceError::Broken);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        timeout_at(until, read).await.map_err(|_| ServiceError::TooLate)??;
        Ok(ServiceAnswer { status, body })
    }
}

fn builder(connect: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("token-broker/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .http1_only()
        .connect_timeout(connect)
}

fn is_allowed(url: &Url) -> bool {
    let bare = url.username().is_empty() && url.password().is_none();
    bare && (url.scheme() == "https" && url.host().is_some() || url.scheme() == "http" && is_loopback(url))
}

/// Whether a URL is that of a metadata service: plain HTTP to a link-local address (AWS's are 169.254.169.254, 169.254.170.2
/// and 169.254.170.23, and by IPv6 `fd00:ec2::254` and `fd00:ec2::23`). Nothing beyond the machine's own link is reached there.
pub(crate) fn is_metadata_service(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return false,
    };
    let local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => [
            Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
            Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        ]
        .contains(&address),
    };
    url.scheme() == "http" && url.username().is_empty() && url.password().is_none() && local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_reaches_this_machine_and_its_metadata_services_only() {
        let url = |text: &str| Url::parse(text).unwrap();
        for good in ["http://169.254.169.254/latest", "http://169.254.170.2/v2", "http://[fd00:ec2::254]/"] {
            assert!(is_metadata_service(&url(good)) && !is_allowed(&url(good)), "{good}");
        }
        for bad in [
            "http://10.0.0.1/",
            "http://metadata.example/",
            "http://[fd00:ec2::255]/",
            "http://user@169.254.169.254/",
            "ftp://169.254.169.254/",
            "http://169.255.169.254/",
        ] {
            assert!(!is_metadata_service(&url(bad)) && !is_allowed(&url(bad)), "{bad}");
        }
        for good in ["https://kms.example/", "http://127.0.0.1:1/", "http://localhost/"] {
            assert!(is_allowed(&url(good)), "{good}");
        }
        assert!(!is_allowed(&url("https://user:password@kms.example/")));
    }
}
