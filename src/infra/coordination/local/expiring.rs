//! A map whose entries end. What has ended takes no memory beyond the next write.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Values by key, each until its time. Times are those of a clock that never goes back; the caller gives them.
pub(super) struct Expiring<K, V> {
    entries: HashMap<K, (V, Duration)>,
    /// The same keys by their end.
    ends: BTreeSet<(Duration, K)>,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), ends: BTreeSet::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord, V> Expiring<K, V> {
    /// The value, if it has not ended.
    pub(super) fn get(&self, now: Duration, key: &K) -> Option<&V> {
        self.entries.get(key).filter(|(_, end)| *end > now).map(|(value, _)| value)
    }

    /// Puts a value in the place of any other, and forgets everything that has ended.
    pub(super) fn insert(&mut self, now: Duration, key: K, value: V, lasts: Duration) {
        self.remove(&key);
        self.purge(now);
        let end = now.saturating_add(lasts);
        self.entries.insert(key, (value, end));
        self.ends.insert((end, key));
    }

    /// Forgets a value.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (value, end) = self.entries.remove(key)?;
        self.ends.remove(&(end, *key));
        Some(value)
    }

    fn purge(&mut self, now: Duration) {
        while let Some((_, key)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_has_ended_is_gone_and_takes_no_memory() {
        let mut map = Expiring::default();
        for n in 0..1_000_u32 {
            map.insert(SECOND * n, n, "value", SECOND * 10);
        }
        assert_eq!((map.entries.len(), map.ends.len()), (10, 10));
        assert_eq!(map.get(SECOND * 999, &989), None);
        assert_eq!(map.get(SECOND * 999, &990), Some(&"value"));
    }

    #[test]
    fn another_value_has_its_own_end() {
        let mut map = Expiring::default();
        map.insert(Duration::ZERO, 1, "long", SECOND * 100);
        map.insert(Duration::ZERO, 1, "short", SECOND);
        assert_eq!(map.get(Duration::ZERO, &1), Some(&"short"));
        assert_eq!(map.get(SECOND, &1), None);
        assert_eq!((map.entries.len(), map.ends.len()), (1, 1));
        assert_eq!(map.remove(&1), Some("short"));
        assert_eq!((map.remove(&1), map.ends.len()), (None, 0));
    }
}
