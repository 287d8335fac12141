//! `[leases]`: how long tokens may be kept from being refreshed.

use std::time::Duration;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Leases {
    /// Unless the caller says otherwise.
    pub default_ttl: Duration,
    /// Whatever the caller says.
    pub max_ttl: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) fn read(section: &Section<'_>) -> Option<Leases> {
    let default_ttl = section.required("default_ttl").duration(SECOND..=DAY);
    let max = section.required("max_ttl");
    let max_ttl = max.duration(SECOND..=DAY);
    if let (Some(default_ttl), Some(max_ttl)) = (default_ttl, max_ttl)
        && default_ttl > max_ttl
    {
        max.problem("must not be shorter than default_ttl");
    }
    section.finish();
    Some(Leases { default_ttl: default_ttl?, max_ttl: max_ttl? })
}
