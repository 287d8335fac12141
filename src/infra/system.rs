//! The system's clock and randomness: the only place that asks for either.

use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

use jiff::Timestamp;

use crate::domain::ports::{Clock, Entropy};

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    #[cfg(not(target_os = "linux"))]
    start: Instant,
}

impl Default for SystemClock {
    #[cfg_attr(
        not(target_os = "linux"),
        expect(clippy::disallowed_methods, reason = "this is the Clock port")
    )]
    fn default() -> Self {
        Self {
            #[cfg(not(target_os = "linux"))]
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Counts the time in which the machine was suspended: a claim does not get older the less for that.
    #[cfg(target_os = "linux")]
    fn monotonic(&self) -> Duration {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The system's randomness.
#[derive(Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    ///
    /// If the system has no randomness: going on would make guessable secrets.
    #[expect(clippy::disallowed_methods, reason = "this is the Entropy port")]
    #[expect(clippy::expect_used, reason = "without randomness nothing here may go on")]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the system's random number generator must work");
    }
}
