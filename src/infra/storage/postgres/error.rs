//! What went wrong, in the domain's terms.

use sqlx::error::DatabaseError;

use crate::domain::ports::StoreError;

/// Codes of errors (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
mod code {
    /// A row breaks a check of its table.
    pub(super) const CHECK_VIOLATION: &str = "23514";
    /// A text is not JSON, where JSON was stored.
    pub(super) const INVALID_TEXT: &str = "22P02";
    pub(super) const DATA_CORRUPTED: &str = "XX001";
    pub(super) const INDEX_CORRUPTED: &str = "XX002";
    pub(super) const READ_ONLY: &str = "25006";
    pub(super) const NO_SUCH_DATABASE: &str = "3D000";
    pub(super) const NO_PRIVILEGE: &str = "42501";
    /// Class: invalid authorization.
    pub(super) const AUTHORIZATION: &str = "28";
    /// Class: connection exceptions.
    pub(super) const CONNECTION: &str = "08";
    /// Class: the administrator, or the server's own end.
    pub(super) const INTERVENTION: &str = "57P";
}

/// Why a database can't be opened, and what to do. `server` names user, host, port and database, never a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody answers, or nobody in time.
    #[error("the database {server} is not reachable: {source}")]
    Unreachable {
        /// The database.
        server: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server does not know the user, or wants another password or connection.
    #[error("the database {server} refuses the connection: {reason}: look at storage.url and the password")]
    Refused {
        /// The database.
        server: String,
        /// In the server's words.
        reason: String,
    },
    /// The server has no such database.
    #[error("the database {server} does not exist: create it, or change storage.url")]
    NoSuchDatabase {
        /// The database.
        server: String,
    },
    /// The server is older than the SQL.
    #[error("the database {server} runs PostgreSQL {version}; at least version 14 is needed")]
    TooOld {
        /// The database.
        server: String,
        /// What it runs.
        version: String,
    },
    /// Texts would not be stored as they are.
    #[error("the database {server} has the encoding {encoding}: create it with ENCODING 'UTF8'")]
    Encoding {
        /// The database.
        server: String,
        /// What it has.
        encoding: String,
    },
    /// A replica.
    #[error("the database {server} is read-only: use the address of the primary")]
    ReadOnly {
        /// The database.
        server: String,
    },
    /// The role may not do it.
    #[error(
        "the role of the database {server} lacks a privilege: {reason}: run `token-broker migrate` as the owner of the \
         tables, and grant the broker's role what docs/POSTGRES.md lists"
    )]
    NotAllowed {
        /// The database.
        server: String,
        /// In the server's words.
        reason: String,
    },
    /// Something else is in it.
    #[error("{server} is not a database of the token broker: create one of its own, or change storage.url")]
    NotADatabase {
        /// The database.
        server: String,
    },
    /// A later version of the program has been here, and this one can't live with what it did.
    #[error(
        "the database {server} has migration {version}, which this version does not know and can't work with: run the \
         newer version, or restore a backup from before"
    )]
    NewerSchema {
        /// The database.
        server: String,
        /// The first unknown migration.
        version: i64,
    },
    /// A migration was applied in another form: the program was changed, or the database was.
    #[error(
        "migration {version} of the database {server} is not the one of this version: run the version that made the \
         database"
    )]
    ChangedSchema {
        /// The database.
        server: String,
        /// Which.
        version: i64,
    },
    /// The URL's options can't be used, such as a certificate that can't be read.
    #[error("the database {server} can't be connected to: {source}")]
    Options {
        /// The database.
        server: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something else.
    #[error("the database {server} can't be opened: {source}")]
    Other {
        /// The database.
        server: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn from_sqlx(server: &str, error: sqlx::Error) -> Self {
        let server = server.to_owned();
        match error.as_database_error() {
            Some(said) => match code_of(said) {
                code::NO_SUCH_DATABASE => Self::NoSuchDatabase { server },
                code::READ_ONLY => Self::ReadOnly { server },
                code::NO_PRIVILEGE => Self::NotAllowed { server, reason: said.message().to_owned() },
                other if other.starts_with(code::AUTHORIZATION) => {
                    Self::Refused { server, reason: said.message().to_owned() }
                }
                _ if connection_is_lost(&error) => Self::Unreachable { server, source: Box::new(error) },
                _ => Self::Other { server, source: Box::new(error) },
            },
            None => match &error {
                sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => {
                    Self::Options { server, source: Box::new(error) }
                }
                _ => Self::Unreachable { server, source: Box::new(error) },
            },
        }
    }
}

/// What a failed statement means. A row that breaks a check was damaged outside the program, and will not heal by trying
/// again. All else is an outage: no connection, a time-out, a server that is ending or starting, a primary that has become
/// a replica, a deadlock; and other constraint violations, which are faults of the program, with their cause.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) = &error {
        return StoreError::Corrupt("a column has another type");
    }
    match error.as_database_error().map(code_of) {
        Some(code::CHECK_VIOLATION) => StoreError::Corrupt("a row breaks a check of its table"),
        Some(code::INVALID_TEXT) => StoreError::Corrupt("a list"),
        Some(code::DATA_CORRUPTED | code::INDEX_CORRUPTED) => StoreError::Corrupt("the database's files"),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// Whether the connection is of no use any more: it broke, the server ends it, or it leads to a server that only reads.
/// The statement may have been done all the same.
pub(super) fn connection_is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(said) => {
            let code = code_of(said.as_ref());
            code == code::READ_ONLY
                || code.starts_with(code::CONNECTION)
                || code.starts_with(code::INTERVENTION)
        }
        _ => false,
    }
}

/// Whether the server refused a write because it only reads.
pub(super) fn only_reads(error: &sqlx::Error) -> bool {
    error.as_database_error().map(code_of) == Some(code::READ_ONLY)
}

fn code_of(error: &dyn DatabaseError) -> &str {
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().map_or("", |error| error.code())
}
