//! `[storage]`: the database.

use std::path::PathBuf;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The SQLite file.
    pub path: PathBuf,
}

pub(super) fn read(section: &Section<'_>) -> Option<Storage> {
    let path = section.required("path").path();
    section.finish();
    Some(Storage { path: path? })
}
