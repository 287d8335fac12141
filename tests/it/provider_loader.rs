//! Definitions and registrations: what is accepted, and that every mistake is reported with its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use token_broker::domain::key::{ProviderId, ServiceId, TenantId};
use token_broker::domain::ports::ProviderDirectory as _;
use token_broker::domain::provider::{
    BodyFormat, ClientAuth, EndpointSource, Provider, Revocation, RevocationAuth, RevocationMethod,
    RevokedToken, Rotation,
};
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::secret::SecretString;
use token_broker::infra::providers::{Catalogue, DefinitionError, Registration, Source};

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

/// `line:column path: message` of each mistake in a text.
fn mistakes(text: &str) -> Vec<String> {
    match load(&[text]) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .into_iter()
            .map(|e| {
                assert!(e.file.ends_with("0.toml"), "{e}");
                assert!(e.to_string().starts_with(&format!("{}:{}:{}: ", e.file, e.line, e.column)), "{e}");
                format!("{}:{} {}: {}", e.line, e.column, e.path, e.message)
            })
            .collect(),
    }
}

fn registration(id: &str, definition: &str) -> Registration {
    Registration {
        id: ProviderId::new(id).unwrap(),
        definition: definition.to_owned(),
        client_id: "client".to_owned(),
        client_secret: Some(SecretString::from("canary-secret")),
        variables: BTreeMap::new(),
    }
}

fn provider(catalogue: &Catalogue, registration: Registration) -> Provider {
    let id = registration.id.clone();
    let configured = catalogue.configure(vec![registration]).unwrap();
    let provider = configured.provider(&TenantId::new("t").unwrap(), &id).unwrap();
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
        assert!(provider.refresh.timings().is_some(), "{}", definition.id);
    }
}

