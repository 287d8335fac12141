//! The system's clock and randomness: the only place that asks for either.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::domain::ports::{Clock, Entropy};

/// The system's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

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
