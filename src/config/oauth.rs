//! `[oauth]`: times.

use std::time::Duration;

use super::reader::Section;
use crate::domain::provider::{HTTP_DEADLINE, TimingLimits};

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
    /// When a refresh whose outcome is unknown is settled at a strict provider.
    pub strict_settle: Duration,
    /// Calls to one provider's token endpoint at a time.
    pub provider_concurrency: usize,
    /// How long a token that nobody asks for is kept fresh.
    pub active_window: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST_WINDOW: Duration = Duration::from_hours(24 * 365);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub(super) fn read(section: &Section<'_>) -> Option<OAuth> {
    let connect_timeout = section.required("connect_timeout").duration(SHORTEST..=HTTP_DEADLINE);
    let request_timeout = section.required("request_timeout").duration(SECOND..=HTTP_DEADLINE);
    let flow_lifetime = section.required("flow_lifetime").duration(SECOND..=HOUR);
    let refresh_ahead = section.required("refresh_ahead").duration(Duration::ZERO..=HOUR);
    let max_wait = section.required("max_wait").duration(SHORTEST..=LONGEST_WAIT);
    let settles = section.required("strict_settle");
    let strict_settle = settles.duration(SECOND..=HOUR);
    let provider_concurrency = section.required("provider_concurrency").integer(1..=1024);
    let active_window = section.required("active_window").duration(HOUR..=LONGEST_WINDOW);
    if let (Some(http_deadline), Some(settle)) = (request_timeout, strict_settle) {
        let shortest = TimingLimits { http_deadline, strict_settle: settle }.shortest_settle();
        if settle < shortest {
            settles.problem(format!(
                "must be at least {}s: a request may leave 2s after its claim, take oauth.request_timeout, and its process may be paused for 2s; settled earlier, a refresh token could be presented twice",
                shortest.as_secs_f64().ceil()
            ));
        }
    }
    section.finish();
    Some(OAuth {
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
        flow_lifetime: flow_lifetime?,
        refresh_ahead: refresh_ahead?,
        max_wait: max_wait?,
        strict_settle: strict_settle?,
        provider_concurrency: usize::try_from(provider_concurrency?).unwrap_or(usize::MAX),
        active_window: active_window?,
    })
}
