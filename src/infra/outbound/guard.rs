//! Where a request may go: what the operator wrote down goes where it says; what somebody else's document says may not lead
//! into this network.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::domain::loopback::is_loopback;

use super::address::{is_public, plain};

/// Who named a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The operator, in the configuration or in a provider's definition: what it resolves to is meant.
    Configured,
    /// A document from outside, such as an issuer's metadata. Only public addresses and those that the operator allows.
    Discovered {
        /// Loopback is allowed too: what the document belongs to is configured to be on this machine.
        loopback: bool,
    },
}

impl Reach {
    /// An origin that the operator wrote down, as one of these URLs, is reached as such. Every other comes from a document, of an
    /// issuer for example. Those may lead to this machine only if the operator has put what they belong to there, as in a demo.
    #[must_use]
    pub fn by_origin(own: &[Url], url: &Url) -> Self {
        if own.iter().any(|own| own.origin() == url.origin()) {
            Self::Configured
        } else {
            Self::Discovered { loopback: own.iter().any(is_loopback) }
        }
    }
}

/// The destinations in this network that documents from outside may name, from `outbound.allow_private`.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// In lower case, without a dot at the end. Whatever they resolve to.
    pub hosts: Vec<String>,
    /// Under whatever name.
    pub networks: Vec<IpNet>,
}

impl Guard {
    /// Whether a connection to this host may go to this address.
    pub(super) fn admits(&self, host: &str, address: IpAddr, reach: Reach) -> bool {
        let Reach::Discovered { loopback } = reach else { return true };
        let meant = plain(address);
        is_public(address)
            || loopback && meant.is_loopback()
            || self.networks.iter().any(|network| network.contains(&meant))
            || self.names(host)
    }

    /// Whether a URL can be right, as far as it says itself. A name may still resolve to an address that is not admitted.
    pub(crate) fn admits_url(&self, url: &Url, reach: Reach) -> bool {
        let Reach::Discovered { loopback } = reach else { return true };
        match url.host() {
            Some(Host::Ipv4(address)) => self.admits("", address.into(), reach),
            Some(Host::Ipv6(address)) => self.admits("", address.into(), reach),
            Some(Host::Domain(name)) => {
                let bare = name.strip_suffix('.').unwrap_or(name);
                let local = bare == "localhost" || bare.ends_with(".localhost");
                !local || loopback || self.names(bare)
            }
            None => false,
        }
    }

    fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.hosts.iter().any(|named| named.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISCOVERED: Reach = Reach::Discovered { loopback: false };

    #[test]
    fn what_the_operator_wrote_down_is_meant() {
        let guard = Guard::default();
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "1.1.1.1"] {
            assert!(guard.admits("idp.internal", address.parse().unwrap(), Reach::Configured));
        }
        assert!(guard.admits_url(&Url::parse("http://localhost/").unwrap(), Reach::Configured));
    }

    #[test]
    fn a_document_leads_only_to_public_addresses_and_allowed_ones() {
        let guard = Guard {
            hosts: vec!["idp.internal".to_owned()],
            networks: ["10.1.0.0/16", "fd00:1::/32"].map(|text| text.parse().unwrap()).to_vec(),
        };
        let admits = |host: &str, address: &str| guard.admits(host, address.parse().unwrap(), DISCOVERED);
        for (host, address, expected) in [
            ("example.com", "1.1.1.1", true),
            ("example.com", "10.0.0.1", false),
            ("example.com", "10.1.2.3", true),
            ("example.com", "::ffff:10.1.2.3", true),
            ("example.com", "64:ff9b::a01:203", true),
            ("example.com", "2002:a01:203::1", true),
            ("example.com", "10.2.0.0", false),
            ("example.com", "fd00:1:2::3", true),
            ("example.com", "fd00:2::3", false),
            ("example.com", "127.0.0.1", false),
            ("idp.internal", "10.0.0.1", true),
            ("IDP.internal.", "192.168.1.1", true),
            ("x.idp.internal", "10.0.0.1", false),
            ("idp.internal.example.com", "10.0.0.1", false),
        ] {
            assert_eq!(admits(host, address), expected, "{host} at {address}");
        }
        let own = Reach::Discovered { loopback: true };
        for (address, expected) in
            [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(
                Guard::default().admits("localhost", address.parse().unwrap(), own),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_url_that_says_itself_that_it_is_inside_is_known_at_once() {
        let guard = Guard::default();
        for inside in [
            "https://localhost/",
            "https://localhost./",
            "https://idp.localhost/",
            "https://127.0.0.1/",
            "https://0xc0a80101/",
            "https://2130706433/",
            "https://[::ffff:169.254.169.254]/",
            "https://[fd00:ec2::254]/",
        ] {
            assert!(!guard.admits_url(&Url::parse(inside).unwrap(), DISCOVERED), "{inside}");
        }
        for outside in ["https://issuer.example/", "https://localhost.example/", "https://1.1.1.1/"] {
            assert!(guard.admits_url(&Url::parse(outside).unwrap(), DISCOVERED), "{outside}");
        }
    }
}
