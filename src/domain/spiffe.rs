//! SPIFFE ids: names of workloads, as `spiffe://example.org/ns/agents/sa/mail` (SPIFFE-ID section 2).

use std::fmt;

/// The longest id, in bytes (SPIFFE-ID section 2.3).
const MAX_ID_BYTES: usize = 2_048;
/// The longest trust domain, in bytes (section 2.3).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// What each id begins with. Schemes are lower case in an id (section 2).
const SCHEME: &str = "spiffe://";

/// Who vouches for a workload: the first part of an id, as `example.org`. 1 to 255 of a-z, 0-9, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// Why a text is no trust domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 of a-z, 0-9, '-', '_' and '.', as in example.org, without spiffe://")]
pub struct TrustDomainError;

impl TrustDomain {
    /// Validates a text.
    pub fn new(text: impl Into<String>) -> Result<Self, TrustDomainError> {
        let text = text.into();
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if (1..=MAX_TRUST_DOMAIN_BYTES).contains(&text.len()) && text.bytes().all(fine) {
            Ok(Self(text))
        } else {
            Err(TrustDomainError)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a workload: with a path, since an id without one names the trust domain itself, which never calls (X509-SVID
/// section 4.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    trust_domain: TrustDomain,
}

/// Why a text is no id of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be spiffe://, a trust domain and a path of letters, digits, '-', '_' and '.', as spiffe://example.org/agents"
)]
pub struct SpiffeIdError;

impl SpiffeId {
    /// Validates a text. No two texts are one id: nothing is normalized.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError);
        }
        let (domain, path) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or(SpiffeIdError)?;
        let trust_domain = TrustDomain::new(domain).map_err(|_| SpiffeIdError)?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        // No empty segment, so no slash at the end either (SPIFFE-ID section 2.2).
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(fine);
        if path.split('/').all(segment) {
            Ok(Self { text: text.to_owned(), trust_domain })
        } else {
            Err(SpiffeIdError)
        }
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_a_workload_in_one_way() {
        for good in ["spiffe://example.org/a", "spiffe://a/ns/Agents/sa/mail-1_2.3", "spiffe://1.2.3.4/..."] {
            let id = SpiffeId::parse(good).unwrap();
            assert_eq!(id.as_str(), good);
            assert!(good[9..].starts_with(id.trust_domain().as_str()));
        }
        for bad in [
            "",
            "spiffe://",
            "spiffe:///a",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/./a",
            "spiffe://example.org/a/..",
            "spiffe://example.org/a b",
            "spiffe://example.org/a%20b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/ä",
            "spiffe://example.org:8443/a",
            "spiffe://user@example.org/a",
            "spiffe://Example.org/a",
            "SPIFFE://example.org/a",
            "https://example.org/a",
            " spiffe://example.org/a",
            "spiffe://example.org/a\0",
        ] {
            assert_eq!(SpiffeId::parse(bad), Err(SpiffeIdError), "{bad:?}");
        }
        let at_most = |length: usize| format!("spiffe://e/{}", "a".repeat(length - 11));
        assert!(SpiffeId::parse(&at_most(2_048)).is_ok());
        assert!(SpiffeId::parse(&at_most(2_049)).is_err());
        assert!(TrustDomain::new("a".repeat(255)).is_ok() && TrustDomain::new("a".repeat(256)).is_err());
    }
}
