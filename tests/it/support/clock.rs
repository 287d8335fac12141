//! A clock that stands still until it is told to move.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use token_broker::domain::ports::Clock;

pub(crate) struct ManualClock {
    now: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Begins at some fixed moment.
    pub(crate) fn new() -> Self {
        Self { now: Mutex::new((Timestamp::from_second(1_800_000_000).unwrap(), Duration::ZERO)) }
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap();
        now.0 += by;
        now.1 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().unwrap().1
    }
}
