//! `config`: the default file, a check, and what is in effect.

use clap::Subcommand;
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, print};
use super::settings::ConfigArgs;
use crate::app;
use crate::config::DEFAULT_FILE;

const HELP: &str = "\
Examples:
  token-broker config default > token-broker.toml
  token-broker config check --config token-broker.toml
  token-broker config show --output json";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every setting with its meaning and default
    Default,
    /// Report every mistake in the configuration and in the providers' definitions; nothing is opened or changed
    Check(ConfigArgs),
    /// Print the settings in effect and where each is from, secrets masked
    Show(ConfigArgs),
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    match &args.command {
        Command::Default => print(DEFAULT_FILE)?,
        Command::Check(config) => {
            let config = config.load()?;
            app::check(&config)?;
            let human = format!(
                "the configuration is in order: {} providers, {} callers",
                config.providers.len(),
                config.callers.len()
            );
            let json = json!({ "providers": config.providers.len(), "callers": config.callers.len() });
            output.answer(&human, &json)?;
        }
        Command::Show(config) => show(config, output)?,
    }
    Ok(Exit::Done)
}

fn show(config: &ConfigArgs, output: Output) -> Result<(), CliError> {
    let settings = config.load()?.settings;
    let lines: Vec<String> =
        settings.iter().map(|s| format!("{} = {}  # {}", s.key, s.value, s.origin)).collect();
    let json: Vec<Value> =
        settings.iter().map(|s| json!({ "key": s.key, "value": s.value, "origin": s.origin })).collect();
    output.answer(&lines.join("\n"), &json)
}
