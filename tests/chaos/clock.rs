//! One clock for all processes of a run: the machine's monotonic one.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::history::Micros;

/// Now.
pub(crate) fn now() -> Micros {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1000
}

/// A length of time in the histories' unit.
pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The time of the day, for what is bound to it.
#[expect(clippy::disallowed_methods, reason = "the harness has no Clock port")]
pub(crate) fn today() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
