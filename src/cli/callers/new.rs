//! `callers new`: a key and its table for the configuration. Asks no broker.

use std::fmt::Write as _;

use serde_json::json;

use super::rule_args::{AdminArgs, RuleArgs, in_toml, lines, quote};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::init::caller_id;
use crate::cli::output::Output;
use crate::cli::write::new_api_key;
use crate::domain::access_policy::Caller;
use crate::domain::access_policy::hash_api_key;
use crate::domain::key::{CallerId, TenantId};

/// A caller may do nothing that is not named.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The caller's id
    #[arg(value_parser = caller_id)]
    id: CallerId,
    /// What it belongs to
    #[arg(long, default_value = "default", value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let rule = args.rule.rule().map_err(|mistake| CliError::new(Exit::Usage, mistake))?;
    let caller = Caller {
        admin: args.admin.rights(),
        ..Caller::new(args.id.clone(), args.tenant.clone(), rule.into_iter().collect())
    };
    let key = new_api_key();
    let hash = hash_api_key(&key);
    let table = table_of(&caller, &hash);
    let human = format!(
        "API key, shown only now:\n\n  {}\n\nAdd this to the configuration and start the broker anew:\n\n{table}",
        key.expose_secret()
    );
    let json = json!({
        "caller": args.id.as_str(),
        "api_key": key.expose_secret(),
        "key_sha256": hex::encode(hash),
        "config": table,
    });
    output.answer(&human, &json)?;
    Ok(Exit::Done)
}

/// The caller's table in the configuration.
pub(in crate::cli) fn table_of(caller: &Caller, hash: &[u8; 32]) -> String {
    let id = quoted_if_needed(caller.id.as_str());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "[callers.{id}]");
    let _ = writeln!(text, "tenant = {}", quote(caller.tenant.as_str()));
    let _ = writeln!(text, "key_sha256 = [{}]", quote(&hex::encode(hash)));
    if caller.admin.any() {
        let _ = writeln!(text, "admin = {}", in_toml(&caller.admin.actions));
        let _ = writeln!(text, "all_tenants = {}", caller.admin.all_tenants);
    }
    for rule in &caller.rules {
        let _ = write!(text, "\n[[callers.{id}.allow]]\n{}", lines(rule));
    }
    text
}

/// A dot in a bare key would make two tables of it.
fn quoted_if_needed(id: &str) -> String {
    if id.contains('.') { quote(id) } else { id.to_owned() }
}
