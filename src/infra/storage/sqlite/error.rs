//! What went wrong, in the domain's terms.

use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

use crate::domain::ports::StoreError;

/// Primary result codes (<https://www.sqlite.org/rescode.html>). The low byte of an extended code.
mod code {
    pub(super) const ERROR: u8 = 1;
    pub(super) const PERM: u8 = 3;
    pub(super) const READONLY: u8 = 8;
    pub(super) const CORRUPT: u8 = 11;
    pub(super) const CANTOPEN: u8 = 14;
    pub(super) const AUTH: u8 = 23;
    pub(super) const NOTADB: u8 = 26;
}

/// Why a database can't be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder does not exist.
    #[error("the directory of the database {} does not exist: create it, or change the path", path.display())]
    DirectoryMissing {
        /// The database.
        path: PathBuf,
    },
    /// Another process has it, or this one has it already.
    #[error("the database {} is in use by another process: stop that, or use another path", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The file or its folder is read-only.
    #[error(
        "the database {} is not writable: give the broker's user write permission to the file and its directory",
        path.display()
    )]
    NotWritable {
        /// The database.
        path: PathBuf,
    },
    /// Something else is in the file.
    #[error("{} is not a database of the token broker: move it away, or change the path", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A later version of the program has been here.
    #[error(
        "the database {} has migration {version}, which this version does not know: run the newer version, or restore a \
         backup from before",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// The first unknown migration.
        version: i64,
    },
    /// A migration was applied in another form: the program was changed, or the database was.
    #[error(
        "migration {version} of the database {} is not the one of this version: run the version that made the database",
        path.display()
    )]
    ChangedSchema {
        /// The database.
        path: PathBuf,
        /// Which.
        version: i64,
    },
    /// The file's pages contradict each other.
    #[error("the database {} is damaged: restore a backup", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
    },
    /// Something else.
    #[error("the database {} can't be opened: {source}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn from_io(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path }
            }
            std::io::ErrorKind::NotFound => Self::DirectoryMissing { path },
            _ => Self::Io { path, source: Box::new(error) },
        }
    }

    pub(super) fn from_sqlx(path: &Path, error: sqlx::Error) -> Self {
        let path = path.to_owned();
        match primary_code(&error) {
            Some(code::NOTADB) => Self::NotADatabase { path },
            Some(code::CORRUPT) => Self::Damaged { path },
            Some(code::READONLY | code::PERM | code::AUTH | code::CANTOPEN) => Self::NotWritable { path },
            _ => Self::Io { path, source: Box::new(error) },
        }
    }

    pub(super) fn from_migrate(path: &Path, error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::NewerSchema { path: path.to_owned(), version },
            MigrateError::VersionMismatch(version) => Self::ChangedSchema { path: path.to_owned(), version },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::from_sqlx(path, error)
            }
            other => Self::Io { path: path.to_owned(), source: Box::new(other) },
        }
    }
}

/// A CHECK of a table (extended result code `SQLITE_CONSTRAINT_CHECK`).
const BROKEN_CHECK: &str = "275";

/// What a failed statement means. A row that breaks a check was damaged outside the program, and will not heal by
/// trying again; other constraint violations are faults of the program, and count as unavailable with their cause.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) = &error {
        return StoreError::Corrupt("a column has another type");
    }
    if error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(BROKEN_CHECK) {
        return StoreError::Corrupt("a row breaks a check of its table");
    }
    match primary_code(&error) {
        Some(code::CORRUPT | code::NOTADB) => StoreError::Corrupt("the database file"),
        Some(code::ERROR) if error.to_string().contains("malformed JSON") => StoreError::Corrupt("a list"),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

fn primary_code(error: &sqlx::Error) -> Option<u8> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    u8::try_from(code & 0xff).ok()
}
