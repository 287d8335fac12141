//! `[audit]`: the log of decisions.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Whether answers whose rows can't be written are withheld.
    pub refuse: bool,
    /// How long an answer waits for its row.
    pub wait: Duration,
    /// How many rows may wait.
    pub queue: usize,
    /// How long rows are kept; `None`: for good.
    pub keep: Option<Duration>,
    /// A copy on standard output.
    pub stdout: bool,
    /// A copy in a file.
    pub file: Option<AuditFile>,
}

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct AuditFile {
    /// Where.
    pub path: PathBuf,
    /// How large, in bytes.
    pub max_bytes: u64,
    /// How many more.
    pub kept: u32,
}

const DAY: Duration = Duration::from_hours(24);

pub(super) fn read(section: &Section<'_>) -> Option<Audit> {
    let refuse = section.required("on_failure").parsed(|text| match text {
        "refuse" => Ok(true),
        "go_on" => Ok(false),
        _ => Err("must be \"refuse\" or \"go_on\""),
    });
    let wait = section.required("wait").duration(Duration::from_millis(100)..=Duration::from_secs(30));
    let queue = section.required("queue").integer(1..=1_000_000);
    let keep_key = section.required("keep");
    let keep = keep_key.duration(Duration::ZERO..=DAY * 36_500);
    if keep.is_some_and(|keep| !keep.is_zero() && keep < DAY) {
        keep_key.problem("must be 0s (for good) or at least 1d");
    }
    let stdout = section.required("stdout").boolean();
    let file_key = section.optional("file");
    let path = file_key.path();
    let max_bytes = section.required("file_max_bytes").integer(1_000_000..=u32::MAX);
    let kept = section.required("file_kept").integer(0..=1_000);
    section.finish();
    let (max_bytes, kept) = (u64::from(max_bytes?), kept?);
    Some(Audit {
        refuse: refuse?,
        wait: wait?,
        queue: usize::try_from(queue?).ok()?,
        keep: keep.filter(|keep| !keep.is_zero()),
        stdout: stdout?,
        file: path.map(|path| AuditFile { path, max_bytes, kept }),
    })
}
