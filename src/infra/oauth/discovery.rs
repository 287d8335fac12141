//! The endpoints of an issuer: OpenID Connect Discovery 1.0 section 4, else RFC 8414 section 3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::response::document;
use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::{Clock, ProviderFailure};
use crate::infra::outbound::{Http, Reach, Request, Route, is_allowed};

/// Endpoints are asked for anew after this long.
const FRESH: Duration = Duration::from_hours(1);
/// Endpoints of this age are still good while the issuer does not tell new ones, and for a refresh that holds its claim.
const USABLE: Duration = Duration::from_hours(24);
/// An issuer that failed is not asked again before.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// The longest URL of metadata, in bytes, as of a definition. They are kept in memory for every issuer, and with every flow.
const MAX_URL_BYTES: usize = 2_048;

/// What is known of one issuer. Times are the clock's monotonic ones.
#[derive(Default)]
struct Slot {
    known: Option<(Found, Duration)>,
    failed_at: Option<Duration>,
}

/// An issuer's endpoints.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) usual: Arc<RecordedEndpoints>,
    /// For clients that show a certificate in TLS (RFC 8705 section 5).
    pub(super) by_certificate: Arc<RecordedEndpoints>,
}

/// Which endpoints will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Those of the last hour, for something new.
    Fresh,
    /// Those of the last day, for a call that should not wait for a second one.
    Usable,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) issuer: &'a str,
    /// Who named the issuer.
    pub(super) reach: Reach,
    pub(super) need: Need,
    pub(super) until: Instant,
}

/// An issuer, and who named it.
type Named = (String, Reach);

/// So many issuers are remembered. The operator's are few; tenants may name others, and change their minds.
const MAX_ISSUERS: usize = 10_000;

/// The cache. One request at a time for an issuer; who waits for it takes its result. What the operator named is apart from what a
/// tenant named: the one's metadata may lead where the other's may not.
#[derive(Default)]
pub(super) struct Discovery {
    slots: Mutex<HashMap<Named, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl Discovery {
    /// The issuer's endpoints.
    pub(super) async fn endpoints(
        &self,
        http: &Http,
        clock: &dyn Clock,
        asked: Asked<'_>,
    ) -> Result<Found, ProviderFailure> {
        let Asked { issuer, reach, need, until } = asked;
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (issuer.to_owned(), reach);
            if slots.len() >= MAX_ISSUERS && !slots.contains_key(&key) {
                slots.clear();
            }
            Arc::clone(slots.entry(key).or_default())
        };
        let mut slot =
            tokio::time::timeout_at(until, slot.lock()).await.map_err(|_| ProviderFailure::NotSent)?;
        let now = clock.monotonic();
        let known = slot.known.as_ref().map(|(known, at)| (known.clone(), now.saturating_sub(*at)));
        let limit = match need {
            Need::Fresh => FRESH,
            Need::Usable => USABLE,
        };
        if let Some((known, age)) = &known
            && *age < limit
        {
            return Ok(known.clone());
        }
        let usable = known.filter(|(_, age)| *age < USABLE).map(|(known, _)| known);
        if slot.failed_at.is_some_and(|at| now.saturating_sub(at) < FAILURE_PAUSE) {
            return usable.ok_or(ProviderFailure::NotSent);
        }
        match fetch(http, issuer, reach, until).await {
            Ok(endpoints) => {
                *slot = Slot { known: Some((endpoints.clone(), clock.monotonic())), failed_at: None };
                Ok(endpoints)
            }
            Err(problem) => {
                tracing::warn!(issuer, %problem, "discovery failed");
                slot.failed_at = Some(clock.monotonic());
                usable.ok_or(ProviderFailure::NotSent)
            }
        }
    }
}

/// Why there are no endpoints. Fixed words: nothing that the issuer sent is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("the configured issuer is not an https URL without query and fragment")]
    BadIssuer,
    #[error("the issuer could not be reached, or answered with an error")]
    NoAnswer,
    #[error("the metadata is not a JSON object, or too long")]
    Unreadable,
    #[error("the metadata is another issuer's; `issuer` must be written exactly as in the metadata")]
    OtherIssuer,
    #[error("the metadata lacks {0}")]
    Missing(&'static str),
    #[error("{0} in the metadata is not a URL that secrets may be sent to, or too long")]
    BadUrl(&'static str),
}

async fn fetch(http: &Http, issuer: &str, reach: Reach, until: Instant) -> Result<Found, Problem> {
    let url = Url::parse(issuer).map_err(|_| Problem::BadIssuer)?;
    if !is_allowed(&url) || url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::BadIssuer);
    }
    let openid = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let openid = Url::parse(&openid).map_err(|_| Problem::BadIssuer)?;
    let route = Route { reach, certificate: None };
    let metadata = if let Some(metadata) = get(http, route, openid, until).await? {
        metadata
    } else {
        let mut oauth = url.clone();
        let path = url.path().trim_end_matches('/');
        oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
        get(http, route, oauth, until).await?.ok_or(Problem::NoAnswer)?
    };
    let of_document = |found: &Url| match reach {
        Reach::Configured => Reach::by_origin(std::slice::from_ref(&url), found),
        Reach::Discovered { .. } => reach,
    };
    read(issuer, &metadata, |found| http.admits(found, of_document(found)))
}

