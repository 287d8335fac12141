//! What is in the journal, in memory: who asks for a successor reads no file, and a segment is known to be garbage when
//! the last of its records is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::domain::credential::{Epoch, Fingerprint};
use crate::domain::key::CredentialId;
use crate::domain::ports::LineageWrite;

/// How long a record is kept after its row has it: a database that loses its last commits in a failover is healed from it.
const KEPT_AFTER_STORING: Duration = Duration::from_mins(15);

/// What a record is of.
pub(super) type RecordKey = (CredentialId, Epoch);

struct Kept {
    write: LineageWrite,
    /// Where it was written, or may have been.
    segment: Option<u64>,
    /// A flush has covered it.
    durable: bool,
    /// The row has it: when it becomes garbage.
    garbage_at: Option<Duration>,
}

#[derive(Default)]
pub(super) struct Index {
    records: HashMap<RecordKey, Kept>,
    by_parent: HashMap<(CredentialId, Fingerprint), BTreeSet<Epoch>>,
    /// The stored ones, in the order in which they become garbage.
    ageing: VecDeque<(Duration, RecordKey)>,
    /// How many records of a segment are needed.
    segments: BTreeMap<u64, usize>,
}

impl Index {
    /// A record that is about to be written. It is known from here on, since its row may have it before the disk does.
    pub(super) fn begins(&mut self, write: &LineageWrite) {
        let key = (write.id, write.epoch);
        self.remove(key);
        self.by_parent.entry((write.id, write.parent_fingerprint)).or_default().insert(write.epoch);
        let kept = Kept { write: write.clone(), segment: None, durable: false, garbage_at: None };
        self.records.insert(key, kept);
    }

    /// A record is, or may be, in this segment. One whose flush failed counts too: the disk may have it.
    pub(super) fn written(&mut self, key: RecordKey, segment: u64, durable: bool) {
        let Some(kept) = self.records.get_mut(&key) else { return };
        let before = kept.segment.replace(segment);
        kept.durable |= durable;
        *self.segments.entry(segment).or_default() += 1;
        self.release(before);
    }

    /// A record that was not written at all.
    pub(super) fn not_written(&mut self, key: RecordKey) {
        if self.records.get(&key).is_some_and(|kept| kept.segment.is_none()) {
            self.remove(key);
        }
    }

    /// The row has the record.
    pub(super) fn stored(&mut self, key: RecordKey, now: Duration) {
        if let Some(kept) = self.records.get_mut(&key)
            && kept.garbage_at.is_none()
        {
            let due = now.saturating_add(KEPT_AFTER_STORING);
            kept.garbage_at = Some(due);
            self.ageing.push_back((due, key));
        }
    }

    /// The youngest successor of a token.
    pub(super) fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite> {
        let epochs = self.by_parent.get(&(credential, parent))?;
        let kept = epochs.iter().rev().filter_map(|epoch| self.records.get(&(credential, *epoch)));
        kept.into_iter().find(|kept| kept.durable).map(|kept| kept.write.clone())
    }

    /// Whether something was stored long enough ago.
    pub(super) fn has_garbage(&self, now: Duration) -> bool {
        self.ageing.front().is_some_and(|(due, _)| *due <= now)
    }

    /// Forgets what was stored long enough ago. Answers the segments of which no record is needed any more.
    pub(super) fn garbage(&mut self, now: Duration) -> Vec<u64> {
        while let Some((due, key)) = self.ageing.pop_front_if(|(due, _)| *due <= now) {
            // One that was written anew meanwhile has a turn of its own.
            if self.records.get(&key).is_some_and(|kept| kept.garbage_at == Some(due)) {
                self.remove(key);
            }
        }
        self.segments.iter().filter(|(_, needed)| **needed == 0).map(|(segment, _)| *segment).collect()
    }

    /// A segment is gone.
    pub(super) fn deleted(&mut self, segment: u64) {
        self.segments.remove(&segment);
    }

    /// A segment that takes records from now on, or did and is to be deleted when it has none.
    pub(super) fn opened(&mut self, segment: u64) {
        self.segments.entry(segment).or_default();
    }

    fn remove(&mut self, key: RecordKey) {
        let Some(kept) = self.records.remove(&key) else { return };
        let parent = (key.0, kept.write.parent_fingerprint);
        if let Some(epochs) = self.by_parent.get_mut(&parent) {
            epochs.remove(&key.1);
            if epochs.is_empty() {
                self.by_parent.remove(&parent);
            }
        }
        self.release(kept.segment);
    }

    fn release(&mut self, segment: Option<u64>) {
        if let Some(needed) = segment.and_then(|segment| self.segments.get_mut(&segment)) {
            *needed = needed.saturating_sub(1);
        }
    }
}
