//! `callers list`: the callers of the configuration, or all that a broker knows.

use serde_json::{Value, json};

use super::rule_args::summary;
use super::stored::{self, TenantArgs};
use crate::cli::client::ClientArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, table};
use crate::cli::settings::ConfigArgs;
use crate::r#gen::v1 as pb;
use crate::transport::grpc::identity_messages;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask the broker, which knows the callers of its database, too; needs an API key with `manage_callers`
    #[arg(long, conflicts_with = "config")]
    stored: bool,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    if args.stored {
        return stored::list(&args.client, &args.tenant, output).await;
    }
    let config = args.config.load()?;
    let mut rows = Vec::new();
    let mut all = Vec::<Value>::new();
    for entry in &config.callers {
        let caller = &entry.caller;
        let (ids, subjects) = identity_messages(entry.identities.iter().cloned());
        let first = [caller.id.to_string(), caller.tenant.to_string(), entry.key_hashes.len().to_string()];
        let allowed: Vec<_> = caller.rules.iter().map(summary).collect();
        rows.extend(lines(&first, &[shown(&ids, &subjects), allowed]));
        all.push(json!({
            "id": caller.id.as_str(),
            "tenant": caller.tenant.as_str(),
            "keys": entry.key_hashes.len(),
            "spiffe_ids": ids,
            "subjects": subjects.iter().map(stored::subject_to_json).collect::<Vec<_>>(),
            "allow": caller.rules,
            "admin": caller.admin.actions,
            "all_tenants": caller.admin.all_tenants,
        }));
    }
    output.answer(&table(&["CALLER", "TENANT", "KEYS", "IS", "ALLOW"], &rows), &all)?;
    Ok(Exit::Done)
}

/// What a caller proves to be beside its keys, for people.
pub(super) fn shown(ids: &[String], subjects: &[pb::JwtSubject]) -> Vec<String> {
    let subjects = subjects.iter().map(|of| format!("{} of {}", of.subject, of.issuer));
    ids.iter().cloned().chain(subjects).collect()
}

/// Rows of a caller: what there is one of, and beside it columns of what there may be several of.
pub(super) fn lines(first: &[String], columns: &[Vec<String>]) -> Vec<Vec<String>> {
    let height = columns.iter().map(Vec::len).max().unwrap_or_default().max(1);
    let line = |n: usize| {
        let single = first.iter().map(|text| if n == 0 { text.clone() } else { String::new() });
        let several = columns.iter().map(|column| column.get(n).cloned().unwrap_or_default());
        single.chain(several).collect()
    };
    (0..height).map(line).collect()
}
