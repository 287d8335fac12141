//! `[public]`: the listener for browsers.

use std::net::SocketAddr;

use url::Url;

use super::reader::Section;
use super::trusted_proxies::{self, TrustedProxies};
use super::values::web_url;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Public {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where browsers reach it. `None`, on a loopback address only: the bound address.
    pub base_url: Option<Url>,
    /// How many connections at a time.
    pub max_connections: usize,
    /// What a `return_url` may lie under.
    pub return_urls: Vec<Url>,
    /// Whose word about a browser's address counts.
    pub proxies: TrustedProxies,
}

pub(super) fn read(section: &Section<'_>) -> Option<Public> {
    let listen = section.required("listen").address();
    let base_url_key = section.optional("base_url");
    if !base_url_key.is_set() && listen.is_some_and(|address| !address.ip().is_loopback()) {
        base_url_key.problem("is required, since public.listen is not a loopback address");
    }
    let base_url = base_url_key.parsed(web_url);
    let max_connections = section.required("max_connections").integer(1..=65_535);
    let return_urls = section.required("return_urls").list(web_url);
    let proxies = trusted_proxies::read(section);
    section.finish();
    Some(Public {
        listen: listen?,
        base_url,
        max_connections: usize::try_from(max_connections?).ok()?,
        return_urls: return_urls?,
        proxies: proxies?,
    })
}
