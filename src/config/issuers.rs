//! `[issuers.<name>]`: whose JWTs tell who calls, and for which user. `[jwt]`: how long their keys are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::reader::Section;
use crate::domain::jwt::SigningAlgorithm;
use crate::domain::key::IssuerName;
use crate::domain::loopback::is_loopback;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct IssuerEntry {
    /// The first part of the ids of its users.
    pub name: IssuerName,
    /// `iss`, to the letter.
    pub issuer: String,
    /// The token has to name one of these; never empty.
    pub audiences: Vec<String>,
    /// The token has to be signed by one of these; never empty.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Where its keys are.
    pub keys: KeyPlace,
    /// PEM file with the authorities that its server is verified with, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// File with a token that its server wants to see.
    pub bearer_token_file: Option<PathBuf>,
    /// How far the clocks may differ.
    pub leeway: Duration,
    /// A token that is good for longer is refused.
    pub max_lifetime: Duration,
    /// Its tokens tell callers.
    pub for_callers: bool,
    /// Its tokens tell users.
    pub for_users: bool,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// Where the issuer's metadata says.
    Discovered,
    /// At this URL.
    Url(Url),
    /// In this file.
    File(PathBuf),
}

/// How long keys are kept. See `default.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Jwt {
    /// Older ones are fetched anew.
    pub key_refresh: Duration,
    /// Older ones are good no more.
    pub key_max_age: Duration,
    /// An unknown key is looked for at most so often.
    pub unknown_key_pause: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
/// Where an issuer does not say.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);
/// Where an issuer does not say.
pub(super) const MAX_LIFETIME: Duration = DAY;
/// The longest `iss` and `aud`, in bytes.
const MAX_TEXT_BYTES: usize = 512;

pub(super) fn read_jwt(section: &Section<'_>) -> Option<Jwt> {
    let key_refresh = section.required("key_refresh").duration(SECOND..=DAY);
    let max_age = section.required("key_max_age");
    let key_max_age = max_age.duration(SECOND..=Duration::from_hours(24 * 30));
    let unknown_key_pause = section.required("unknown_key_pause").duration(SECOND..=Duration::from_hours(1));
    if key_refresh.zip(key_max_age).is_some_and(|(refresh, max)| max <= refresh) {
        max_age.problem("must be longer than jwt.key_refresh: else each hiccup of an issuer is an outage");
    }
    section.finish();
    Some(Jwt { key_refresh: key_refresh?, key_max_age: key_max_age?, unknown_key_pause: unknown_key_pause? })
}

pub(super) fn read(section: &Section<'_>) -> Option<Vec<IssuerEntry>> {
    let mut owners = BTreeMap::new();
    section.entries(|name, section| read_entry(name, section, &mut owners))
}

fn read_entry(
    name: &str,
    section: &Section<'_>,
    owners: &mut BTreeMap<(String, &'static str), String>,
) -> Option<IssuerEntry> {
    let slug = IssuerName::new(name).map_err(|e| section.problem(format!("the name of an issuer {e}"))).ok();
    let issuer_key = section.required("issuer");
    let issuer = issuer_key.parsed(|text| plain(text).map(str::to_owned));
    let audiences_key = section.required("audiences");
    let audiences = audiences_key.list(|text| plain(text).map(str::to_owned));
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        audiences_key.problem("needs at least one: a token for somebody else would be good here");
    }
    let algorithms_key = section.optional("algorithms");
    let algorithms = if algorithms_key.is_set() {
        algorithms_key.list(algorithm)
    } else {
        Some(SigningAlgorithm::ALL.to_vec())
    };
    if algorithms.as_ref().is_some_and(Vec::is_empty) {
        algorithms_key.problem("needs at least one");
    }
    let (url_key, file_key) = (section.optional("jwks_url"), section.optional("jwks_file"));
    let url = url_key.parsed(key_url);
    let file = file_key.path();
    let keys = match (url_key.is_set(), file_key.is_set()) {
        (false, false) => Some(KeyPlace::Discovered),
        (true, false) => url.map(KeyPlace::Url),
        (false, true) => file.map(KeyPlace::File),
        (true, true) => {
            section.problem("has more than one of jwks_url and jwks_file");
            None
        }
    };
    if let (Some(KeyPlace::Discovered), Some(text)) = (&keys, &issuer)
        && key_url(text).map_or(true, |url| url.query().is_some())
    {
        issuer_key.problem(
            "must be an https URL without query, where its metadata is; or name the keys by jwks_url or jwks_file",
        );
    }
    let ca_file = section.optional("ca_file").path();
    let bearer_token_file = section.optional("bearer_token_file").path();
    let leeway = or_else(section, "leeway", Duration::ZERO..=Duration::from_mins(5), LEEWAY);
    let max_lifetime = or_else(
        section,
        "max_lifetime",
        Duration::from_mins(1)..=Duration::from_hours(24 * 365),
        MAX_LIFETIME,
    );
    let purposes_key = section.required("for");
    let purposes = purposes_key.list(|text| match text {
        "callers" => Ok("callers"),
        "users" => Ok("users"),
        _ => Err("must be callers or users"),
    });
    if purposes.as_ref().is_some_and(Vec::is_empty) {
        purposes_key.problem("needs \"callers\", \"users\" or both");
    }
    for purpose in purposes.iter().flatten() {
        let Some(issuer) = &issuer else { continue };
        if let Some(other) = owners.insert((issuer.clone(), purpose), name.to_owned())
            && other != name
        {
            issuer_key.problem(format!(
                "is also that of issuers.{other}, for {purpose}: one of the two is in vain"
            ));
        }
    }
    section.finish();
    let purposes = purposes?;
    Some(IssuerEntry {
        name: slug?,
        issuer: issuer?,
        audiences: audiences?,
        algorithms: algorithms?,
        keys: keys?,
        ca_file,
        bearer_token_file,
        leeway: leeway?,
        max_lifetime: max_lifetime?,
        for_callers: purposes.contains(&"callers"),
        for_users: purposes.contains(&"users"),
    })
}

fn or_else(
    section: &Section<'_>,
    name: &str,
    range: std::ops::RangeInclusive<Duration>,
    default: Duration,
) -> Option<Duration> {
    let key = section.optional(name);
    if key.is_set() { key.duration(range) } else { Some(default) }
}

/// An `iss` or `aud`.
pub(super) fn plain(text: &str) -> Result<&str, String> {
    if text.len() <= MAX_TEXT_BYTES && text.trim() == text && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(format!(
            "must be at most {MAX_TEXT_BYTES} bytes without control characters and outer white space"
        ))
    }
}

fn algorithm(text: &str) -> Result<SigningAlgorithm, String> {
    SigningAlgorithm::from_name(text).ok_or_else(|| {
        let names: Vec<_> = SigningAlgorithm::ALL.into_iter().map(SigningAlgorithm::name).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// Where keys are fetched: by TLS, or on this machine.
pub(super) fn key_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL, as \"https://issuer.example.com/keys\"")?;
    let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    if !secure {
        return Err("must begin with https:// (http:// is allowed on a loopback host only)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or password");
    }
    if url.fragment().is_some() { Err("must not have a fragment") } else { Ok(url) }
}
