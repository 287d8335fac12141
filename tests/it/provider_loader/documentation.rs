//! `docs/PROVIDERS.md` says what the loader does.

use token_broker::domain::provider::Rotation;
use token_broker::infra::providers::{Catalogue, Definition, EndpointTemplates, RevocationTemplate};

use super::load;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROVIDERS.md")).unwrap()
}

/// The row of the catalogue's table.
fn row(definition: &Definition) -> String {
    let rotation = match definition.refresh.rotation {
        _ if definition.response.refresh_token.is_empty() => "no refresh tokens".to_owned(),
        Rotation::None => "none".to_owned(),
        Rotation::Strict => "strict".to_owned(),
        Rotation::Grace(grace) => format!("grace {} min", grace.as_secs() / 60),
    };
    let revocation = match (&definition.revocation, &definition.endpoints) {
        (RevocationTemplate::Rfc7009 { .. }, EndpointTemplates::Discovered { .. }) => {
            "RFC 7009 if the issuer has it"
        }
        (RevocationTemplate::Rfc7009 { .. }, EndpointTemplates::Literal { .. }) => "RFC 7009",
        (RevocationTemplate::Call { .. }, _) => "call",
        (RevocationTemplate::NotSupported, _) => "none",
    };
    let variables: Vec<String> = definition.variables.keys().map(|name| format!("`{name}`")).collect();
    let services: Vec<String> = definition
        .services
        .iter()
        .map(|(id, service)| match service.grant.as_str() {
            "default" => format!("`{id}`"),
            grant => format!("`{id}`/{grant}"),
        })
        .collect();
    format!(
        "| `{}` | [{}]({}) | {rotation} | {revocation} | {} | {} |",
        definition.id,
        definition.display_name,
        definition.documentation.as_deref().unwrap_or_default(),
        if variables.is_empty() { "none".to_owned() } else { variables.join(", ") },
        services.join(", "),
    )
}

#[test]
fn the_table_of_the_catalogue_is_complete_and_true() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let expected: Vec<String> = catalogue.definitions().map(row).collect();
    let document = document();
    let found: Vec<&str> = document
        .lines()
        .skip_while(|line| !line.starts_with("| id | provider |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(found, expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn the_examples_of_definitions_load() {
    let document = document();
    let examples: Vec<&str> = document
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|example| example.starts_with("id = "))
        .collect();
    assert_eq!(examples.len(), 2);
    load(&examples).unwrap();
}
