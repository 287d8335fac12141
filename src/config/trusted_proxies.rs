//! `trusted_proxies` and `client_address_header` of a listener: whose word about a client's address counts.

use super::reader::Section;
use crate::domain::rate_limit::Network;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// What they write.
    pub header: ClientAddressHeader,
}

/// The header with a client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddressHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// They write none, since they pass TLS through.
    None,
}

pub(super) fn read(section: &Section<'_>) -> Option<TrustedProxies> {
    let networks = section.required("trusted_proxies").list(str::parse::<Network>);
    let header = section.required("client_address_header").parsed(|text| match text {
        "x-forwarded-for" => Ok(ClientAddressHeader::XForwardedFor),
        "forwarded" => Ok(ClientAddressHeader::Forwarded),
        "none" => Ok(ClientAddressHeader::None),
        _ => Err("must be \"x-forwarded-for\", \"forwarded\" or \"none\""),
    });
    Some(TrustedProxies { networks: networks?, header: header? })
}
