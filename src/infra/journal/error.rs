//! Why a journal can't be opened.

use std::io;
use std::path::{Path, PathBuf};

/// Why a journal can't be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing to make the directory in.
    #[error("the directory above the journal {} does not exist: create it, or change journal.directory", path.display())]
    DirectoryMissing {
        /// The journal.
        path: PathBuf,
    },
    /// A file is in its place.
    #[error("the journal {} is not a directory: move it away, or change journal.directory", path.display())]
    NotADirectory {
        /// The journal.
        path: PathBuf,
    },
    /// It is read-only.
    #[error(
        "the journal {} is not writable: give the broker's user write permission to it, or change journal.directory",
        path.display()
    )]
    NotWritable {
        /// The journal.
        path: PathBuf,
    },
    /// More processes than anybody would start on one host.
    #[error("the journal {} has no free slot: each of its {slots} is locked by a process", path.display())]
    NoSlot {
        /// The journal.
        path: PathBuf,
        /// How many there can be.
        slots: u32,
    },
    /// Something else.
    #[error("the journal {} can't be opened: {source}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn from_io(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::DirectoryMissing { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::NotWritable { path },
            _ => Self::Io { path, source: error },
        }
    }
}
