//! A lock on a file that the system releases when the process ends, however it ends: who gets it has the proof that
//! whoever had it before is dead, or has let go.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Held until dropped. The file is never deleted: two processes would lock two files.
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    /// Creates the file (mode 0600) if it is not there. `None`: somebody else has it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = private().open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether the path still leads to the locked file. If not, another process may have a lock of its own.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        is_at(&self.0, path)
    }
}

impl Drop for FileLock {
    /// Said, not left to the closing of the file: a process that is being started at this moment has a copy of every
    /// open file until its own program runs, and would hold the lock for so long.
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock a little later.
        let _ = self.0.unlock();
    }
}

/// Whether the path still leads to this file.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), FileId::of(path)) {
        (Ok(held), Ok(found)) => FileId::from(&held) == found,
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Which file a path leads to, to find out later whether it still leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileId {
    #[cfg(unix)]
    fn from(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self(metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    fn from(_: &Metadata) -> Self {
        Self(0, 0)
    }
}

/// To create, or to open, a file that only its owner may read and write.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
