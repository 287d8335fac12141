//! Reproducible chance: splitmix64. What a seed decides is which faults, when and at what; the processes' own timing stays
//! the machine's.

use std::time::Duration;

use crate::splitmix;

pub(crate) struct Dice(u64);

impl Dice {
    /// A generator for one purpose: what one draws does not shift what another does.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mix = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(purpose.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    fn next(&mut self) -> u64 {
        splitmix::next(&mut self.0)
    }

    /// Below `sides`, which is not 0.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// An index of a slice that is not empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).unwrap()
    }

    /// One of a slice that is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Yes, so many times in a thousand.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.roll(1000) < times
    }

    /// A length of time, both ends included.
    pub(crate) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let (from, to) = (shortest.as_millis(), longest.as_millis());
        let span = u64::try_from(to - from).unwrap() + 1;
        shortest + Duration::from_millis(self.roll(span))
    }

    /// In a new order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
