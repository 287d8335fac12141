//! `callers list`: the callers of the configuration, or all that a broker knows.

use serde_json::{Value, json};

use super::rule_args::summary;
use super::stored::{self, TenantArgs};
use crate::cli::client::ClientArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, table};
use crate::cli::settings::ConfigArgs;

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
        let mut first =
            vec![caller.id.to_string(), caller.tenant.to_string(), entry.key_hashes.len().to_string()];
        for rule in &caller.rules {
            first.push(summary(rule));
            rows.push(std::mem::replace(&mut first, vec![String::new(), String::new(), String::new()]));
        }
        if caller.rules.is_empty() {
            rows.push(first);
        }
        all.push(json!({
            "id": caller.id.as_str(),
            "tenant": caller.tenant.as_str(),
            "keys": entry.key_hashes.len(),
            "allow": caller.rules,
            "admin": caller.admin.actions,
            "all_tenants": caller.admin.all_tenants,
        }));
    }
    output.answer(&table(&["CALLER", "TENANT", "KEYS", "ALLOW"], &rows), &all)?;
    Ok(Exit::Done)
}
