//! `providers list | show | configured`: the catalogue, and what the operator has configured of it.

use serde_json::{Value, json};

use super::Show;
use crate::app;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Output, table};
use crate::cli::settings::ConfigArgs;
use crate::domain::key::ServiceId;
use crate::infra::providers::{Definition, SecretRule, Source};

fn source(definition: &Definition) -> String {
    match &definition.source {
        Source::BuiltIn => "built-in".to_owned(),
        Source::File(path) => path.display().to_string(),
    }
}

pub(super) fn list(config: &ConfigArgs, output: Output) -> Result<Exit, CliError> {
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

pub(super) fn show(args: &Show, output: Output) -> Result<Exit, CliError> {
    let catalogue = app::catalogue(&args.at.config.definition_files()?)?;
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

pub(super) fn configured(config: &ConfigArgs, output: Output) -> Result<Exit, CliError> {
    let config = config.load()?;
    let directory = app::providers(&config)?;
    let providers = directory.all();
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
