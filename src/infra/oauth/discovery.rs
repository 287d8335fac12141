//! The endpoints of an issuer: OpenID Connect Discovery 1.0 section 4, else RFC 8414 section 3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::internal::is_internal;
use super::response::document;
use crate::domain::flow::RecordedEndpoints;
use crate::domain::ports::{Clock, ProviderFailure};
use crate::infra::outbound::{Http, Request, is_allowed};

/// Endpoints are asked for anew after this long.
const FRESH: Duration = Duration::from_hours(1);
/// Endpoints of this age are still good while the issuer does not tell new ones, and for a refresh that holds its claim.
const USABLE: Duration = Duration::from_hours(24);
/// An issuer that failed is not asked again before.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// What is known of one issuer. Times are the clock's monotonic ones.
#[derive(Default)]
struct Slot {
    known: Option<(Arc<RecordedEndpoints>, Duration)>,
    failed_at: Option<Duration>,
}

/// Which endpoints will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Those of the last hour, for something new.
    Fresh,
    /// Those of the last day, for a call that should not wait for a second one.
    Usable,
}

/// The cache. One request at a time for an issuer; who waits for it takes its result.
#[derive(Default)]
pub(super) struct Discovery {
    slots: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Slot>>>>,
}

impl Discovery {
    /// The issuer's endpoints.
    pub(super) async fn endpoints(
        &self,
        http: &Http,
        clock: &dyn Clock,
        issuer: &str,
        need: Need,
        until: Instant,
    ) -> Result<Arc<RecordedEndpoints>, ProviderFailure> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(issuer.to_owned()).or_default())
        };
        let mut slot =
            tokio::time::timeout_at(until, slot.lock()).await.map_err(|_| ProviderFailure::NotSent)?;
        let now = clock.monotonic();
        let known = slot.known.as_ref().map(|(known, at)| (Arc::clone(known), now.saturating_sub(*at)));
        let limit = match need {
            Need::Fresh => FRESH,
            Need::Usable => USABLE,
        };
        if let Some((known, age)) = &known
            && *age < limit
        {
            return Ok(Arc::clone(known));
        }
        let usable = known.filter(|(_, age)| *age < USABLE).map(|(known, _)| known);
        if slot.failed_at.is_some_and(|at| now.saturating_sub(at) < FAILURE_PAUSE) {
            return usable.ok_or(ProviderFailure::NotSent);
        }
        match fetch(http, issuer, until).await {
            Ok(endpoints) => {
                let endpoints = Arc::new(endpoints);
                *slot = Slot { known: Some((Arc::clone(&endpoints), clock.monotonic())), failed_at: None };
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
enum Problem {
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
    #[error("{0} in the metadata is not a URL that secrets may be sent to")]
    BadUrl(&'static str),
}

async fn fetch(http: &Http, issuer: &str, until: Instant) -> Result<RecordedEndpoints, Problem> {
    let url = Url::parse(issuer).map_err(|_| Problem::BadIssuer)?;
    if !is_allowed(&url) || url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::BadIssuer);
    }
    let openid = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let openid = Url::parse(&openid).map_err(|_| Problem::BadIssuer)?;
    let metadata = if let Some(metadata) = get(http, openid, until).await? {
        metadata
    } else {
        let mut oauth = url.clone();
        let path = url.path().trim_end_matches('/');
        oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
        get(http, oauth, until).await?.ok_or(Problem::NoAnswer)?
    };
    read(&url, issuer, &metadata)
}

/// `None`: there is no such document.
async fn get(http: &Http, url: Url, until: Instant) -> Result<Option<Value>, Problem> {
    let answer = http.send(Request::get(url), until).await.map_err(|_| Problem::NoAnswer)?;
    match answer.status {
        StatusCode::OK => document(&answer).filter(Value::is_object).map(Some).ok_or(Problem::Unreadable),
        status if status.is_client_error() => Ok(None),
        _ => Err(Problem::NoAnswer),
    }
}

fn read(issuer_url: &Url, issuer: &str, metadata: &Value) -> Result<RecordedEndpoints, Problem> {
    // OpenID Connect Discovery section 4.3, RFC 8414 section 3.3: identical, not equivalent.
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(Problem::OtherIssuer);
    }
    let optional = |name: &'static str| match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let url = value.as_str().and_then(|text| Url::parse(text).ok()).ok_or(Problem::BadUrl(name))?;
            // A server elsewhere has no business to point the broker into this network.
            let allowed = is_allowed(&url) && url.fragment().is_none();
            if allowed && (is_internal(issuer_url) || !is_internal(&url)) {
                Ok(Some(url))
            } else {
                Err(Problem::BadUrl(name))
            }
        }
    };
    let required = |name: &'static str| optional(name)?.ok_or(Problem::Missing(name));
    let iss = metadata.get("authorization_response_iss_parameter_supported");
    Ok(RecordedEndpoints {
        issuer: Some(issuer.to_owned()),
        iss_required: iss.and_then(Value::as_bool).unwrap_or(false),
        authorization: required("authorization_endpoint")?,
        token: required("token_endpoint")?,
        revocation: optional("revocation_endpoint")?,
        userinfo: optional("userinfo_endpoint")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_server_elsewhere_can_not_point_into_this_network() {
        let issuer = "https://issuer.example";
        let url = Url::parse(issuer).unwrap();
        let metadata = |token: &str| {
            json!({
                "issuer": issuer,
                "authorization_endpoint": "https://issuer.example/authorize",
                "token_endpoint": token,
            })
        };
        assert!(read(&url, issuer, &metadata("https://tokens.example/token")).is_ok());
        for token in [
            "http://127.0.0.1/token",
            "https://localhost/token",
            "https://[::1]/token",
            // Linux connects it to itself.
            "https://0.0.0.0/token",
            "https://10.1.2.3/token",
            "https://169.254.169.254/token",
        ] {
            let problem = read(&url, issuer, &metadata(token)).unwrap_err();
            assert_eq!(problem, Problem::BadUrl("token_endpoint"), "{token}");
        }
        // One that is in the network itself may.
        let inside = "https://10.0.0.1";
        let mut own = metadata("https://10.0.0.2/token");
        own["issuer"] = json!(inside);
        assert!(read(&Url::parse(inside).unwrap(), inside, &own).is_ok());
    }
}
