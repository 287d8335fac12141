//! The randomness of a run: all of it comes from the seed.

use std::sync::Mutex;
use std::time::Duration;

use crate::splitmix;

/// A generator (`SplitMix64`) that everybody in a world draws from, in the order in which they come.
pub(crate) struct Dice(Mutex<u64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    pub(crate) fn draw(&self) -> u64 {
        splitmix::next(&mut self.0.lock().unwrap())
    }

    /// Uniform in `0..sides`.
    pub(crate) fn below(&self, sides: u64) -> u64 {
        self.draw() % sides
    }

    /// True once in so many times.
    pub(crate) fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let range = u64::try_from(most.saturating_sub(least).as_millis()).unwrap().max(1);
        least + Duration::from_millis(self.below(range))
    }

    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        self.between(Duration::ZERO, most)
    }

    pub(crate) fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}