/// `None`: there is no such document.
async fn get(http: &Http, route: Route<'_>, url: Url, until: Instant) -> Result<Option<Value>, Problem> {
    let answer = http.send_by(route, Request::get(url), until).await.map_err(|_| Problem::NoAnswer)?;
    match answer.status {
        StatusCode::OK => document(&answer).filter(Value::is_object).map(Some).ok_or(Problem::Unreadable),
        status if status.is_client_error() => Ok(None),
        _ => Err(Problem::NoAnswer),
    }
}

/// `admits`: a server elsewhere has no business to point the broker into this network.
pub(super) fn read(issuer: &str, metadata: &Value, admits: impl Fn(&Url) -> bool) -> Result<Found, Problem> {
    // OpenID Connect Discovery section 4.3, RFC 8414 section 3.3: identical, not equivalent.
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(Problem::OtherIssuer);
    }
    let url_in = |object: &Value, name: &'static str| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let text = value.as_str().filter(|text| text.len() <= MAX_URL_BYTES);
            let url = text.and_then(|text| Url::parse(text).ok()).ok_or(Problem::BadUrl(name))?;
            if admits(&url) && url.fragment().is_none() { Ok(Some(url)) } else { Err(Problem::BadUrl(name)) }
        }
    };
    let optional = |name| url_in(metadata, name);
    let required = |name| optional(name)?.ok_or(Problem::Missing(name));
    let iss = metadata.get("authorization_response_iss_parameter_supported");
    let usual = RecordedEndpoints {
        issuer: Some(issuer.to_owned()),
        iss_required: iss.and_then(Value::as_bool).unwrap_or(false),
        authorization: required("authorization_endpoint")?,
        token: required("token_endpoint")?,
        revocation: optional("revocation_endpoint")?,
        userinfo: optional("userinfo_endpoint")?,
    };
    let mut by_certificate = usual.clone();
    if let Some(aliases) = metadata.get("mtls_endpoint_aliases").filter(|aliases| !aliases.is_null()) {
        let alias = |name| url_in(aliases, name);
        if let Some(token) = alias("token_endpoint")? {
            by_certificate.token = token;
        }
        by_certificate.revocation = alias("revocation_endpoint")?.or(by_certificate.revocation);
        by_certificate.userinfo = alias("userinfo_endpoint")?.or(by_certificate.userinfo);
    }
    Ok(Found { usual: Arc::new(usual), by_certificate: Arc::new(by_certificate) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::outbound::HttpSettings;
    use serde_json::json;

    fn found(issuer: &str, change: impl FnOnce(&mut Value)) -> Result<Found, Problem> {
        let http = Http::new(HttpSettings::default()).unwrap();
        let url = Url::parse(issuer).unwrap();
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
        });
        change(&mut metadata);
        read(issuer, &metadata, |found| {
            http.admits(found, Reach::by_origin(std::slice::from_ref(&url), found))
        })
    }

    #[test]
    fn a_server_elsewhere_can_not_point_into_this_network() {
        let at =
            |issuer: &str, token: &str| found(issuer, |metadata| metadata["token_endpoint"] = json!(token));
        assert!(at("https://issuer.example", "https://tokens.example/token").is_ok());
        for token in [
            "http://127.0.0.1/token",
            "https://localhost/token",
            "https://[::1]/token",
            // Linux connects it to itself.
            "https://0.0.0.0/token",
            "https://10.1.2.3/token",
            "https://169.254.169.254/token",
        ] {
            let problem = at("https://issuer.example", token).unwrap_err();
            assert_eq!(problem, Problem::BadUrl("token_endpoint"), "{token}");
        }
        // One that is in the network itself may lead to itself only; one on this machine, to this machine.
        assert!(at("https://10.0.0.1", "https://10.0.0.1/token").is_ok());
        assert!(at("https://10.0.0.1", "https://10.0.0.1:8443/token").is_err());
        assert!(at("https://10.0.0.1", "https://10.0.0.2/token").is_err());
        assert!(at("http://127.0.0.1:1", "http://127.0.0.1:2/token").is_ok());
        assert!(at("http://127.0.0.1:1", "https://10.0.0.2/token").is_err());
    }

    #[test]
    fn a_client_with_a_certificate_has_endpoints_of_its_own() {
        let issuer = "https://issuer.example";
        let aliases =
            json!({ "token_endpoint": "https://mtls.issuer.example/token", "revocation_endpoint": null });
        let both = found(issuer, |metadata| {
            metadata["revocation_endpoint"] = json!("https://issuer.example/revoke");
            metadata["mtls_endpoint_aliases"] = aliases;
        });
        let both = both.unwrap();
        assert_eq!(both.usual.token.as_str(), "https://issuer.example/token");
        assert_eq!(both.by_certificate.token.as_str(), "https://mtls.issuer.example/token");
        assert_eq!(both.by_certificate.revocation, both.usual.revocation);
        assert_eq!(both.by_certificate.authorization, both.usual.authorization);
        let long = format!("{issuer}/{}", "x".repeat(MAX_URL_BYTES));
        for bad in [
            json!({ "token_endpoint": "https://10.0.0.1/" }),
            json!({ "token_endpoint": long }),
            json!({ "userinfo_endpoint": 1 }),
        ] {
            found(issuer, |metadata| metadata["mtls_endpoint_aliases"] = bad).unwrap_err();
        }
    }
}
