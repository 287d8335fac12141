//! `callers`: API keys for callers, and who may call.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::init::caller_id;
use super::output::{Output, table};
use super::settings::ConfigArgs;
use super::write::new_api_key;
use crate::domain::access_policy::{Action, Caller, ProviderRule, UserRule};
use crate::domain::admin_policy::AdminRights;
use crate::domain::key::{CallerId, ProviderId, TenantId, UserId};
use crate::infra::callers::hash_api_key;

const HELP: &str = "\
Examples:
  token-broker callers new agents --action get_credential --action begin_oauth --provider google --any-user
  token-broker callers new team-a --any-action --any-provider --user-prefix team-a/
  token-broker callers list --config /etc/token-broker.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an API key: prints it once, with the table for the configuration, which holds only its hash
    New(New),
    /// List the configured callers with their rights
    List(ConfigArgs),
}

/// A caller may do nothing that is not named.
#[derive(Debug, clap::Args)]
struct New {
    /// The caller's id
    #[arg(value_parser = caller_id)]
    id: CallerId,
    /// What it belongs to
    #[arg(long, default_value = "default", value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// An action it may do, as `get_credential`; repeat for more
    #[arg(long = "action", value_name = "ACTION", value_parser = action)]
    actions: Vec<Action>,
    /// It may do everything
    #[arg(long, conflicts_with = "actions")]
    any_action: bool,
    /// A provider it may use; repeat for more
    #[arg(long = "provider", value_name = "ID", value_parser = |text: &str| ProviderId::new(text))]
    providers: Vec<ProviderId>,
    /// It may use every provider
    #[arg(long, conflicts_with = "providers")]
    any_provider: bool,
    /// A user it may act for; repeat for more
    #[arg(long = "user", value_name = "ID", value_parser = |text: &str| UserId::new(text))]
    users: Vec<UserId>,
    /// It may act for users whose ids begin so; repeat for more
    #[arg(long = "user-prefix", value_name = "PREFIX", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user_prefixes: Vec<String>,
    /// It may act for every user
    #[arg(long, conflicts_with_all = ["users", "user_prefixes"])]
    any_user: bool,
}

fn action(text: &str) -> Result<Action, String> {
    Action::ALL
        .into_iter()
        .find(|action| name(*action) == text)
        .ok_or_else(|| format!("must be one of {}", Action::ALL.map(name).join(", ")))
}

/// As the configuration writes it.
fn name(action: Action) -> String {
    serde_json::to_value(action).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    match &args.command {
        Command::New(new) => run_new(new, output),
        Command::List(config) => run_list(config, output),
    }
}

fn run_new(new: &New, output: Output) -> Result<Exit, CliError> {
    let mut users: Vec<UserRule> = new.users.iter().cloned().map(UserRule::Exact).collect();
    users.extend(new.user_prefixes.iter().cloned().map(UserRule::Prefix));
    let caller = Caller {
        id: new.id.clone(),
        tenant: new.tenant.clone(),
        actions: if new.any_action { Action::ALL.into() } else { new.actions.iter().copied().collect() },
        providers: if new.any_provider {
            ProviderRule::Any
        } else {
            ProviderRule::Only(new.providers.iter().cloned().collect())
        },
        users: if new.any_user { vec![UserRule::Any] } else { users },
        admin: AdminRights::default(),
    };
    let key = new_api_key();
    let hash = hash_api_key(&key);
    let table = table_of(&caller, &hash);
    let human = format!(
        "API key, shown only now:\n\n  {}\n\nAdd this to the configuration and start the broker anew:\n\n{table}",
        key.expose_secret()
    );
    let json = json!({
        "caller": new.id.as_str(),
        "api_key": key.expose_secret(),
        "key_sha256": hex::encode(hash),
        "config": table,
    });
    output.answer(&human, &json)?;
    Ok(Exit::Done)
}

/// The caller's table in the configuration.
pub(super) fn table_of(caller: &Caller, hash: &[u8; 32]) -> String {
    let (actions, providers, users) = rights(caller);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "[callers.{}]", quoted_if_needed(caller.id.as_str()));
    let _ = writeln!(text, "tenant = {}", quote(caller.tenant.as_str()));
    let _ = writeln!(text, "key_sha256 = [{}]", quote(&hex::encode(hash)));
    let _ = writeln!(text, "actions = {actions}");
    let _ = writeln!(text, "providers = {providers}");
    let _ = writeln!(text, "users = {users}");
    text
}

/// Actions, providers and users, as the configuration writes them.
fn rights(caller: &Caller) -> (String, String, String) {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let actions = if Action::ALL.iter().all(|action| caller.may(*action)) {
        quote("any")
    } else {
        list(caller.actions.iter().map(|action| quote(&name(*action))).collect())
    };
    let providers = match &caller.providers {
        ProviderRule::Any => quote("any"),
        ProviderRule::Only(ids) => list(ids.iter().map(|id| quote(id.as_str())).collect()),
    };
    let rule = |rule: &UserRule| match rule {
        UserRule::Any => None,
        UserRule::Exact(id) => Some(format!("{{ exact = {} }}", quote(id.as_str()))),
        UserRule::Prefix(prefix) => Some(format!("{{ prefix = {} }}", quote(prefix))),
    };
    let users = match caller.users.iter().map(rule).collect::<Option<Vec<_>>>() {
        Some(rules) => list(rules),
        None => quote("any"),
    };
    (actions, providers, users)
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A dot in a bare key would make two tables of it.
fn quoted_if_needed(id: &str) -> String {
    if id.contains('.') { quote(id) } else { id.to_owned() }
}

fn run_list(config: &ConfigArgs, output: Output) -> Result<Exit, CliError> {
    let config = config.load()?;
    let rows: Vec<Vec<String>> = config
        .callers
        .iter()
        .map(|entry| {
            let (actions, providers, users) = rights(&entry.caller);
            let (id, tenant) = (entry.caller.id.to_string(), entry.caller.tenant.to_string());
            vec![id, tenant, entry.key_hashes.len().to_string(), actions, providers, users]
        })
        .collect();
    let json: Vec<Value> = config
        .callers
        .iter()
        .map(|entry| {
            let caller = &entry.caller;
            json!({
                "id": caller.id.as_str(),
                "tenant": caller.tenant.as_str(),
                "keys": entry.key_hashes.len(),
                "actions": caller.actions,
                "providers": match &caller.providers {
                    ProviderRule::Any => json!("any"),
                    ProviderRule::Only(ids) => ids.iter().map(ProviderId::as_str).collect(),
                },
                "users": caller.users.iter().map(|rule| match rule {
                    UserRule::Any => json!("any"),
                    UserRule::Exact(id) => json!({ "exact": id.as_str() }),
                    UserRule::Prefix(prefix) => json!({ "prefix": prefix }),
                }).collect::<Vec<_>>(),
            })
        })
        .collect();
    output.answer(&table(&["CALLER", "TENANT", "KEYS", "ACTIONS", "PROVIDERS", "USERS"], &rows), &json)?;
    Ok(Exit::Done)
}
