//! Definitions and registrations: what is accepted, and that every mistake is reported with its place.

mod documentation;
mod mistakes;
mod quirks;
mod registrations;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use token_broker::domain::key::{ProviderId, ServiceId};
use token_broker::domain::provider::{
    BodyFormat, ClientAuth, EndpointSource, Provider, Revocation, RevocationAuth, RevocationMethod,
    RevokedToken, Rotation,
};
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::secret::SecretString;
use token_broker::infra::providers::{Catalogue, ClientKeys, DefinitionError, Registration, Source};

/// The shortest definition there can be.
const SHORT: &str = r#"
id = "example"
display_name = "Example"
[endpoints]
authorization = "https://auth.example.com/authorize"
token = "https://auth.example.com/token"
[revocation]
kind = "none"
[services.files]
display_name = "Files"
scopes = ["files.read"]
# What a row adds begins at line 13.
"#;

/// Loads texts as the operator's files.
fn load(texts: &[&str]) -> Result<Catalogue, Vec<DefinitionError>> {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let path = folder.path().join(format!("{index}.toml"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    Catalogue::load(&files)
}

fn registration(id: &str, definition: &str) -> Registration {
    Registration {
        id: ProviderId::new(id).unwrap(),
        definition: definition.to_owned(),
        client_id: "client".to_owned(),
        client_secret: Some(SecretString::from("canary-secret")),
        variables: BTreeMap::new(),
        keys: ClientKeys::default(),
    }
}

fn provider(catalogue: &Catalogue, registration: Registration) -> Provider {
    let id = registration.id.clone();
    let configured = catalogue.configure(vec![registration]).unwrap();
    let provider = configured.get(&id).unwrap();
    (*provider).clone()
}

fn scopes(names: &[&str]) -> ScopeSet {
    names.iter().map(|name| Scope::new(*name).unwrap()).collect()
}

#[test]
fn every_built_in_definition_loads_and_becomes_a_provider() {
    let catalogue = Catalogue::load(&[]).unwrap();
    for definition in catalogue.definitions() {
        assert_eq!(definition.source, Source::BuiltIn);
        assert!(definition.documentation.is_some(), "{}: where does one register a client?", definition.id);
        let mut registration = registration("mine", definition.id.as_str());
        for (name, variable) in &definition.variables {
            if variable.default.is_none() {
                registration.variables.insert(name.clone(), "https://id.example.com".to_owned());
            }
        }
        let provider = provider(&catalogue, registration);
        assert_eq!(provider.id.as_str(), "mine");
        assert!(!provider.services.is_empty());
        assert!(
            provider.refresh.timings(&token_broker::domain::provider::TimingLimits::default()).is_some(),
            "{}",
            definition.id
        );
    }
}

#[test]
fn a_short_definition_gets_the_defaults_of_the_standards() {
    let catalogue = load(&[SHORT]).unwrap();
    let provider = provider(&catalogue, registration("mine", "example"));
    let EndpointSource::Literal(endpoints) = &provider.endpoints else { panic!("{:?}", provider.endpoints) };
    assert_eq!(endpoints.token.as_str(), "https://auth.example.com/token");
    assert_eq!((&endpoints.issuer, endpoints.iss_required, &endpoints.revocation), (&None, false, &None));
    assert_eq!(provider.client.auth, ClientAuth::Basic);
    assert!(provider.authorization.pkce && !provider.authorization.nonce);
    assert_eq!(provider.authorization.scope_separator, " ");
    assert_eq!(provider.authorization.scope_param, "scope");
    assert!(provider.authorization.params.is_empty());
    assert_eq!(provider.token.body, BodyFormat::Form);
    assert!(!provider.token.scopes_at_refresh);
    assert_eq!(provider.response.access_token, ["/access_token"]);
    assert_eq!(provider.response.refresh_token, ["/refresh_token"]);
    assert_eq!(provider.response.expires_in, ["/expires_in"]);
    assert_eq!(provider.response.expires_in_unit_ms, 1_000);
    assert_eq!(provider.response.scope, ["/scope"]);
    assert_eq!(provider.response.scope_separators, " ");
    assert_eq!(provider.response.error, "/error");
    assert_eq!(provider.response.success_flag, None);
    assert_eq!(provider.response.default_lifetime, None);
    assert_eq!(provider.refresh.rotation, Rotation::Strict);
    assert_eq!(provider.refresh.expiry_margin, Duration::from_mins(1));
    assert_eq!((provider.refresh.kills_access, provider.refresh.idle_limit), (false, None));
    assert!(matches!(provider.revocation, Revocation::NotSupported));
    assert!(!provider.identity.id_token && provider.identity.userinfo.is_none());
    assert_eq!(provider.services[&ServiceId::new("files").unwrap()].grant.as_str(), "default");
}

#[test]
fn an_operators_file_takes_the_place_of_a_built_in_definition() {
    let own = SHORT.replace("\"example\"", "\"github\"").replace("Example", "Our GitHub");
    let catalogue = load(&[&own]).unwrap();
    let built_in = Catalogue::load(&[]).unwrap();
    assert_eq!(catalogue.definitions().count(), built_in.definitions().count());
    let definition = catalogue.definition("github").unwrap();
    assert_eq!(definition.display_name, "Our GitHub");
    assert!(matches!(&definition.source, Source::File(path) if path.ends_with("0.toml")));
}

#[test]
fn implied_scopes_are_followed_to_the_end() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let github = provider(&catalogue, registration("github", "github"));
    let granted = github.normalise_granted(&scopes(&["admin:org"]), &scopes(&["admin:org"]));
    assert_eq!(granted, scopes(&["admin:org", "read:org", "write:org"]));
    let Revocation::Call(call) = &github.revocation else { panic!("{:?}", github.revocation) };
    assert_eq!((call.method, call.auth), (RevocationMethod::Delete, RevocationAuth::ClientBasic));
    assert_eq!((call.token, call.token_param.as_deref()), (RevokedToken::Access, Some("access_token")));
}
