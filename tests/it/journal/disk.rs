//! The real disk behind switches: it fills up, its flushes fail, hold and are counted.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use token_broker::infra::journal::{Disk, OsDisk, SegmentFile};

#[derive(Default)]
pub(crate) struct Switches {
    /// No new file fits.
    pub(crate) full: AtomicBool,
    /// The next write fails when half of it is done.
    pub(crate) breaks_write: AtomicBool,
    /// The next flush fails.
    pub(crate) breaks_flush: AtomicBool,
    /// How many flushes were asked for.
    pub(crate) flushes: AtomicUsize,
    held: Mutex<bool>,
    released: Condvar,
}

impl Switches {
    /// Flushes wait until they are let go.
    pub(crate) fn hold(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.released.notify_all();
    }
}

pub(crate) struct SwitchedDisk(pub(crate) Arc<Switches>);

impl Disk for SwitchedDisk {
    fn create(&self, path: &Path, size: usize) -> io::Result<Box<dyn SegmentFile>> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(SwitchedFile { inner: OsDisk.create(path, size)?, switches: Arc::clone(&self.0) }))
    }
}

struct SwitchedFile {
    inner: Box<dyn SegmentFile>,
    switches: Arc<Switches>,
}

impl SegmentFile for SwitchedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.switches.breaks_write.swap(false, Ordering::SeqCst) {
            self.inner.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.append(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.switches.flushes.fetch_add(1, Ordering::SeqCst);
        drop(self.switches.released.wait_while(self.switches.held.lock().unwrap(), |held| *held).unwrap());
        if self.switches.breaks_flush.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        self.inner.flush()
    }
}
