//! `init`: a configuration that runs, with a vault key and a first caller.

use std::path::{Path, PathBuf};

use super::callers::table_of;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::settings::DEFAULT_PATH;
use super::write;
use crate::config::DEFAULT_FILE;
use crate::domain::access_policy::hash_api_key;
use crate::domain::access_policy::{Caller, Rule};
use crate::domain::key::{CallerId, TenantId};

const HELP: &str = "\
Writes token-broker.toml (every setting, with its meaning) and vault.key, both readable by you alone, and prints the API
key of the first caller, once. Files that are there already are never touched.

Examples:
  token-broker init
  token-broker init /etc/token-broker --api-key-file agent.key";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Where to; made if missing
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The first caller's id
    #[arg(long, default_value = "local", value_parser = caller_id)]
    caller: CallerId,
    /// Write the API key to this new file instead of printing it
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

pub(super) fn caller_id(text: &str) -> Result<CallerId, crate::domain::key::KeyError> {
    CallerId::new(text)
}

const VAULT_KEY: &str = "vault.key";

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    let config_path = args.directory.join(DEFAULT_PATH);
    let vault_path = args.directory.join(VAULT_KEY);
    // All before anything is written.
    let mut paths = vec![config_path.as_path(), vault_path.as_path()];
    paths.extend(args.api_key_file.as_deref());
    if let Some(path) = paths.into_iter().find(|path| path.exists()) {
        return Err(write::exists(path));
    }
    std::fs::create_dir_all(&args.directory).map_err(|error| {
        CliError::new(Exit::Failed, format!("{} cannot be made: {error}", args.directory.display()))
    })?;

    let tenant = TenantId::new("default").map_err(|e| CliError::new(Exit::Failed, e.to_string()))?;
    let caller = Caller::new(args.caller.clone(), tenant, vec![Rule::everything()]);
    let key = write::new_api_key();
    let config = configuration(&table_of(&caller, &hash_api_key(&key)))?;
    write::private_file(&vault_path, write::new_vault_key().expose_secret())?;
    write::private_file(&config_path, &config)?;
    if let Some(path) = &args.api_key_file {
        write::private_file(path, key.expose_secret())?;
    }
    answer(args, &config_path, &vault_path, key.expose_secret(), output)
}

fn answer(args: &Args, config: &Path, vault: &Path, key: &str, output: Output) -> Result<Exit, CliError> {
    let key_line = match &args.api_key_file {
        Some(path) => format!("API key of caller {}: in {}", args.caller, path.display()),
        None => format!("API key of caller {}, shown only now:\n\n  {key}\n", args.caller),
    };
    let next = match &args.api_key_file {
        Some(path) => format!("token-broker list --api-key-file {}", path.display()),
        None => "TOKEN_BROKER_API_KEY=… token-broker list".to_owned(),
    };
    let human = format!(
        "configuration: {}\nvault key: {} (keep a copy: without it every stored token is lost)\n{key_line}\n\n\
         Next: add your providers to the configuration (`token-broker providers list` has the catalogue), then\n\
         \x20 token-broker serve --config {}\n  {next}",
        config.display(),
        vault.display(),
        config.display(),
    );
    let json = serde_json::json!({
        "config": config,
        "vault_key_file": vault,
        "caller": args.caller.as_str(),
        "api_key": args.api_key_file.is_none().then_some(key),
        "api_key_file": args.api_key_file,
    });
    output.answer(&human, &json)?;
    Ok(Exit::Done)
}

/// The default file with the settings of a first start switched on.
fn configuration(caller_table: &str) -> Result<String, CliError> {
    let mut text = DEFAULT_FILE.to_owned();
    for (from, to) in [
        ("#active_key = \"primary\"", "active_key = \"primary\"".to_owned()),
        (
            "#[vault.keys.primary]\n#file = \"vault.key\"",
            "[vault.keys.primary]\nfile = \"vault.key\"".to_owned(),
        ),
        // For a laptop, where the agent is no web application that a browser could come back to.
        (
            "bindings = [\"app\"]",
            "# On one's own machine the weaker one comes first: there is no application to come back to. Where agents act for \
             other people,\n# use [\"app\"] or [\"login\"].\nbindings = [\"confirm\", \"app\"]"
                .to_owned(),
        ),
        ("\nformat = \"json\"", "\nformat = \"pretty\"".to_owned()),
        ("# ---- Logs, on standard error.", format!("{caller_table}\n# ---- Logs, on standard error.")),
    ] {
        if !text.contains(from) {
            // A test makes a configuration and loads it, so this is never seen outside of it.
            return Err(CliError::new(Exit::Failed, format!("the default configuration has no {from}")));
        }
        text = text.replacen(from, &to, 1);
    }
    Ok(text)
}
