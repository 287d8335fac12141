//! `[operations]`: the listener for orchestrators.

use std::net::SocketAddr;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Operations {
    /// Where to listen.
    pub listen: SocketAddr,
}

pub(super) fn read(section: &Section<'_>) -> Option<Operations> {
    let listen = section.required("listen").address();
    section.finish();
    Some(Operations { listen: listen? })
}
