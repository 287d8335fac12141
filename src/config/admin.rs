//! `[admin]`: where operators' tools call.

use std::net::SocketAddr;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where to listen. `None`: on the listener for callers.
    pub listen: Option<SocketAddr>,
}

pub(super) fn read(section: &Section<'_>) -> Option<Admin> {
    let listen = section.optional("listen");
    let address = if listen.is_set() { Some(listen.address()?) } else { None };
    section.finish();
    Some(Admin { listen: address })
}
