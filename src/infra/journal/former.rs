//! What dead process runs left in the journal: read at start, deleted when all of it has been replayed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame;
use super::slot::Slot;
use crate::domain::coordination::{FormerRun, JournalError};
use crate::domain::key::ClaimOwner;
use crate::infra::record;

/// A dead process run and its records. They stay on the disk, and nobody else gets them, until [`Former::forget`]: a
/// crash during the replay loses nothing, the next start finds them again.
pub struct Former {
    run: FormerRun,
    damaged: usize,
    directory: PathBuf,
    /// Those that were read whole.
    segments: Vec<PathBuf>,
    /// Held until it is forgotten.
    slot: Arc<Slot>,
}

impl Former {
    /// All runs in a slot.
    pub(super) fn in_slot(slot: &Arc<Slot>) -> io::Result<Vec<Self>> {
        let runs = slot.runs()?;
        runs.into_iter().map(|(owner, directory)| Self::read(slot, owner, directory)).collect()
    }

    fn read(slot: &Arc<Slot>, owner: ClaimOwner, directory: PathBuf) -> io::Result<Self> {
        let mut former = Self {
            run: FormerRun { owner, records: Vec::new() },
            damaged: 0,
            segments: Vec::new(),
            slot: Arc::clone(slot),
            directory,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&former.directory)? {
            paths.push(entry?.path());
        }
        // Numbers with leading zeros: in the order of writing.
        paths.sort();
        for path in paths {
            former.read_segment(path);
        }
        if former.damaged > 0 {
            metrics::counter!("token_broker_journal_damaged_records_total")
                .increment(u64::try_from(former.damaged).unwrap_or(u64::MAX));
        }
        Ok(former)
    }

    fn read_segment(&mut self, path: PathBuf) {
        let shown = path.display();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(path = %shown, %error, "a segment of the journal can't be read; it stays where it is");
                self.damaged += 1;
                return;
            }
        };
        let contents = frame::read(&bytes);
        if contents.damaged > 0 {
            tracing::error!(path = %shown, count = contents.damaged, "records of the journal are damaged and left out");
            self.damaged += contents.damaged;
        }
        if contents.torn {
            tracing::warn!(path = %shown, "the journal ends in a record that was not written whole");
        }
        let mut foreign = 0;
        for content in contents.records {
            match record::decode(content) {
                Ok(write) => self.run.records.push(write),
                Err(error) => {
                    tracing::error!(path = %shown, %error, "a record of the journal can't be read by this version; it stays where it is");
                    foreign += 1;
                }
            }
        }
        self.damaged += foreign;
        if foreign == 0 {
            self.segments.push(path);
        }
    }

    /// Whose, and what.
    #[must_use]
    pub fn run(&self) -> &FormerRun {
        &self.run
    }

    /// How many records, or whole segments, could not be read.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// All has been replayed: deletes it. What could not be read by this version stays for one that can.
    pub async fn forget(self) -> Result<(), JournalError> {
        let task = tokio::task::spawn_blocking(move || self.delete());
        match task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(JournalError(Box::new(error))),
            Err(error) => Err(JournalError(Box::new(error))),
        }
    }

    fn delete(&self) -> io::Result<()> {
        self.segments.iter().try_for_each(|path| remove(path))?;
        self.slot.end_run(&self.directory)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
