//! Exit codes: one for each thing that a script may want to tell apart. Listed in `docs/CLI.md` and in `--help`.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It went wrong in a way that no other code names; `healthcheck`: not serving.
    Failed = 1,
    /// The command line is wrong. clap's own code.
    Usage = 2,
    /// The configuration can't be read or has mistakes.
    Config = 3,
    /// An address can't be listened on.
    Bind = 4,
    /// The database can't be opened.
    Database = 5,
    /// The key-encryption keys are not those of the database.
    Vault = 6,
    /// The broker can't be reached, or can't do it now: try again.
    Unavailable = 7,
    /// The API key is not known, or may not do this.
    Denied = 8,
    /// The call is wrong: an argument, an unknown thing, a wrong state.
    Refused = 9,
    /// There is no token: the user has to consent.
    ConsentNeeded = 10,
    /// The user said no, or the consent failed, or nobody came in time.
    ConsentFailed = 11,
    /// The broker stopped before all calls had ended, or all rows of the audit log were written.
    CutOff = 12,
    /// `migrate --check`: there are migrations to apply.
    MigrationsPending = 13,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
