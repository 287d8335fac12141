//! `providers`: the catalogue and what is configured of it.

use clap::Subcommand;
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, table};
use super::settings::ConfigArgs;
use crate::app;
use crate::domain::key::{ServiceId, TenantId};
use crate::domain::ports::ProviderDirectory as _;
use crate::infra::providers::{Definition, SecretRule, Source};

const HELP: &str = "\
Examples:
  token-broker providers list
  token-broker providers show google
  token-broker providers configured --config /etc/token-broker.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the definitions: the built-in ones and those of your files
    List(ConfigArgs),
    /// Show one definition: its services, and what a registration needs
    Show(Show),
    /// List the configured providers with their services
    Configured(ConfigArgs),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The definition's id
    id: String,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    match &args.command {
        Command::List(config) => list(config, output),
        Command::Show(args) => show(args, output),
        Command::Configured(config) => configured(config, output),
    }
}

fn source(definition: &Definition) -> String {
    match &definition.source {
        Source::BuiltIn => "built-in".to_owned(),
        Source::File(path) => path.display().to_string(),
    }
}

fn list(config: &ConfigArgs, output: Output) -> Result<Exit, CliError> {
    let catalogue = app::catalogue(&config.definition_files()?)?;
    let services = |d: &Definition| d.services.keys().map(ToString::to_string).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = catalogue
        .definitions()
        .map(|d| vec![d.id.to_string(), d.display_name.clone(), services(d).join(", "), source(d)])
        .collect();
    let json: Vec<Value> = catalogue
        .definitions()
        .map(|d| {
            json!({ "id": d.id.as_str(), "display_name": d.display_name, "services": services(d), "source": source(d) })
        })
        .collect();
    output.answer(&table(&["DEFINITION", "NAME", "SERVICES", "SOURCE"], &rows), &json)?;
    Ok(Exit::Done)
}

fn show(args: &Show, output: Output) -> Result<Exit, CliError> {
    let catalogue = app::catalogue(&args.config.definition_files()?)?;
    let definition = catalogue.definition(&args.id).ok_or_else(|| {
        CliError::new(Exit::Refused, format!("there is no definition \"{}\"", args.id.escape_default()))
            .hint("`token-broker providers list` has them all")
    })?;
    let secret = match definition.secret {
        SecretRule::Required => "required",
        SecretRule::Optional => "optional",
        SecretRule::Forbidden => "none",
    };
    let mut human = vec![
        format!("{} ({})", definition.display_name, definition.id),
        format!("register at:    {}", definition.documentation.as_deref().unwrap_or("-")),
        format!("client secret:  {secret}"),
    ];
    for (name, variable) in &definition.variables {
        let default =
            variable.default.as_ref().map_or_else(|| "required".to_owned(), |d| format!("default {d}"));
        human.push(format!("variable {name}: {} ({default})", variable.description));
    }
    let rows: Vec<Vec<String>> = definition
        .services
        .iter()
        .map(|(id, s)| vec![id.to_string(), s.display_name.clone(), s.grant.to_string(), s.scopes.join(" ")])
        .collect();
    human.push(String::new());
    human.push(table(&["SERVICE", "NAME", "GRANT", "SCOPES"], &rows));
    let json = json!({
        "id": definition.id.as_str(),
        "display_name": definition.display_name,
        "documentation": definition.documentation,
        "source": source(definition),
        "client_secret": secret,
        "variables": definition.variables.iter().map(|(name, variable)| json!({
            "name": name, "description": variable.description, "default": variable.default,
        })).collect::<Vec<_>>(),
        "services": definition.services.iter().map(|(id, service)| json!({
            "id": id.as_str(),
            "display_name": service.display_name,
            "grant": service.grant.as_str(),
            "scopes": service.scopes.to_strings(),
        })).collect::<Vec<_>>(),
    });
    output.answer(&human.join("\n"), &json)?;
    Ok(Exit::Done)
}

fn configured(config: &ConfigArgs, output: Output) -> Result<Exit, CliError> {
    let config = config.load()?;
    let directory = app::providers(&config)?;
    // The same for every tenant.
    let tenant = TenantId::new("default").map_err(|e| CliError::new(Exit::Failed, e.to_string()))?;
    let providers = directory.providers(&tenant);
    let definition = |id: &str| {
        let entry = config.providers.iter().find(|entry| entry.id.as_str() == id);
        entry.map(|entry| entry.definition.clone()).unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = providers
        .iter()
        .map(|p| {
            let services: Vec<&str> = p.services.keys().map(ServiceId::as_str).collect();
            vec![p.id.to_string(), definition(p.id.as_str()), p.display_name.clone(), services.join(", ")]
        })
        .collect();
    let json: Vec<Value> = providers
        .iter()
        .map(|p| {
            json!({
                "id": p.id.as_str(),
                "definition": definition(p.id.as_str()),
                "display_name": p.display_name,
                "client_id": p.client.id,
                "services": p.services.keys().map(ServiceId::as_str).collect::<Vec<_>>(),
            })
        })
        .collect();
    output.answer(&table(&["PROVIDER", "DEFINITION", "NAME", "SERVICES"], &rows), &json)?;
    Ok(Exit::Done)
}
