//! `[authentication]`: how callers are authenticated.

use std::time::Duration;

use super::reader::Section;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Authentication {
    /// How long an answer of the database about a caller, a key or a tenant is believed; 0 to 5 s.
    pub cache_ttl: Duration,
}

pub(super) fn read(section: &Section<'_>) -> Option<Authentication> {
    let cache_ttl = section.required("cache_ttl").duration(Duration::ZERO..=Duration::from_secs(5));
    section.finish();
    Some(Authentication { cache_ttl: cache_ttl? })
}
