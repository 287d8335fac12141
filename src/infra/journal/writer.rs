//! The thread that writes. What has come in while it flushed shares the next flush.
//!
//! After a failed write or flush the segment is given up, never flushed again: nothing is known of what the disk has of it.
//! The journal counts as broken until a new segment has been made and flushed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::disk::{Disk, SegmentFile};
use super::index::RecordKey;
use super::{Shared, segment_path};
use crate::domain::coordination::JournalError;

/// How large a segment is made. It is deleted as a whole.
const SEGMENT_BYTES: usize = 1 << 20;
/// With less than this left the next segment is made, before it is needed: what was promised room has it.
const RESERVE_BYTES: usize = SEGMENT_BYTES / 4;
/// One flush covers about so many bytes at most.
const BATCH_BYTES: usize = RESERVE_BYTES / 2;
/// How often garbage is looked for when nothing is written.
const IDLE: Duration = Duration::from_secs(30);

/// Told when the record is durable, or that it may not be.
pub(super) type Reply = oneshot::Sender<Result<(), JournalError>>;

pub(super) enum Command {
    /// Writes a framed record.
    Append { key: RecordKey, frame: Vec<u8>, reply: Reply },
    /// Takes garbage out, and makes a new segment if there is no good one.
    Prepare { reply: Reply },
}

struct Segment {
    number: u64,
    file: Box<dyn SegmentFile>,
    used: usize,
    size: usize,
}

impl Segment {
    fn left(&self) -> usize {
        self.size - self.used
    }
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    /// The directory of this run.
    directory: PathBuf,
    shared: Arc<Shared>,
    /// `None` after a failure.
    current: Option<Segment>,
    /// What is on the disk beside the current one.
    former: BTreeMap<u64, PathBuf>,
    next: u64,
}

impl Writer {
    /// With its first segment, unless the disk has no room for it.
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path, shared: Arc<Shared>) -> Self {
        let mut writer = Self {
            disk,
            directory: directory.to_owned(),
            shared,
            current: None,
            former: BTreeMap::new(),
            next: 0,
        };
        // Logged, and tried again by whoever asks next.
        let _ = writer.roll(0);
        writer
    }

    /// Until nobody can give commands any more.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let mut next = match commands.recv_timeout(IDLE) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut batch, mut bytes, mut asking) = (Vec::new(), 0, Vec::new());
            while let Some(command) = next {
                match command {
                    Command::Append { key, frame, reply } => {
                        bytes += frame.len();
                        batch.push((key, frame, reply));
                    }
                    Command::Prepare { reply } => asking.push(reply),
                }
                next = if bytes < BATCH_BYTES { commands.try_recv().ok() } else { None };
            }
            if !batch.is_empty() {
                self.append(batch, bytes);
            }
            self.tidy();
            if !asking.is_empty() {
                answer(asking, &if self.shared.is_ready() { Ok(()) } else { self.roll(0) });
            }
        }
    }

    fn append(&mut self, batch: Vec<(RecordKey, Vec<u8>, Reply)>, bytes: usize) {
        let fits = self.current.as_ref().is_some_and(|segment| bytes <= segment.left());
        let result = if fits { Ok(()) } else { self.roll(bytes) };
        let Some(segment) = self.current.as_mut().filter(|_| result.is_ok()) else {
            for (key, _, _) in &batch {
                self.shared.index().not_written(*key);
            }
            answer(batch.into_iter().map(|(_, _, reply)| reply), &result);
            return;
        };
        let result = write(segment, &batch, bytes);
        let number = segment.number;
        {
            let mut index = self.shared.index();
            for (key, _, _) in &batch {
                index.written(*key, number, result.is_ok());
            }
        }
        match &result {
            Ok(()) => metrics::counter!("token_broker_journal_flushes_total").increment(1),
            Err(error) => self.give_up(error),
        }
        answer(batch.into_iter().map(|(_, _, reply)| reply), &result);
        if self.current.as_ref().is_some_and(|segment| segment.left() < RESERVE_BYTES) {
            // Logged; until it works, the journal is not ready.
            let _ = self.roll(0);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        if let Some(segment) = self.current.take() {
            tracing::error!(%error, segment = segment.number, "the journal could not be written; the segment is given up");
            self.former.insert(segment.number, segment_path(&self.directory, segment.number));
        }
        self.shared.set_ready(false);
    }

    /// A new segment with room for so many bytes. The current one stays if none can be made.
    fn roll(&mut self, room: usize) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let size = SEGMENT_BYTES.max(room.saturating_add(RESERVE_BYTES));
        let path = segment_path(&self.directory, number);
        match self.disk.create(&path, size) {
            Ok(file) => {
                let old = self.current.replace(Segment { number, file, used: 0, size });
                self.shared.index().opened(number);
                if let Some(old) = old {
                    self.former.insert(old.number, segment_path(&self.directory, old.number));
                }
                if !self.shared.is_ready() {
                    tracing::info!(segment = number, "the journal has a new segment");
                }
                self.shared.set_ready(true);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the journal could not make a new segment");
                self.shared.set_ready(false);
                Err(error)
            }
        }
    }

    /// Deletes the segments of which nothing is needed any more.
    fn tidy(&mut self) {
        let garbage = self.shared.garbage();
        if let Some(segment) = &self.current
            && segment.used > 0
            && garbage.contains(&segment.number)
        {
            // Old tokens do not lie about for as long as no new ones come.
            let _ = self.roll(0);
        }
        for number in garbage {
            let Some(path) = self.former.get(&number) else { continue };
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, segment = number, "a segment of the journal could not be deleted");
                }
                _ => {
                    self.former.remove(&number);
                    self.shared.index().deleted(number);
                }
            }
        }
    }
}

fn write(segment: &mut Segment, batch: &[(RecordKey, Vec<u8>, Reply)], bytes: usize) -> io::Result<()> {
    let mut all = Vec::with_capacity(bytes);
    for (_, frame, _) in batch {
        all.extend_from_slice(frame);
    }
    segment.used += bytes;
    segment.file.append(&all)?;
    segment.file.flush()
}

fn answer(replies: impl IntoIterator<Item = Reply>, result: &io::Result<()>) {
    for reply in replies {
        let copy = result
            .as_ref()
            .copied()
            .map_err(|error| JournalError(Box::new(io::Error::new(error.kind(), error.to_string()))));
        // Who does not listen any more has given up waiting; the record is written all the same.
        let _ = reply.send(copy);
    }
}
