//! The readers of tokens and of issuers' keys, for `fuzz/`.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;

use super::issuer::signed;
use super::jwks::{self, Key, Uses};
use super::{Issuer, IssuerSettings, KeyAccess, KeyLocation, token};
use crate::domain::jwt::SigningAlgorithm;
use crate::domain::secret::SecretString;
use crate::domain::spiffe::TrustDomain;

/// Seconds of the epoch: the tokens of the corpus are good then.
const NOW: i64 = 1_800_000_000;

/// The keys of both issuers. The private one is gone: it has signed the two tokens of [`SIGNED`] and nothing else.
const PUBLISHED: &str = r#"{"keys":[
    {"kty":"EC","crv":"P-256","kid":"k1","use":"sig","alg":"ES256",
        "x":"VWjm5tT92cxoWmRYw_CRd_w9HralFAu2lUvqzEUIxc8","y":"jx4jzuoQYBr-_HSaNR_JmVw-jbty_jG4KQM8u52rFsE"},
    {"kty":"EC","crv":"P-256","kid":"k1","use":"jwt-svid","alg":"ES256",
        "x":"VWjm5tT92cxoWmRYw_CRd_w9HralFAu2lUvqzEUIxc8","y":"jx4jzuoQYBr-_HSaNR_JmVw-jbty_jG4KQM8u52rFsE"}
]}"#;

/// What was signed: header and claims.
const SIGNED: [&str; 2] = [
    concat!(
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwi",
        "c3ViIjoiYWxpY2UiLCJhdWQiOlsidG9rZW4tYnJva2VyIl0sImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAwNjAwfQ"
    ),
    concat!(
        "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIiwidHlwIjoiSk9TRSJ9.eyJzdWIiOiJzcGlmZmU6Ly9leGFtcGxlLm9yZy9hZ2V",
        "udCIsImF1ZCI6InRva2VuLWJyb2tlciIsImV4cCI6MTgwMDAwMDMwMH0"
    ),
];

struct Known {
    settings: IssuerSettings,
    keys: Vec<Key>,
}

fn known(who: Issuer) -> Known {
    let keys = jwks::parse(PUBLISHED.as_bytes(), Uses::of(&who)).unwrap_or_default();
    let settings = IssuerSettings {
        who,
        audiences: vec!["token-broker".to_owned()],
        algorithms: SigningAlgorithm::ALL.to_vec(),
        keys: KeyAccess {
            location: KeyLocation::File(PathBuf::new()),
            ca_file: None,
            bearer_token_file: None,
        },
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_hours(24),
        for_callers: true,
        for_users: true,
    };
    Known { settings, keys }
}

/// A token and, behind a line's end, keys that some issuer serves. Whatever the token says, it passes only if the issuer has
/// signed it; whatever the keys are, what passes keeps to the rules.
pub(crate) fn token(data: &[u8]) {
    static ISSUERS: LazyLock<Vec<Known>> = LazyLock::new(|| {
        let named = Issuer::Named { name: "issuer".to_owned(), url: "https://issuer.example".to_owned() };
        let domain = TrustDomain::new("example.org").ok().map(Issuer::TrustDomain);
        [Some(named), domain].into_iter().flatten().map(known).collect()
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (token, served) = text.split_once('\n').unwrap_or((text, ""));
    let served = [Uses::Signatures, Uses::JwtSvids].map(|uses| jwks::parse(served.as_bytes(), uses));
    let token = SecretString::from(token);
    let (Ok(parts), Ok(now)) = (token::read(&token), Timestamp::from_second(NOW)) else { return };
    for Known { settings, keys } in ISSUERS.iter() {
        assert_eq!(keys.len(), 1, "each issuer has its key");
        let Ok((said, algorithm)) = settings.read(&parts.header, &parts.claims, now) else { continue };
        assert_eq!(parts.header.alg, algorithm.name(), "there is no other algorithm");
        assert!(said.expires + 30 > NOW && said.expires <= NOW + 86_400 + 30, "its end is ahead, and near");
        let shown = !said.subject.is_empty() && !said.subject.chars().any(char::is_control);
        assert!(shown && said.subject.len() <= 2_048, "it says who, in a way that can be shown");
        for keys in served.iter().flatten() {
            let _ = signed(&parts, algorithm, keys);
        }
        if signed(&parts, algorithm, keys).is_ok() {
            assert!(SIGNED.contains(&parts.message), "nobody signed this");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the target would look at nothing.
    #[test]
    fn what_was_signed_passes() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/jwt");
        for (name, who) in [
            ("named", Issuer::Named { name: "issuer".to_owned(), url: "https://issuer.example".to_owned() }),
            ("svid", Issuer::TrustDomain(TrustDomain::new("example.org").unwrap())),
        ] {
            let token = std::fs::read_to_string(corpus.join(name)).unwrap();
            let token = SecretString::from(token.lines().next().unwrap());
            let Known { settings, keys } = known(who);
            let parts = token::read(&token).unwrap();
            let now = Timestamp::from_second(NOW).unwrap();
            let (_, algorithm) = settings.read(&parts.header, &parts.claims, now).unwrap();
            signed(&parts, algorithm, &keys).unwrap();
            assert!(SIGNED.contains(&parts.message));
        }
    }
}
