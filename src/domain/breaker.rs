//! A circuit breaker for one provider: a pure state machine over the monotonic clock.
//!
//! A brown-out at a strict provider makes refreshes ambiguous, and each ambiguous refresh keeps its user waiting until it
//! has settled. So the circuit opens after the first few, and one probe at a time finds out whether the provider is back.

use std::time::Duration;

/// The first opening lasts this long; each one that follows without a success between lasts twice as long.
const FIRST_OPENING: Duration = Duration::from_millis(500);
/// No opening lasts longer, whatever a `Retry-After` says.
const LONGEST_OPENING: Duration = Duration::from_secs(60);
/// A probe that has not ended after this long has died with its task.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// What a call to the provider says about the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It answered, and be it with a refusal of one user's grant.
    Answered,
    /// It was not reached, did not answer in time, or answered 5xx.
    Trouble,
    /// It refuses the broker's client: every further call would be refused too.
    ClientRejected,
    /// It asks to be left alone for so long.
    RetryAfter(Duration),
}

/// Whether a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Pass,
    /// Not before this much time has passed.
    Refused {
        /// From now.
        retry_after: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { troubles: u32 },
    Open { until: Duration },
    HalfOpen { since: Duration },
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Breaker {
    state: State,
    /// How many troubles in a row open it.
    threshold: u32,
    /// How long the next opening lasts.
    opening: Duration,
}

impl Breaker {
    /// A closed one that opens after so many troubles in a row, at least 1.
    #[must_use]
    pub fn new(threshold: u32) -> Self {
        Self { state: State::Closed { troubles: 0 }, threshold: threshold.max(1), opening: FIRST_OPENING }
    }

    /// Asks for a call. When an opening is over, the first to ask is the probe and all others go on being refused.
    pub fn admit(&mut self, now: Duration) -> Admission {
        let refused_until = match self.state {
            State::Closed { .. } => return Admission::Pass,
            State::Open { until } => until,
            State::HalfOpen { since } => since.saturating_add(PROBE_LIMIT),
        };
        if now >= refused_until {
            self.state = State::HalfOpen { since: now };
            return Admission::Pass;
        }
        let retry_after = match self.state {
            // Probes are quick, or else the circuit opens again.
            State::HalfOpen { .. } => FIRST_OPENING,
            _ => refused_until.saturating_sub(now),
        };
        Admission::Refused { retry_after }
    }

    /// Learns how a call went.
    pub fn record(&mut self, now: Duration, signal: Signal) {
        match signal {
            Signal::Answered => *self = Self::new(self.threshold),
            Signal::Trouble => match self.state {
                State::Closed { troubles } if troubles + 1 < self.threshold => {
                    self.state = State::Closed { troubles: troubles + 1 };
                }
                State::Closed { .. } | State::HalfOpen { .. } => self.open(now, Duration::ZERO),
                // A call that went out before the circuit opened.
                State::Open { .. } => {}
            },
            Signal::ClientRejected => self.open(now, Duration::ZERO),
            Signal::RetryAfter(at_least) => self.open(now, at_least),
        }
    }

    /// A probe that was admitted ended without a call: the next may probe.
    pub fn give_back(&mut self, now: Duration) {
        if let State::HalfOpen { .. } = self.state {
            self.state = State::Open { until: now };
        }
    }

    /// Whether calls are refused right now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    fn open(&mut self, now: Duration, at_least: Duration) {
        let lasts = self.opening.max(at_least).min(LONGEST_OPENING);
        self.state = State::Open { until: now.saturating_add(lasts) };
        self.opening = (self.opening * 2).min(LONGEST_OPENING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn opened(breaker: &mut Breaker, now: u64) -> Duration {
        match breaker.admit(at(now)) {
            Admission::Refused { retry_after } => retry_after,
            Admission::Pass => panic!("the circuit is closed"),
        }
    }

    #[test]
    fn opens_after_troubles_in_a_row_and_probes_one_at_a_time() {
        let mut breaker = Breaker::new(3);
        for _ in 0..2 {
            breaker.record(at(0), Signal::Trouble);
        }
        breaker.record(at(0), Signal::Answered);
        for n in 0..3 {
            assert_eq!(breaker.admit(at(n)), Admission::Pass);
            breaker.record(at(n), Signal::Trouble);
        }
        assert_eq!(opened(&mut breaker, 2), at(500));
        breaker.record(at(3), Signal::Trouble);
        assert_eq!(opened(&mut breaker, 3), at(499), "a late trouble prolongs nothing");
        assert_eq!(breaker.admit(at(502)), Admission::Pass, "the probe");
        opened(&mut breaker, 502);
        breaker.record(at(600), Signal::Trouble);
        assert_eq!(opened(&mut breaker, 600), at(1000), "twice as long");
        assert_eq!(breaker.admit(at(1600)), Admission::Pass);
        breaker.record(at(1601), Signal::Answered);
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(at(1601)), Admission::Pass);
        assert_eq!(breaker.admit(at(1601)), Admission::Pass);
    }

    #[test]
    fn obeys_retry_after_within_a_minute_and_opens_at_once_for_a_rejected_client() {
        let mut breaker = Breaker::new(3);
        breaker.record(at(0), Signal::RetryAfter(at(7_000)));
        assert_eq!(opened(&mut breaker, 0), at(7_000));
        let mut breaker = Breaker::new(3);
        breaker.record(at(0), Signal::RetryAfter(Duration::from_hours(5)));
        assert_eq!(opened(&mut breaker, 0), at(60_000));
        let mut breaker = Breaker::new(3);
        breaker.record(at(0), Signal::ClientRejected);
        assert_eq!(opened(&mut breaker, 0), at(500));
    }

    #[test]
    fn a_probe_that_never_ends_or_never_calls_is_replaced() {
        let mut breaker = Breaker::new(1);
        breaker.record(at(0), Signal::Trouble);
        assert_eq!(breaker.admit(at(500)), Admission::Pass);
        opened(&mut breaker, 60_499);
        assert_eq!(breaker.admit(at(60_500)), Admission::Pass);
        breaker.give_back(at(60_600));
        assert_eq!(breaker.admit(at(60_600)), Admission::Pass);
    }
}
