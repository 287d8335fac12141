//! A file of JSON lines. It rotates by size: `audit.jsonl` becomes `audit.jsonl.1`, that one `audit.jsonl.2`, and so on. A
//! file that somebody else has moved away or deleted is made anew. A write that fails leaves no half line behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::lines;
use super::writer::Writer;
use crate::domain::audit::{AuditSink, Head, Row, SinkError};
use crate::infra::file_lock::{FileLock, is_at};

/// Where, how large, how many.
#[derive(Debug, Clone)]
pub struct FileSinkSettings {
    /// The file.
    pub path: PathBuf,
    /// A file of this size is not written any more, in bytes.
    pub max_bytes: u64,
    /// How many files are kept beside the one that is written.
    pub kept: u32,
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("audit.file: {path} can't be written: {source}")]
pub struct FileSinkError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// See the module.
#[derive(Debug)]
pub struct FileSink(Writer);

const NAME: &str = "file";

impl FileSink {
    /// Opens the file, and makes it (mode 0600) if it is not there.
    pub fn open(settings: FileSinkSettings) -> Result<Self, FileSinkError> {
        let path = settings.path.clone();
        let start = || {
            let lock = FileLock::take(&numbered(&settings.path, "lock"))?;
            let lock =
                lock.ok_or_else(|| io::Error::other("another process writes it: give each its own"))?;
            let mut rotated = Rotated { open: Some(open(&settings.path)?), settings, _lock: lock };
            Writer::start("audit-file", move |text| rotated.write(text))
        };
        start().map(Self).map_err(|source| FileSinkError { path, source })
    }
}

#[async_trait]
impl AuditSink for FileSink {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn write(&self, over: Head, rows: Arc<[Row]>) -> Result<(), SinkError> {
        let failed = |source| SinkError { sink: NAME, source };
        self.0.write(lines(over, &rows).map_err(failed)?).await.map_err(failed)
    }
}

struct Rotated {
    open: Option<Open>,
    settings: FileSinkSettings,
    /// Two that write one file would cut off each other's lines.
    _lock: FileLock,
}

/// The file's path with a suffix.
fn numbered(path: &Path, suffix: impl std::fmt::Display) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

struct Open {
    file: File,
    /// Up to here there are whole lines.
    length: u64,
}

impl Rotated {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| !is_at(&open.file, &self.settings.path)) {
            self.open = None;
        }
        let full = |open: &Open| open.length > 0 && open.length >= self.settings.max_bytes;
        if self.open.as_ref().is_some_and(full) {
            self.rotate()?;
        }
        let mut now = match self.open.take() {
            Some(open) => open,
            None => open(&self.settings.path)?,
        };
        match now.file.write_all(text) {
            Ok(()) => {
                now.length += u64::try_from(text.len()).unwrap_or(u64::MAX);
                self.open = Some(now);
                Ok(())
            }
            Err(error) => {
                // On a full disk a file can still be made shorter. If not, it is repaired when it is opened again.
                let _ = now.file.set_len(now.length);
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let name = |number: u32| numbered(&self.settings.path, number);
        let FileSinkSettings { path, kept, .. } = &self.settings;
        if *kept == 0 {
            return std::fs::remove_file(path);
        }
        for number in (1..*kept).rev() {
            match std::fs::rename(name(number), name(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(path, name(1))
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    must_be_ours(&mut file)?;
    let length = whole_lines(&mut file)?;
    file.set_len(length)?;
    Ok(Open { file, length })
}

/// How every line begins, also half of one.
const BEGINNING: &[u8] = b"{\"version\":1,\"sequence\":";

/// What is there and is no audit log stays as it is: the path of another file, of a key for example, is a slip of the pen away.
fn must_be_ours(file: &mut File) -> io::Result<()> {
    let mut beginning = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(u64::try_from(BEGINNING.len()).unwrap_or_default()).read_to_end(&mut beginning)?;
    if BEGINNING.starts_with(&beginning) {
        return Ok(());
    }
    Err(io::Error::other(
        "there is a file already that is no audit log: choose another path, or move it away",
    ))
}

/// How long the file is without the half line that a crash may have left at its end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        buffer.clear();
        file.take(end - start).read_to_end(&mut buffer)?;
        if let Some(at) = buffer.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + u64::try_from(at).unwrap_or_default() + 1);
        }
        end = start;
    }
    Ok(0)
}
