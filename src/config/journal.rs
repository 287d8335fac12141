//! `[journal]`: the local copy of new tokens.

use std::path::PathBuf;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Journal {
    /// Its directory.
    pub directory: PathBuf,
}

pub(super) fn read(section: &Section<'_>) -> Option<Journal> {
    let directory = section.required("directory").path();
    section.finish();
    Some(Journal { directory: directory? })
}
