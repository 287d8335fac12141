//! The journal as files: new token pairs are on this replica's disk, sealed, before their rows have them.
//!
//! ```text
//! <journal.directory>/
//!   slot-0/               held by one process under the lock of the file `lock`
//!     lock
//!     run-<owner>/        the records of one process run, named after its owner id in claims
//!       00000000.segment  records one behind the other (`frame.rs`), made with its full length
//! ```
//!
//! Processes that share a directory (several replicas on one host, a container that starts again on the same volume) each
//! take a slot. Who gets the lock of a slot has the proof that the process before it is dead, and takes over what it left.

mod disk;
mod error;
mod former;
pub(crate) mod frame;
mod index;
mod slot;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;

pub use disk::{Disk, OsDisk, SegmentFile};
pub use error::OpenError;
pub use former::Former;

use crate::domain::coordination::{Journal, JournalError};
use crate::domain::credential::{Epoch, Fingerprint};
use crate::domain::key::{ClaimOwner, CredentialId};
use crate::domain::ports::{Clock, LineageWrite};
use crate::infra::record;
use index::Index;
use slot::Slot;
use writer::{Command, Reply, Writer};

/// What the writer's thread and the callers share.
struct Shared {
    index: Mutex<Index>,
    ready: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    fn has_garbage(&self) -> bool {
        let now = self.clock.monotonic();
        self.index().has_garbage(now)
    }

    fn garbage(&self) -> Vec<u64> {
        let now = self.clock.monotonic();
        self.index().garbage(now)
    }
}

/// The journal of this process run. Dropping it waits for the write under way and then lets go of the slot.
pub struct FileJournal {
    shared: Arc<Shared>,
    directory: PathBuf,
    /// `None` while it is being dropped.
    commands: Option<Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    _slot: Arc<Slot>,
}

impl FileJournal {
    /// Takes a slot, and takes over every slot whose process has died. Makes the directory if its parent is there.
    /// Blocks; for the start of the process.
    pub fn open(
        directory: &Path,
        owner: ClaimOwner,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Vec<Former>), OpenError> {
        Self::open_on(Arc::new(OsDisk), directory, owner, clock)
    }

    /// [`FileJournal::open`] on another disk.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        owner: ClaimOwner,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Vec<Former>), OpenError> {
        let failed = |error| OpenError::from_io(directory, error);
        let (own, dead) = slot::take(directory)?;
        let own = Arc::new(own);
        let mut former = Former::in_slot(&own).map_err(failed)?;
        for slot in dead {
            former.extend(Former::in_slot(&Arc::new(slot)).map_err(failed)?);
        }
        let run = own.begin_run(owner).map_err(failed)?;
        let shared = Arc::new(Shared { index: Mutex::default(), ready: AtomicBool::new(false), clock });
        let writer = Writer::new(disk, &run, Arc::clone(&shared));
        let (commands, received) = channel();
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(failed)?;
        let journal =
            Self { shared, directory: run, commands: Some(commands), writer: Some(writer), _slot: own };
        Ok((Arc::new(journal), former))
    }

    /// Where this process run writes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives the writer a command and waits for its answer, without holding up the runtime.
    async fn ask(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.as_ref().is_some_and(|commands| commands.send(command(reply)).is_ok());
        if !sent {
            return Err(gone());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn ready(&self) -> Result<(), JournalError> {
        // Records that are flushed into a file without a name are lost with the process.
        if !self.directory.is_dir() {
            let gone = "its directory was removed: restart the broker";
            return Err(JournalError(gone.into()));
        }
        if self.shared.is_ready() && !self.shared.has_garbage() {
            return Ok(());
        }
        // Now, while the provider has not been asked yet, is a better time for it than when its answer waits.
        self.ask(|reply| Command::Prepare { reply }).await
    }

    async fn append(&self, write: &LineageWrite) -> Result<(), JournalError> {
        let frame = frame::frame(&record::encode(write))
            .ok_or_else(|| JournalError(Box::new(io::Error::from(io::ErrorKind::FileTooLarge))))?;
        self.shared.index().begins(write);
        let key = (write.id, write.epoch);
        self.ask(|reply| Command::Append { key, frame, reply }).await
    }

    async fn stored(&self, credential: CredentialId, epoch: Epoch) {
        let now = self.shared.clock.monotonic();
        self.shared.index().stored((credential, epoch), now);
    }

    async fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite> {
        self.shared.index().successor(credential, parent)
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.commands.take();
        if let Some(writer) = self.writer.take() {
            // It has no answer; a panic of it was reported when it happened.
            let _ = writer.join();
        }
    }
}

fn segment_path(run: &Path, number: u64) -> PathBuf {
    run.join(format!("{number:08}.segment"))
}

/// The writer's thread has ended.
fn gone() -> JournalError {
    JournalError(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)))
}
