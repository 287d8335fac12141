//! `[storage]`: the database.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::reader::Section;
use super::secret::secret;
use crate::domain::secret::SecretString;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub enum Storage {
    /// The embedded database.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A server.
    Postgres(Postgres),
}

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// `postgres://user@host:port/database?sslmode=…`, without a password.
    pub url: Url,
    /// The password, if the server asks for one.
    pub password: Option<SecretString>,
    /// Of this replica.
    pub max_connections: u32,
    /// How long a call waits for a connection.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

const LONGEST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn read(section: &Section<'_>) -> Option<Storage> {
    let path = section.required("path");
    let url = section.optional("url");
    if url.is_set() && path.is_the_operators() {
        url.problem("is given beside storage.path: a database is either a file or a server");
    }
    let file = path.path();
    let server = url.parsed(server_url);
    let password = secret(&section.optional("password_file"), &section.optional("password_env"));
    let max_connections = section.required("max_connections").integer(2..=1000);
    let connect_timeout = section.required("connect_timeout").duration(SHORTEST..=LONGEST);
    let statement_timeout = section.required("statement_timeout").duration(SHORTEST..=LONGEST);
    section.finish();
    let (password, max_connections) = (password?, max_connections?);
    let (connect_timeout, statement_timeout) = (connect_timeout?, statement_timeout?);
    if !url.is_set() {
        return Some(Storage::Sqlite { path: file? });
    }
    Some(Storage::Postgres(Postgres {
        url: server?,
        password,
        max_connections,
        connect_timeout,
        statement_timeout,
    }))
}

/// What a URL may say behind its question mark. Another one would be left out silently, such as a misspelt `sslmode`.
const OPTIONS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "statement-cache-capacity"];
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL")?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err("must begin with postgres://");
    }
    if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
        // It would be printed with the rest of the URL.
        return Err("must not contain a password: use password_file or password_env");
    }
    if url.username().is_empty() {
        return Err("must name the user: postgres://user@host/database");
    }
    for (name, value) in url.query_pairs() {
        if !OPTIONS.contains(&&*name) {
            return Err(
                "has an unknown option; there are: sslmode, sslrootcert, sslcert, sslkey, host (the directory of \
                        a socket) and statement-cache-capacity",
            );
        }
        if name == "sslmode" && !SSL_MODES.contains(&&*value) {
            return Err("sslmode must be one of disable, prefer, require, verify-ca and verify-full");
        }
    }
    if url.path().len() < 2 {
        return Err("must name the database: postgres://user@host/database");
    }
    Ok(url)
}
