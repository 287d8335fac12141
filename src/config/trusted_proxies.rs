//! `trusted_proxies` and `client_address_header` of a listener: whose word about a client's address counts.

use super::reader::Section;
use crate::domain::rate_limit::Network;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// Whether they write `Forwarded` (RFC 7239), else `X-Forwarded-For`.
    pub forwarded: bool,
}

pub(super) fn read(section: &Section<'_>) -> Option<TrustedProxies> {
    let networks = section.required("trusted_proxies").list(str::parse::<Network>);
    let forwarded = section.required("client_address_header").parsed(|text| match text {
        "x-forwarded-for" => Ok(false),
        "forwarded" => Ok(true),
        _ => Err("must be \"x-forwarded-for\" or \"forwarded\""),
    });
    Some(TrustedProxies { networks: networks?, forwarded: forwarded? })
}
