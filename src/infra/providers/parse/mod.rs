//! TOML to definition. Each section has its file; all mistakes are collected.

mod endpoints;
mod refresh;
mod requests;
mod response;
mod revocation;
mod services;
mod values;
mod variables;

use toml::de::DeTable;

use super::definition::{Definition, Source};
use super::error::DefinitionError;
use super::reader::{Report, Section};
use crate::domain::key::ProviderId;

/// A definition, and where its id stands.
pub(crate) struct Parsed {
    pub(crate) definition: Definition,
    /// Line and column, from 1.
    pub(crate) id_position: (usize, usize),
}

/// Reads one file. `file` is its name in messages.
pub(crate) fn definition(file: &str, text: &str, source: Source) -> Result<Parsed, Vec<DefinitionError>> {
    let mut report = Report::new(file, text);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What the parser made of a broken file is a guess; mistakes found in a guess would mislead.
        for error in syntax_errors {
            report.add(&error.span().unwrap_or(0..0), "", error.message());
        }
        return Err(report.into_errors());
    }
    let parsed = root(&mut report, Section::root(table.get_ref()), source);
    match parsed {
        Some(parsed) if report.is_clean() => Ok(parsed),
        _ => Err(report.into_errors()),
    }
}

/// Reads all sections before it gives up on any.
fn root(report: &mut Report<'_>, mut root: Section<'_, '_>, source: Source) -> Option<Parsed> {
    let id = root.required_text(report, "id", "what registrations call this provider, such as \"example\"");
    let provider_id = id.as_ref().and_then(|id| report.make(id, |id| ProviderId::new(id.as_str())));
    let display_name = root.required_text(report, "display_name", "the provider's name for people");
    let documentation = root.text(report, "documentation");
    if let Some(documentation) = &documentation {
        // A page for people, so a part of it may be named.
        let page = |url: &String| super::template::check_url(url.split('#').next().unwrap_or_default());
        report.make(documentation, page);
    }

    let mut variables = variables::variables(report, &mut root);
    let endpoints = endpoints::endpoints(report, &mut root, &mut variables);
    let client = requests::client(report, &mut root);
    let authorization = requests::authorization(report, &mut root);
    let token = requests::token(report, &mut root);
    let response = response::response(report, &mut root, &authorization.scope_separator);
    let refresh = refresh::refresh(report, &mut root);
    let revocation = revocation::revocation(report, &mut root, endpoints.as_ref(), &mut variables);
    let identity = endpoints::identity(report, &mut root, endpoints.as_ref(), authorization.nonce);
    let services = services::services(report, &mut root, &authorization.scope_separator);
    let variables = variables.finish(report);
    root.finish(report);

    let id_position = report.position(id.as_ref().map_or(0, |id| id.span.start));
    Some(Parsed {
        definition: Definition {
            id: provider_id?,
            display_name: display_name?.value,
            documentation: documentation.map(|d| d.value),
            source,
            variables,
            auth: client.auth,
            secret: client.secret,
            audience: client.audience,
            endpoints: endpoints?,
            authorization,
            token,
            response,
            refresh,
            revocation: revocation?,
            identity,
            services,
        },
        id_position,
    })
}
