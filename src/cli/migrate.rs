//! `migrate`: the database's schema.

use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use super::settings::ConfigArgs;
use crate::infra::storage::sqlite::SqliteStore;

const HELP: &str = "\
`serve` applies migrations too; this is for doing it apart. The broker must not be running.

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

pub(super) async fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let path = args.config.load()?.storage.path;
    let before = SqliteStore::migrations(&path).await?;
    let pending = before.iter().filter(|migration| !migration.applied).count();
    if !args.check {
        SqliteStore::open(&path).await?.close().await;
    }
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
