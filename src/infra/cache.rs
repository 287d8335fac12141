//! What was read lately, for a bounded time, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Two halves of at most `most` entries each: when the younger is full, it takes the place of the older, whose entries are
/// dropped. So whoever fills it pushes out what has not been asked for since, and no more memory is taken.
pub(crate) struct Cache<K, V> {
    halves: Mutex<Halves<K, V>>,
    most: usize,
    lifetime: Duration,
}

struct Halves<K, V> {
    young: HashMap<K, Entry<V>>,
    old: HashMap<K, Entry<V>>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// On the monotonic clock, before the look that found it began.
    read_at: Duration,
    /// Somebody is looking again.
    renewing: bool,
}

/// What the cache knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<V> {
    /// Good.
    Fresh(V),
    /// Good, and in the second half of its life: whoever is told so looks again, while all others go on with it. So not
    /// everybody looks at the moment at which it ends.
    Aging(V),
    /// Too old to go by.
    Stale(V),
    /// Never read, or forgotten.
    Nothing,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// At most twice `most` entries. A `lifetime` of zero: nothing is ever good.
    pub(crate) fn new(most: usize, lifetime: Duration) -> Self {
        let halves = Mutex::new(Halves { young: HashMap::new(), old: HashMap::new() });
        Self { halves, most, lifetime }
    }

    pub(crate) fn get(&self, key: &K, now: Duration) -> Known<V> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if !halves.young.contains_key(key)
            && let Some(entry) = halves.old.remove(key)
        {
            self.put(&mut halves, key.clone(), entry);
        }
        let Some(entry) = halves.young.get_mut(key) else { return Known::Nothing };
        let age = now.saturating_sub(entry.read_at);
        if age >= self.lifetime {
            return Known::Stale(entry.value.clone());
        }
        if age * 2 < self.lifetime || entry.renewing {
            return Known::Fresh(entry.value.clone());
        }
        entry.renewing = true;
        Known::Aging(entry.value.clone())
    }

    /// Whether there is an entry, of whatever age.
    pub(in crate::infra) fn has(&self, key: &K) -> bool {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.contains_key(key) || halves.old.contains_key(key)
    }

    /// `read_at` is from before the look began: what changed during it may not be in it.
    pub(crate) fn insert(&self, key: K, value: V, read_at: Duration) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two looks at one time, the one that began later knows more.
        let there = halves.young.get(&key).or_else(|| halves.old.get(&key));
        if there.is_none_or(|there| there.read_at <= read_at) {
            halves.old.remove(&key);
            self.put(&mut halves, key, Entry { value, read_at, renewing: false });
        }
    }

    pub(crate) fn remove(&self, key: &K) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.remove(key);
        halves.old.remove(key);
    }

    /// Drops what is too old to go by: for what must not lie in memory for longer than it is used.
    pub(in crate::infra) fn drop_stale(&self, now: Duration) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let good = |entry: &Entry<V>| now.saturating_sub(entry.read_at) < self.lifetime;
        halves.young.retain(|_, entry| good(entry));
        halves.old.retain(|_, entry| good(entry));
    }

    fn put(&self, halves: &mut Halves<K, V>, key: K, entry: Entry<V>) {
        if halves.young.len() >= self.most && !halves.young.contains_key(&key) {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, entry);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.len() + halves.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_entry_is_good_for_its_life_and_one_looks_again_in_the_second_half() {
        let cache = Cache::new(8, seconds(4));
        assert_eq!(cache.get(&1, seconds(0)), Known::Nothing);
        cache.insert(1, "a", seconds(0));
        assert_eq!(cache.get(&1, seconds(1)), Known::Fresh("a"));
        assert_eq!(cache.get(&1, seconds(2)), Known::Aging("a"));
        assert_eq!(cache.get(&1, seconds(3)), Known::Fresh("a"));
        assert_eq!(cache.get(&1, seconds(4)), Known::Stale("a"));
        cache.insert(1, "b", seconds(3));
        // An older look that ends later changes nothing.
        cache.insert(1, "a", seconds(2));
        assert_eq!(cache.get(&1, seconds(4)), Known::Fresh("b"));
        assert!(cache.has(&1) && !cache.has(&2));
        cache.remove(&1);
        assert_eq!(cache.get(&1, seconds(4)), Known::Nothing);
        assert!(!cache.has(&1));
    }

    #[test]
    fn what_is_too_old_is_dropped() {
        let cache = Cache::new(1, seconds(4));
        cache.insert(1, "old", seconds(0));
        cache.insert(2, "young", seconds(1));
        cache.drop_stale(seconds(4));
        assert_eq!(cache.len(), 1);
        assert_eq!(cache.get(&1, seconds(4)), Known::Nothing);
        cache.drop_stale(seconds(5));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn without_a_lifetime_nothing_is_good() {
        let cache = Cache::new(8, Duration::ZERO);
        cache.insert(1, "a", seconds(1));
        assert_eq!(cache.get(&1, seconds(1)), Known::Stale("a"));
    }

    #[test]
    fn a_flood_takes_no_more_memory_and_keeps_what_is_asked_for() {
        let cache = Cache::new(8, seconds(4));
        cache.insert(0, "kept", seconds(0));
        for n in 1..1_000 {
            cache.insert(n, "flood", seconds(0));
            assert!(cache.len() <= 16);
            if n % 4 == 0 {
                assert_eq!(cache.get(&0, seconds(0)), Known::Fresh("kept"));
            }
        }
        assert_eq!(cache.get(&1, seconds(0)), Known::Nothing);
    }
}
