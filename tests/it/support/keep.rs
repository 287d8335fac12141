//! What tests leave behind. It vanishes with them, unless `TOKEN_BROKER_TEST_KEEP` names a folder: then `.ci/leaks` searches it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A folder of a test.
pub(crate) struct KeptFolder(TempDir);

impl KeptFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for KeptFolder {
    fn drop(&mut self) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(kept) = place() else { return };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        copy(self.path(), &kept.join(format!("{}-{number}", std::process::id())));
    }
}

/// Where things are kept, if they are.
pub(crate) fn place() -> Option<PathBuf> {
    std::env::var_os("TOKEN_BROKER_TEST_KEEP").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Everything but what the operator wrote there himself: configuration, definitions, keys.
fn copy(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    let _ = std::fs::create_dir_all(to);
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if path.is_file()
            && !path.extension().is_some_and(|end| end == "toml" || end == "key" || end == "pem")
        {
            // A file that its owner has just removed is not left behind.
            let _ = std::fs::copy(&path, to.join(name));
        }
    }
}
