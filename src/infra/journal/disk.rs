//! The disk, as far as a segment needs it. A trait, so that tests can fill it, break it and count its flushes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Makes segment files.
pub trait Disk: Send + Sync {
    /// A new file of so many zero bytes, it and its name durable. Its bytes are reserved from here on; the first write
    /// goes to its beginning.
    fn create(&self, path: &Path, size: usize) -> io::Result<Box<dyn SegmentFile>>;
}

/// A file that is written from its beginning to its end.
pub trait SegmentFile: Send {
    /// Writes behind what was written before.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all of it durable. After an error nothing is known of any write since the last success, and asking again
    /// proves nothing: the kernel may have dropped the pages.
    fn flush(&mut self) -> io::Result<()>;
}

/// The system's disk.
pub struct OsDisk;

/// Zeros are written in pieces of this size.
static PIECE: [u8; 65_536] = [0; 65_536];

impl Disk for OsDisk {
    fn create(&self, path: &Path, size: usize) -> io::Result<Box<dyn SegmentFile>> {
        reserve(path, size).inspect_err(|_| {
            // Whatever was made of it takes up room for nothing; that it can't be removed changes nothing.
            let _ = std::fs::remove_file(path);
        })
    }
}

/// Zeros are written rather than a length set: a file with holes would find out at its first append that the disk is
/// full. A flush then also has no new length to write.
fn reserve(path: &Path, size: usize) -> io::Result<Box<dyn SegmentFile>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut left = size;
    while left > 0 {
        let piece = left.min(PIECE.len());
        file.write_all(PIECE.get(..piece).unwrap_or(&PIECE))?;
        left -= piece;
    }
    file.sync_all()?;
    io::Seek::rewind(&mut file)?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(Box::new(OsSegment(file)))
}

struct OsSegment(File);

impl SegmentFile for OsSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
