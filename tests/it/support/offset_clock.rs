//! The system's time and a lead over it, so that hours pass when a test says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use token_broker::domain::ports::Clock;
use token_broker::infra::system::SystemClock;

#[derive(Default)]
pub(crate) struct OffsetClock {
    system: SystemClock,
    lead_seconds: AtomicU64,
}

impl OffsetClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.lead_seconds.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    fn lead(&self) -> Duration {
        Duration::from_secs(self.lead_seconds.load(Ordering::SeqCst))
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        self.system.now() + self.lead()
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + self.lead()
    }
}
