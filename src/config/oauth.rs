//! `[oauth]`: times.

use std::time::Duration;

use super::reader::Section;
use crate::domain::provider::HTTP_DEADLINE;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// For the connection to a provider.
    pub connect_timeout: Duration,
    /// For a whole request to a provider; at most [`HTTP_DEADLINE`].
    pub request_timeout: Duration,
    /// How long a link works.
    pub flow_lifetime: Duration,
    /// A token with less than this left is refreshed behind the reader's back.
    pub refresh_ahead: Duration,
    /// How long a reader waits for somebody else's refresh.
    pub max_wait: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(super) fn read(section: &Section<'_>) -> Option<OAuth> {
    let connect_timeout = section.required("connect_timeout").duration(SHORTEST..=HTTP_DEADLINE);
    let request_timeout = section.required("request_timeout").duration(SECOND..=HTTP_DEADLINE);
    let flow_lifetime = section.required("flow_lifetime").duration(SECOND..=HOUR);
    let refresh_ahead = section.required("refresh_ahead").duration(Duration::ZERO..=HOUR);
    let max_wait = section.required("max_wait").duration(SHORTEST..=LONGEST_WAIT);
    section.finish();
    Some(OAuth {
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
        flow_lifetime: flow_lifetime?,
        refresh_ahead: refresh_ahead?,
        max_wait: max_wait?,
    })
}
