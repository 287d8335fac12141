//! The database's time, known here without asking each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::ports::Clock;

/// How far two clocks drift apart: a hundred parts in a million, twice what quartz is allowed.
const DRIFT: u32 = 10_000;

/// The database's clock as this machine sees it: its monotonic clock and what a measurement says is between the two. All
/// replicas of a database so have one time, however wrong their own clocks are. Before the first measurement it is this
/// machine's own time.
pub struct DatabaseClock {
    local: Arc<dyn Clock>,
    anchor: Mutex<Option<Anchor>>,
}

/// A measurement.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    monotonic: Duration,
    database: Timestamp,
    /// At most so far off: half of the round trip.
    error: Duration,
}

impl Anchor {
    fn at(&self, monotonic: Duration) -> Timestamp {
        let passed = SignedDuration::try_from(monotonic.saturating_sub(self.monotonic)).unwrap_or_default();
        self.database.saturating_add(passed).unwrap_or(self.database)
    }

    fn error_at(&self, monotonic: Duration) -> Duration {
        self.error + monotonic.saturating_sub(self.monotonic) / DRIFT
    }
}

impl std::fmt::Debug for DatabaseClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseClock").field("anchor", &self.anchor).finish_non_exhaustive()
    }
}

impl DatabaseClock {
    /// Not measured yet. `local` has to count the time in which the machine is suspended.
    #[must_use]
    pub fn new(local: Arc<dyn Clock>) -> Self {
        Self { local, anchor: Mutex::default() }
    }

    /// Takes a measurement: asked at `asked`, answered now, and somewhere in between it was `database`. One of a slow round
    /// trip says less than what is known already, and is left out, unless it contradicts that: then it is another
    /// server, or its clock was set.
    pub(super) fn measured(&self, asked: Duration, database: Timestamp) {
        let answered = self.local.monotonic();
        let half = answered.saturating_sub(asked) / 2;
        let new = Anchor { monotonic: asked + half, database, error: half };
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let better = anchor.is_none_or(|old| {
            let known = old.error_at(new.monotonic);
            let apart = old.at(new.monotonic).duration_since(database).unsigned_abs();
            new.error <= known || apart > known + new.error
        });
        if better {
            *anchor = Some(new);
        }
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.map_or_else(|| self.local.now(), |anchor| anchor.at(self.local.monotonic()))
    }

    fn monotonic(&self) -> Duration {
        self.local.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose clock is a day behind.
    #[derive(Default)]
    struct Machine {
        monotonic: Mutex<Duration>,
    }

    impl Machine {
        fn wait(&self, milliseconds: u64) {
            *self.monotonic.lock().unwrap() += Duration::from_millis(milliseconds);
        }
    }

    impl Clock for Machine {
        fn now(&self) -> Timestamp {
            at(-86_400_000)
        }

        fn monotonic(&self) -> Duration {
            *self.monotonic.lock().unwrap()
        }
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    /// A round trip of so many milliseconds in the middle of which the database's clock shows this.
    fn measure(machine: &Machine, clock: &DatabaseClock, round_trip: u64, database: i64) {
        let asked = machine.monotonic();
        machine.wait(round_trip);
        clock.measured(asked, at(database));
    }

    #[test]
    fn the_time_is_the_databases_and_goes_on_by_the_monotonic_clock() {
        let machine = Arc::new(Machine::default());
        let clock = DatabaseClock::new(machine.clone());
        assert_eq!(clock.now(), machine.now(), "nothing is known yet");
        measure(&machine, &clock, 10, 1000);
        assert_eq!(clock.now(), at(1005));
        machine.wait(7);
        assert_eq!(clock.now(), at(1012));
        assert_eq!(clock.monotonic(), machine.monotonic());
    }

    #[test]
    fn slow_answers_are_left_out_until_they_know_better() {
        let machine = Arc::new(Machine::default());
        let clock = DatabaseClock::new(machine.clone());
        measure(&machine, &clock, 2, 1);
        let expected = |machine: &Machine| at(i64::try_from(machine.monotonic().as_millis()).unwrap());
        // All of the delay was on the way back, so that half of the round trip is wrong by 40.
        measure(&machine, &clock, 100, 12);
        assert_eq!(clock.now(), expected(&machine));
        // After an hour, 100 ms are no more than what the clocks may have drifted apart.
        machine.wait(3_600_000);
        measure(&machine, &clock, 100, 3_600_152 - 20);
        assert_eq!(clock.now(), expected(&machine) - SignedDuration::from_millis(20));
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let machine = Arc::new(Machine::default());
        let clock = DatabaseClock::new(machine.clone());
        measure(&machine, &clock, 2, 1);
        measure(&machine, &clock, 100, 60_000);
        assert_eq!(clock.now(), at(60_050));
        measure(&machine, &clock, 100, 500);
        assert_eq!(clock.now(), at(550));
    }
}
