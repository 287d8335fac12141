//! Slots: directories `slot-0`, `slot-1`, … in the journal's directory, each held by one process under a lock that the
//! system releases when the process ends, however it ends. In a slot, a directory for each process run whose records are
//! still there, named after it: the name is durable before its first record is.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::sync_directory;
use super::error::OpenError;
use crate::domain::key::ClaimOwner;
use crate::infra::file_lock::FileLock;

/// More processes do not share one directory.
const MAX_SLOTS: u32 = 1024;
const SLOT: &str = "slot-";
const RUN: &str = "run-";

/// A slot whose lock this process has: whoever had it before is dead.
pub(super) struct Slot {
    directory: PathBuf,
    _lock: FileLock,
}

/// This process's slot, and all others that nobody holds.
pub(super) fn take(base: &Path) -> Result<(Slot, Vec<Slot>), OpenError> {
    let io = |error| OpenError::from_io(base, error);
    make_directory(base).map_err(io)?;
    let mut free = Vec::new();
    let existing = numbers(base).map_err(io)?;
    for number in &existing {
        free.extend(try_lock(&path_of(base, *number)).map_err(io)?);
    }
    if !free.is_empty() {
        let others = free.split_off(1);
        if let Some(own) = free.pop() {
            return Ok((own, others));
        }
    }
    for number in (0..MAX_SLOTS).filter(|number| !existing.contains(number)) {
        let directory = path_of(base, number);
        make_directory(&directory).map_err(io)?;
        // Another process may have been faster.
        if let Some(own) = try_lock(&directory).map_err(io)? {
            return Ok((own, Vec::new()));
        }
    }
    Err(OpenError::NoSlot { path: base.to_owned(), slots: MAX_SLOTS })
}

impl Slot {
    /// The process runs whose records are here, with their directories.
    pub(super) fn runs(&self) -> io::Result<Vec<(ClaimOwner, PathBuf)>> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(RUN)).and_then(ClaimOwner::parse);
            runs.extend(owner.map(|owner| (owner, entry.path())));
        }
        runs.sort();
        Ok(runs)
    }

    /// Makes the directory of a new run.
    pub(super) fn begin_run(&self, owner: ClaimOwner) -> io::Result<PathBuf> {
        let directory = self.directory.join(format!("{RUN}{owner}"));
        private_directory().create(&directory)?;
        sync_directory(&self.directory)?;
        Ok(directory)
    }

    /// Removes the directory of a run, unless something is left in it.
    pub(super) fn end_run(&self, directory: &Path) -> io::Result<()> {
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_directory(&self.directory),
        }
    }
}

fn path_of(base: &Path, number: u32) -> PathBuf {
    base.join(format!("{SLOT}{number}"))
}

/// The slots that there are, in order.
fn numbers(base: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(base)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix(SLOT)?.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `None`: a living process has it.
fn try_lock(directory: &Path) -> io::Result<Option<Slot>> {
    let lock = FileLock::take(&directory.join("lock"))?;
    Ok(lock.map(|lock| Slot { directory: directory.to_owned(), _lock: lock }))
}

fn private_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes a directory that may be there already, and its name durable.
fn make_directory(path: &Path) -> io::Result<()> {
    match private_directory().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        },
    }
}
