//! Where an issuer's keys come from: a file, a URL, or the issuer's own metadata.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::Issuer;
use super::jwks::{self, Key, Uses};
use crate::infra::outbound::{Http, Reach, Request, Route, is_allowed};

/// For all of a fetch: one request, or two with discovery.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the keys are.
#[derive(Debug, Clone)]
pub enum KeyLocation {
    /// In a file, as a JWK Set.
    File(PathBuf),
    /// At a URL that the operator has written.
    Url(Url),
    /// Where the issuer's metadata says (OpenID Connect Discovery 1.0 section 4).
    Discovered(String),
}

/// What it takes to get them.
#[derive(Debug, Clone)]
pub struct KeyAccess {
    /// Where.
    pub location: KeyLocation,
    /// PEM file with the authorities that are trusted for this, instead of the system's. Read for each fetch, so that a
    /// cluster can replace its authority.
    pub ca_file: Option<PathBuf>,
    /// File with a token that is sent along. Read for each fetch: a projected token changes every hour.
    pub bearer_token_file: Option<PathBuf>,
}

/// Why there are no keys. Fixed words: nothing that the issuer sent is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchProblem {
    /// The file can't be read.
    #[error("the file with the keys cannot be read")]
    KeyFile,
    /// The CA file can't be read or used.
    #[error("ca_file cannot be read, or has no certificate")]
    CaFile,
    /// The token file can't be read or used.
    #[error("bearer_token_file cannot be read, or has no token")]
    BearerTokenFile,
    /// The URL is none that is asked.
    #[error("the URL is not https, or has a user name or password")]
    BadUrl,
    /// Nobody there.
    #[error("the server could not be reached, or answered with an error")]
    NoAnswer,
    /// The metadata can't be read.
    #[error("the metadata is not a JSON object with `issuer` and `jwks_uri`, or too long")]
    BadMetadata,
    /// The metadata is somebody else's.
    #[error("the metadata is another issuer's; `issuer` must be written exactly as in the metadata")]
    OtherIssuer,
    /// The metadata points where it may not.
    #[error("`jwks_uri` in the metadata is not an https URL, or points into this network from outside")]
    BadJwksUri,
    /// No keys in it.
    #[error("the answer or file is not a JWK Set, or too long")]
    NotASet,
}

/// Gets the keys, once.
pub(super) async fn fetch(http: &Http, access: &KeyAccess, uses: Uses) -> Result<Vec<Key>, FetchProblem> {
    let json = match &access.location {
        KeyLocation::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            Zeroizing::new(read.ok().and_then(Result::ok).ok_or(FetchProblem::KeyFile)?)
        }
        KeyLocation::Url(url) => Door::open(http, access, url)?.get(url.clone()).await?,
        KeyLocation::Discovered(issuer) => discovered(http, access, issuer).await?,
    };
    jwks::parse(&json, uses).ok_or(FetchProblem::NotASet)
}

async fn discovered(
    http: &Http,
    access: &KeyAccess,
    issuer: &str,
) -> Result<Zeroizing<Vec<u8>>, FetchProblem> {
    let metadata = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let metadata = Url::parse(&metadata).map_err(|_| FetchProblem::BadUrl)?;
    let door = Door::open(http, access, &metadata)?;
    let json = door.get(metadata.clone()).await?;
    let json: Value = serde_json::from_slice(&json).map_err(|_| FetchProblem::BadMetadata)?;
    let text = |name| json.get(name).and_then(Value::as_str).ok_or(FetchProblem::BadMetadata);
    // Section 4.3: identical, not equivalent. Else one issuer could give itself out for another.
    if text("issuer")? != issuer {
        return Err(FetchProblem::OtherIssuer);
    }
    let keys = Url::parse(text("jwks_uri")?).map_err(|_| FetchProblem::BadJwksUri)?;
    // A server elsewhere has no business to point the broker into this network; to itself it may.
    let reach = Reach::by_origin(&[metadata], &keys);
    if !door.http.admits(&keys, reach) {
        return Err(FetchProblem::BadJwksUri);
    }
    door.get_by(reach, keys).await
}

/// A client, and what it shows to whom.
struct Door {
    http: Http,
    /// Who asks, and the only server that it is told.
    bearer: Option<(HeaderValue, url::Origin)>,
    until: Instant,
}

impl Door {
    fn open(http: &Http, access: &KeyAccess, to: &Url) -> Result<Self, FetchProblem> {
        let bearer = access.bearer_token_file.as_deref().map(bearer).transpose()?;
        let http = match &access.ca_file {
            None => http.clone(),
            Some(file) => trusting(http, file)?,
        };
        let until = http.until(FETCH_TIMEOUT);
        Ok(Self { http, bearer: bearer.map(|value| (value, to.origin())), until })
    }

    async fn get(&self, url: Url) -> Result<Zeroizing<Vec<u8>>, FetchProblem> {
        self.get_by(Reach::Configured, url).await
    }

    async fn get_by(&self, reach: Reach, url: Url) -> Result<Zeroizing<Vec<u8>>, FetchProblem> {
        if !is_allowed(&url) {
            return Err(FetchProblem::BadUrl);
        }
        let origin = url.origin();
        let mut request = Request::get(url);
        if let Some((value, whose)) = &self.bearer
            && *whose == origin
        {
            request.headers.insert(AUTHORIZATION, value.clone());
        }
        let answer = self
            .http
            .send_by(Route { reach, certificate: None }, request, self.until)
            .await
            .map_err(|_| FetchProblem::NoAnswer)?;
        if answer.status != StatusCode::OK {
            return Err(FetchProblem::NoAnswer);
        }
        answer.body.ok_or(FetchProblem::NotASet)
    }
}

fn bearer(file: &Path) -> Result<HeaderValue, FetchProblem> {
    let token =
        std::fs::read_to_string(file).map(Zeroizing::new).map_err(|_| FetchProblem::BearerTokenFile)?;
    let token = token.trim();
    if token.is_empty() {
        return Err(FetchProblem::BearerTokenFile);
    }
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| FetchProblem::BearerTokenFile)?;
    value.set_sensitive(true);
    Ok(value)
}

fn trusting(http: &Http, ca_file: &Path) -> Result<Http, FetchProblem> {
    let pem = std::fs::read_to_string(ca_file).map_err(|_| FetchProblem::CaFile)?;
    http.trusting_only(pem).map_err(|_| FetchProblem::CaFile)
}

/// Whether a file of an issuer's keys can be used.
pub fn check_file(path: &Path, who: &Issuer) -> Result<(), FetchProblem> {
    let json = std::fs::read(path).map(Zeroizing::new).map_err(|_| FetchProblem::KeyFile)?;
    jwks::parse(&json, Uses::of(who)).map(|_| ()).ok_or(FetchProblem::NotASet)
}
