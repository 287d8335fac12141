//! Who is at the other end, behind proxies: only what those say that the operator trusts counts, and of the addresses that
//! they name the last one that is none of theirs. What a client writes into the header itself stands before that.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use crate::domain::rate_limit::Network;

/// Which header the proxies write. One alone: another would pass through them as the client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// None: they pass TLS through, and could not. What there is was written by the client.
    Nothing,
}

/// The proxies in front of a listener.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// Where they are. None: headers are not looked at.
    pub trusted: Vec<Network>,
    /// What they write.
    pub header: ForwardedBy,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Proxies {
    /// There are none.
    #[must_use]
    pub fn none() -> Self {
        Self { trusted: Vec::new(), header: ForwardedBy::XForwardedFor }
    }

    /// Whether this is the address of one of them.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The client's address: the peer's, or the last one that the trusted proxies name and that is none of theirs.
    pub(super) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer?;
        if !self.trust(client) {
            return Some(client);
        }
        let name = match self.header {
            ForwardedBy::XForwardedFor => X_FORWARDED_FOR,
            ForwardedBy::Forwarded => FORWARDED,
            ForwardedBy::Nothing => return Some(client),
        };
        let lines: Vec<_> = headers.get_all(&name).iter().collect();
        for line in lines.into_iter().rev() {
            // What can't be read was not written by a proxy that can be trusted with more.
            let Ok(line) = line.to_str() else { return Some(client) };
            for hop in line.rsplit(',') {
                let address = if name == FORWARDED { forwarded_for(hop) } else { node(hop.trim()) };
                let Some(address) = address else { return Some(client) };
                client = address;
                if !self.trust(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }
}

/// `for=` of one hop (RFC 7239 section 4).
fn forwarded_for(hop: &str) -> Option<IpAddr> {
    let mut found = hop.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = found.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// An address with or without a port; one of version 6 with a port in brackets.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    let address = text.parse().ok();
    address.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(header: ForwardedBy, peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        let name = if header == ForwardedBy::Forwarded { FORWARDED } else { X_FORWARDED_FOR };
        for line in lines {
            headers.append(&name, line.parse().unwrap());
        }
        let proxies = Proxies { trusted, header };
        proxies.client(Some(peer.parse().unwrap()), &headers).unwrap().to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        let x = |peer, lines: &[&str]| client(ForwardedBy::XForwardedFor, peer, lines);
        // From a stranger the header is not looked at.
        assert_eq!(x("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(x("192.0.2.1", &["198.51.100.7, 10.0.0.1"]), "192.0.2.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        // What the client wrote stands before what the proxy wrote.
        assert_eq!(x("10.0.0.1", &["1.1.1.1, 2.2.2.2, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(x("10.0.0.1", &["1.1.1.1", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(x("10.0.0.1", &["1.1.1.1, 10.9.9.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(x("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(x("10.0.0.1", &["[2001:db9::7]:4711, 10.0.0.3"]), "2001:db9::7");
        assert_eq!(x("2001:db8::1", &["2001:db9::7"]), "2001:db9::7");
        // Without a word, or with one that can't be read, it is the proxy's.
        assert_eq!(x("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["198.51.100.7, "]), "10.0.0.1");
        assert_eq!(x("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_if_that_is_what_proxies_write() {
        let f = |lines: &[&str]| client(ForwardedBy::Forwarded, "10.0.0.1", lines);
        assert_eq!(f(&["for=198.51.100.7;proto=https;by=10.0.0.1"]), "198.51.100.7");
        assert_eq!(f(&["for=1.1.1.1, For=\"[2001:db9::7]:4711\""]), "2001:db9::7");
        assert_eq!(f(&["proto=https;FOR=198.51.100.7:80", "for=10.0.0.9"]), "198.51.100.7");
        assert_eq!(f(&["for=_hidden"]), "10.0.0.1");
        assert_eq!(f(&["by=198.51.100.7"]), "10.0.0.1");
        assert_eq!(client(ForwardedBy::XForwardedFor, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn nothing_is_read_if_proxies_pass_tls_through() {
        assert_eq!(client(ForwardedBy::Nothing, "10.0.0.1", &["198.51.100.7"]), "10.0.0.1");
    }
}