#[test]
fn a_short_definition_gets_the_defaults_of_the_standards() {
    assert_eq!(mistakes(SHORT), Vec::<String>::new());
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

/// Replaces one line of [`SHORT`] (or adds lines at its end) and tells what is reported. In each row: what is replaced,
/// what with, and each mistake by line, column, path and a part of its message.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_mistake_is_reported_with_its_place() {
    let token = "token = \"https://auth.example.com/token\"";
    let kind = "kind = \"none\"";
    let files = "scopes = [\"files.read\"]";
    let end = "";
    let all_endpoints = "[endpoints]\nauthorization = \"https://auth.example.com/authorize\"\ntoken = \"https://auth.example.com/token\"";
    let rows: &[(&str, &str, &[&str])] = &[
        // Syntax.
        (kind, "kind = none", &["8:8 : "]),
        (kind, "kind = \"none\"\nkind = \"none\"", &["9:1 : duplicate key"]),
        // Fields.
        (
            kind,
            "kind = \"none\"\nkindd = 1",
            &["9:1 revocation.kindd: unknown field; known here: kind, token"],
        ),
        (
            end,
            "[refreshing]\nrotation = \"none\"",
            &["13:2 refreshing: unknown field; known here: authorization,"],
        ),
        ("id = \"example\"", "id = 7", &["2:6 id: must be a string, not of type integer"]),
        ("id = \"example\"", "id = \"Ex ample\"", &["2:6 id: must begin with a letter or digit"]),
        ("id = \"example\"", "", &["1:1 id: missing: what registrations call"]),
        ("display_name = \"Example\"", "", &["1:1 display_name: missing"]),
        ("display_name = \"Example\"", "display_name = \"\"", &["3:16 display_name: must not be empty"]),
        (
            "display_name = \"Example\"",
            "display_name = \"a\\u0000b\"",
            &["3:16 display_name: must not contain control"],
        ),
        (
            "[endpoints]",
            "response = 3\n[endpoints]",
            &["4:12 response: must be a table, not of type integer"],
        ),
        (all_endpoints, "endpoints = 3", &["4:13 endpoints: must be a table, not of type integer"]),
        // URLs.
        (token, "", &["4:1 endpoints.token: missing: a URL, or discovery"]),
        (
            token,
            "token = \"http://auth.example.com/token\"",
            &["6:9 endpoints.token: must begin with https://"],
        ),
        (
            token,
            "token = \"https://a:b@auth.example.com/\"",
            &["6:9 endpoints.token: must not contain user information"],
        ),
        (
            token,
            "token = \"https://auth.example.com/#a\"",
            &["6:9 endpoints.token: must not contain a fragment"],
        ),
        (token, "token = \"/token\"", &["6:9 endpoints.token: must be a complete URL"]),
        (
            token,
            "token = \"https://{tenant}.example.com/\"",
            &["6:9 endpoints.token: {tenant} is not declared"],
        ),
        (
            token,
            "token = \"https://{tenant.example.com/\"",
            &["6:9 endpoints.token: has a '{' without a '}'"],
        ),
        (
            end,
            "[variables.tenant]\ndescription = \"d\"",
            &["13:12 variables.tenant: no URL uses this variable"],
        ),
        (
            token,
            "token = \"https://x.com/\"\ndiscovery = true",
            &[
                "4:1 endpoints.issuer: missing",
                "5:17 endpoints.authorization: comes from the issuer's metadata",
                "6:9 endpoints.token: comes from the issuer's metadata",
            ],
        ),
        (token, "token = \"https://x.com/\"\niss_required = true", &["4:1 endpoints.issuer: missing"]),
        // Other grants than the code grant.
        (
            end,
            "[authorization]\nresponse_type = \"token\"",
            &["14:1 authorization.response_type: only the authorization code grant"],
        ),
        (
            end,
            "[authorization]\nparams = { response_type = \"token\" }",
            &["14:12 authorization.params.response_type: only the authorization code grant"],
        ),
        (
            end,
            "[token]\nexchange_params = { grant_type = \"password\" }",
            &["14:21 token.exchange_params.grant_type: only the authorization code grant"],
        ),
        (
            end,
            "[token.refresh_params]\npassword = \"x\"",
            &["14:1 token.refresh_params.password: only the authorization code grant"],
        ),
        (
            end,
            "[authorization.params]\nresponse_mode = \"fragment\"",
            &["14:1 authorization.params.response_mode: can't be changed"],
        ),
        // The broker's own parameters.
        (
            end,
            "[authorization.params]\nstate = \"x\"\nnonce = \"x\"\ncode_challenge = \"x\"\nclient_id = \"x\"\nscope = \"x\"\nredirect_uri = \"x\"",
            &[
                "14:1 authorization.params.state: is set by the broker",
                "15:1 authorization.params.nonce: is set by the broker",
                "16:1 authorization.params.code_challenge: is set by the broker",
                "17:1 authorization.params.client_id: is set by the broker",
                "18:1 authorization.params.scope: is set by the broker",
                "19:1 authorization.params.redirect_uri: is set by the broker",
            ],
        ),
        (
            end,
            "[token]\nrefresh_params = { client_secret = \"x\", refresh_token = \"x\" }",
            &[
                "14:20 token.refresh_params.client_secret: is set by the broker",
                "14:41 token.refresh_params.refresh_token: is set by the broker",
            ],
        ),
        (
            end,
            "[token.headers]\nAuthorization = \"x\"",
            &["14:1 token.headers.Authorization: is set by the broker"],
        ),
        (
            end,
            "[token.headers]\n\"a b\" = \"x\"",
            &["14:1 token.headers.\"a b\": is not the name of a header"],
        ),
        (end, "[token.headers]\na = \"é\"", &["14:5 token.headers.a: must be printable ASCII"]),
        (end, "[token.headers]\na = \"x\"\nA = \"x\"", &["15:1 token.headers.A: is given twice"]),
        // PKCE.
        (
            end,
            "[authorization]\npkce = false",
            &["14:8 authorization.pkce: must be a string, not of type boolean"],
        ),
        (
            end,
            "[authorization]\npkce = \"plain\"",
            &["14:8 authorization.pkce: must be \"S256\": \"plain\" shows"],
        ),
        (end, "[authorization]\npkce = \"none\"", &["14:8 authorization.pkce: must be \"S256\", or \"off\""]),
        (
            end,
            "[authorization]\nscope_param = \"state\"",
            &["14:15 authorization.scope_param: is a parameter with another"],
        ),
        (
            end,
            "[authorization]\nscope_separator = \"x\"",
            &["14:19 authorization.scope_separator: must be one to three"],
        ),
        (
            end,
            "[client]\nauth = \"secret\"",
            &["14:8 client.auth: must be one of \"basic\", \"post\", \"none\""],
        ),
        (
            end,
            "[client]\nauth = \"none\"\nsecret = \"optional\"",
            &["15:10 client.secret: a client with auth = \"none\" has no secret"],
        ),
        // Answers.
        (
            end,
            "[response]\naccess_token = \"access_token\"",
            &["14:16 response.access_token: must be a JSON pointer"],
        ),
        (end, "[response]\naccess_token = []", &["13:1 response.access_token: missing: at least one"]),
        (end, "[response]\nscope = [\"/a\", \"/b~2\"]", &["14:16 response.scope[1]: must be a JSON pointer"]),
        (
            end,
            "[response]\nexpires_in_unit = \"minutes\"",
            &["14:19 response.expires_in_unit: must be one of \"seconds\", \"milliseconds\""],
        ),
        (
            end,
            "[response]\ndefault_lifetime = \"0s\"",
            &["14:20 response.default_lifetime: must not be zero"],
        ),
        (
            end,
            "[response.error_aliases]\ngone = \"dead\"",
            &["14:8 response.error_aliases.gone: must be one of invalid_request,"],
        ),
        (
            end,
            "[response.scope_aliases]\n\"a b\" = \"c\"",
            &["14:1 response.scope_aliases.\"a b\": a scope consists of"],
        ),
        (
            end,
            "[response.scope_implies]\na = \"b\"",
            &["14:5 response.scope_implies.a: must be a list of strings, not of type string"],
        ),
        // Refresh.
        (
            end,
            "[refresh]\nrotation = \"sometimes\"",
            &["14:12 refresh.rotation: must be one of \"none\", \"strict\", \"grace\""],
        ),
        (end, "[refresh]\nrotation = \"grace\"", &["13:1 refresh.grace: missing"]),
        (end, "[refresh]\nrotation = \"grace\"\ngrace = \"10s\"", &["15:9 refresh.grace: is too short"]),
        (end, "[refresh]\ngrace = \"10m\"", &["14:9 refresh.grace: belongs to rotation = \"grace\""]),
        (
            end,
            "[refresh]\nidle_limit = \"1 week\"",
            &["14:14 refresh.idle_limit: must be a whole number with s, m, h or d"],
        ),
        (end, "[refresh]\nidle_limit = \"1m\"", &["14:14 refresh.idle_limit: must be an hour at least"]),
        (end, "[refresh]\nexpiry_margin = \"2h\"", &["14:17 refresh.expiry_margin: must be an hour at most"]),
        // Revocation.
        (kind, "", &["7:1 revocation.kind: missing: \"none\" if"]),
        (kind, "kind = \"rfc7009\"", &["7:1 revocation: kind \"rfc7009\" needs endpoints.revocation"]),
        (kind, "kind = \"none\"\nurl = \"https://x.com\"", &["9:1 revocation.url: unknown field"]),
        (kind, "kind = \"call\"", &["7:1 revocation.auth: missing", "7:1 revocation.url: missing"]),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com/{client}\"\nauth = \"bearer\"",
            &["9:7 revocation.url: {client} is not declared"],
        ),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com\"\nauth = \"client_basic\"",
            &["7:1 revocation.token_param: missing"],
        ),
        (
            kind,
            "kind = \"call\"\nurl = \"https://x.com\"\nauth = \"bearer\"\nmethod = \"GET\"\ntoken_param = \"t\"",
            &["7:1 revocation: a GET has no body"],
        ),
        (
            token,
            "token = \"https://x.com/\"\nrevocation = \"https://x.com/\"",
            &["8:1 revocation: endpoints.revocation is for kind"],
        ),
        // Identity.
        (
            end,
            "[identity]\nid_token = true",
            &["13:1 identity: an ID token is compared with endpoints.issuer"],
        ),
        (
            end,
            "[identity.userinfo]\nsubject = \"/id\"",
            &["13:2 identity: userinfo needs endpoints.userinfo"],
        ),
        (
            end,
            "[identity.token_response]\nlabel = \"/id\"",
            &["13:1 identity.token_response.subject: missing"],
        ),
        // Services.
        ("[services.files]", "[services]\n[other]", &["1:1 services: missing", "10:2 other: unknown field"]),
        (
            "[services.files]",
            "[services.\"my files\"]",
            &["9:11 services.\"my files\": must begin with a letter or digit"],
        ),
        (files, "", &["9:1 services.files.scopes: missing"]),
        (
            files,
            "scopes = \"files.read\"",
            &["11:10 services.files.scopes: must be a list of strings, not of type string"],
        ),
        (
            files,
            "scopes = [\"a b\", \"c\", \"d\\\\e\", 1]",
            &[
                "11:11 services.files.scopes[0]: contains \" \", which separates scopes",
                "11:23 services.files.scopes[2]: a scope consists of",
                "11:31 services.files.scopes[3]: must be a string, not of type integer",
            ],
        ),
        (files, "scopes = []\ngrant = \"A\"", &["12:9 services.files.grant: must begin with a letter"]),
    ];
    let mut wrong = Vec::new();
    for (old, new, expected) in rows {
        let text = if old.is_empty() { format!("{SHORT}{new}\n") } else { SHORT.replacen(old, new, 1) };
        let found = mistakes(&text);
        let same = found.len() == expected.len()
            && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
        if !same {
            wrong.push(format!("{new:?}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_of_all_files_are_reported_at_once() {
    let errors = load(&["id = ", "id = \"Bad\"\nwhat = 1", SHORT, SHORT]).unwrap_err();
    let of = |file: &str| errors.iter().filter(|e| e.file.ends_with(file)).count();
    assert_eq!(of("0.toml"), 1, "{errors:#?}");
    assert!(of("1.toml") >= 5, "{errors:#?}");
    assert_eq!(of("2.toml"), 0, "{errors:#?}");
    let duplicate = errors.iter().find(|e| e.file.ends_with("3.toml")).unwrap();
    assert_eq!((duplicate.line, duplicate.column, duplicate.path.as_str()), (2, 6, "id"));
    assert!(duplicate.message.contains("2.toml"), "{duplicate}");
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 1_100_000]).unwrap();
    let files = [folder.path().join("absent.toml"), folder.path().to_owned(), binary, large];
    let errors = Catalogue::load(&files).unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:#?}");
    for (error, file) in errors.iter().zip(&files) {
        assert_eq!((error.file.as_str(), error.line, error.column), (file.to_str().unwrap(), 1, 1));
    }
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
fn variables_are_filled_in_and_can_not_leave_their_place() {
    let text = r#"
id = "example"
display_name = "Example"
[variables.host]
kind = "host"
description = "the server"
default = "example.com"
[variables.team]
description = "the team"
[endpoints]
issuer = "https://{host}/{team}/"
authorization = "https://{team}.{host}/authorize"
token = "https://{host}/{team}/token"
userinfo = "https://{host}/me"
[revocation]
kind = "call"
url = "https://{host}/{team}/{client_id}/grant"
auth = "bearer"
[services.files]
display_name = "Files"
scopes = []
"#;
    let catalogue = load(&[text]).unwrap();
    let with = |variables: &[(&str, &str)]| {
        let mut registration = registration("mine", "example");
        registration.variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        registration
    };
    let made = provider(&catalogue, with(&[("team", "acme")]));
    let EndpointSource::Literal(endpoints) = &made.endpoints else { panic!("{:?}", made.endpoints) };
    assert_eq!(endpoints.issuer.as_deref(), Some("https://example.com/acme/"));
    assert_eq!(endpoints.authorization.as_str(), "https://acme.example.com/authorize");
    assert_eq!(endpoints.userinfo.as_ref().unwrap().as_str(), "https://example.com/me");
    assert_eq!(made.identity.userinfo.as_ref().unwrap().url, endpoints.userinfo);
    let Revocation::Call(call) = &made.revocation else { panic!("{:?}", made.revocation) };
    assert_eq!(call.url, "https://example.com/acme/{client_id}/grant");

    let other = provider(&catalogue, with(&[("team", "acme"), ("host", "git.example.org:8443")]));
    let EndpointSource::Literal(endpoints) = &other.endpoints else { panic!("{:?}", other.endpoints) };
    assert_eq!(endpoints.token.as_str(), "https://git.example.org:8443/acme/token");

    for (variables, expected) in [
        (&[][..], &["providers.mine: variables.team is missing: the team"][..]),
        (
            &[("team", "a/b"), ("host", "u@evil.example"), ("x", "1")][..],
            &[
                "providers.mine: variables.host must be a host name",
                "providers.mine: variables.team must consist of letters",
                "providers.mine: variables.x is not a variable of \"example\"; it has: host, team",
            ][..],
        ),
    ] {
        let errors = catalogue.configure(vec![with(variables)]).unwrap_err();
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found:#?}");
        }
    }
}

#[test]
fn registrations_with_mistakes_are_reported_all_at_once() {
    let public = SHORT.replace("[endpoints]", "[client]\nauth = \"none\"\n[endpoints]");
    let catalogue = load(&[&public]).unwrap();
    let mut registrations = vec![
        registration("a", "google"),
        registration("a", "google"),
        registration("b", "gogle"),
        registration("c", "google"),
        registration("d", "google"),
        registration("e", "example"),
        registration("f", "google"),
        registration("g", "google"),
    ];
    registrations[3].client_id = String::new();
    registrations[3].client_secret = None;
    registrations[4].client_secret = Some(SecretString::from(""));
    registrations[6].client_id = "client\n".to_owned();
    registrations[7].variables.insert("tenant".to_owned(), "x".to_owned());
    let errors = catalogue.configure(registrations).unwrap_err();
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        ("providers.a: this id is used twice", None),
        ("providers.b: there is no definition \"gogle\"; there are: ", Some("definition")),
        ("providers.c: client_id must be 1 to 512 printable", Some("client_id")),
        (
            "providers.c: client_secret is missing: \"google\" describes a confidential client",
            Some("client_secret"),
        ),
        ("providers.d: client_secret is missing", Some("client_secret")),
        (
            "providers.e: client_secret must not be given: \"example\" describes a public client",
            Some("client_secret"),
        ),
        ("providers.f: client_id must be", Some("client_id")),
        (
            "providers.g: variables.tenant is not a variable of \"google\"; it has none",
            Some("variables.tenant"),
        ),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((found, error), (text, key)) in found.iter().zip(&errors).zip(expected) {
        assert!(found.starts_with(text), "{found:?} {text:?}");
        assert_eq!(error.mistake.key().as_deref(), key, "{found}");
    }
    assert!(!format!("{errors:?} {found:?}").contains("canary"));
}

#[test]
fn one_definition_serves_several_registrations() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let mut second = registration("google-work", "google");
    second.client_id = "other".to_owned();
    let configured = catalogue.configure(vec![registration("google", "google"), second]).unwrap();
    let tenant = TenantId::new("t").unwrap();
    let all = configured.providers(&tenant);
    let seen: Vec<_> = all.iter().map(|p| (p.id.as_str(), p.client.id.as_str())).collect();
    assert_eq!(seen, [("google", "client"), ("google-work", "other")]);
    assert!(configured.provider(&tenant, &ProviderId::new("github").unwrap()).is_none());
    assert!(!format!("{configured:?}").contains("canary"));
}

#[test]
fn a_client_without_a_secret_is_public_where_the_definition_allows_it() {
    let catalogue = Catalogue::load(&[]).unwrap();
    let mut with = registration("a", "oidc");
    with.variables.insert("issuer".to_owned(), "https://id.example.com/realm/".to_owned());
    let mut without = with.clone();
    without.client_secret = None;
    let with = provider(&catalogue, with);
    assert!(
        matches!(&with.endpoints, EndpointSource::Discovered { issuer } if issuer == "https://id.example.com/realm/")
    );
    assert_eq!(with.client.auth, ClientAuth::Basic);
    let without = provider(&catalogue, without);
    assert_eq!(without.client.auth, ClientAuth::None);
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
