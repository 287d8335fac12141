//! `migrate`: the database's schema.

use std::sync::Arc;

use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use super::settings::ConfigArgs;
use crate::app::postgres_settings;
use crate::config::Storage;
use crate::infra::storage::MigrationState;
use crate::infra::storage::postgres::{DatabaseClock, PgStore, RowClock};
use crate::infra::storage::sqlite::SqliteStore;
use crate::infra::system::SystemClock;

const HELP: &str = "\
`serve` applies migrations too; this is for doing it apart: with a user that may change tables, or before an update. With
SQLite the broker must not be running; with PostgreSQL replicas of the version before go on serving.

Examples:
  token-broker migrate
  token-broker migrate --check      exit code 13 if there is something to apply";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Change nothing; tell what would be applied
    #[arg(long)]
    check: bool,
}

/// What the database had; `check`: and has still.
async fn migrate(storage: &Storage, check: bool) -> Result<Vec<MigrationState>, CliError> {
    match storage {
        Storage::Sqlite { path } => {
            let before = SqliteStore::migrations(path).await?;
            if !check {
                SqliteStore::open(path).await?.close().await;
            }
            Ok(before)
        }
        Storage::Postgres(settings) => {
            // TLS to the server needs it.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let settings = postgres_settings(settings);
            let before = PgStore::migrations(&settings).await?;
            if !check {
                let clock = Arc::new(DatabaseClock::new(Arc::new(SystemClock)));
                PgStore::open(&settings, RowClock::Database, clock).await?.close().await;
            }
            Ok(before)
        }
    }
}

pub(super) async fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let before = migrate(&args.config.load()?.storage, args.check).await?;
    let pending = before.iter().filter(|migration| !migration.applied).count();
    let status = |applied: bool| match (applied, args.check) {
        (true, _) => "applied",
        (false, true) => "pending",
        (false, false) => "applied now",
    };
    let rows: Vec<Vec<String>> = before
        .iter()
        .map(|m| vec![m.version.to_string(), status(m.applied).to_owned(), m.description.clone()])
        .collect();
    let json: Vec<_> = before
        .iter()
        .map(|m| json!({ "version": m.version, "description": m.description, "status": status(m.applied) }))
        .collect();
    output.answer(&table(&["VERSION", "STATUS", "DESCRIPTION"], &rows), &json)?;
    Ok(if args.check && pending > 0 { Exit::MigrationsPending } else { Exit::Done })
}
