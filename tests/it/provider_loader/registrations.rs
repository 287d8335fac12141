//! Definition and client become a provider; every mistake in a registration is reported.

use token_broker::domain::key::ProviderId;
use token_broker::domain::provider::{
    AssertionAudience, ClientAuth, ClientCertificate, EndpointSource, Revocation,
};
use token_broker::domain::secret::SecretString;
use token_broker::infra::providers::{Catalogue, ClientKeys, PrivateKey};

use super::{SHORT, load, provider, registration};

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
        // A host by its letters, but no address: the whole URL tells.
        (
            &[("team", "acme"), ("host", "10.0.0.999")][..],
            &[
                "providers.mine: endpoints.authorization with these variables must be a complete URL",
                "providers.mine: endpoints.token with these variables must be a complete URL",
                "providers.mine: endpoints.userinfo with these variables must be a complete URL",
                "providers.mine: endpoints.issuer with these variables must be a complete URL",
                "providers.mine: revocation.url with these variables must be a complete URL",
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
    let all = configured.all();
    let seen: Vec<_> = all.iter().map(|p| (p.id.as_str(), p.client.id.as_str())).collect();
    assert_eq!(seen, [("google", "client"), ("google-work", "other")]);
    assert!(configured.get(&ProviderId::new("github").unwrap()).is_none());
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

/// An OpenID provider, whose definition says `basic` and has an issuer.
fn with_keys(auth: Option<ClientAuth>, secret: bool, key: bool, certificate: bool) -> super::Registration {
    let mut made = registration("a", "oidc");
    made.variables.insert("issuer".to_owned(), "https://id.example.com".to_owned());
    if !secret {
        made.client_secret = None;
    }
    let pem = SecretString::from("canary-key");
    made.keys = ClientKeys {
        auth,
        private_key: key.then(|| PrivateKey { pem: pem.clone(), id: Some("1".to_owned()), algorithm: None }),
        certificate: certificate.then(|| ClientCertificate { chain: "chain".to_owned(), key: pem }),
    };
    made
}

#[test]
fn keys_come_before_secrets_and_a_client_authenticates_in_one_way() {
    use ClientAuth::{Basic, None as Public, Post, PrivateKeyJwt, TlsCertificate};
    let catalogue = Catalogue::load(&[]).unwrap();
    for (auth, [secret, key, certificate], expected) in [
        (None, [true, false, false], Basic),
        (None, [false, true, false], PrivateKeyJwt),
        (None, [false, false, true], TlsCertificate),
        (None, [false, true, true], PrivateKeyJwt),
        (None, [false, false, false], Public),
        (Some(Post), [true, false, false], Post),
        (Some(Basic), [true, false, true], Basic),
        (Some(TlsCertificate), [false, false, true], TlsCertificate),
    ] {
        let client = provider(&catalogue, with_keys(auth, secret, key, certificate)).client;
        assert_eq!(client.auth, expected, "{auth:?} {secret} {key} {certificate}");
        assert_eq!(client.secret.is_some(), matches!(expected, Basic | Post));
        assert_eq!(client.assertion.is_some(), expected == PrivateKeyJwt);
        assert_eq!(client.certificate.is_some(), certificate);
        assert!(!format!("{client:?}").contains("canary"));
    }
    for (auth, [secret, key, certificate], mistakes) in [
        (
            None,
            [true, true, false],
            &["client_secret is not used: the client authenticates by private_key_jwt"][..],
        ),
        (
            None,
            [true, false, true],
            &["client_secret is not used: the client authenticates by tls_client_auth"],
        ),
        (Some(PrivateKeyJwt), [false, false, false], &["private_key_file is missing"]),
        (
            Some(PrivateKeyJwt),
            [true, false, false],
            &["client_secret is not used", "private_key_file is missing"],
        ),
        (
            Some(TlsCertificate),
            [false, true, false],
            &["private_key_file is not used", "tls_certificate_file is missing"],
        ),
        (
            Some(Basic),
            [false, false, false],
            &["client_secret is missing: the client authenticates by client_secret_basic"],
        ),
        (
            Some(Post),
            [true, true, false],
            &["private_key_file is not used: the client authenticates by client_secret_post"],
        ),
        (
            Some(Public),
            [true, false, false],
            &["client_secret is not used: the client authenticates by none"],
        ),
        (
            Some(Public),
            [false, true, false],
            &["private_key_file is not used: the client authenticates by none"],
        ),
    ] {
        let errors = catalogue.configure(vec![with_keys(auth, secret, key, certificate)]).unwrap_err();
        let found: Vec<String> = errors.iter().map(|error| error.mistake.to_string()).collect();
        assert_eq!(found.len(), mistakes.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(mistakes) {
            assert!(found.starts_with(expected), "{found:?} {expected:?}");
        }
    }
}

#[test]
fn an_assertion_needs_an_audience() {
    let with = |line: &str| {
        let text = SHORT
            .replace("[endpoints]", &format!("[client]\nauth = \"private_key_jwt\"\n{line}\n[endpoints]"));
        let catalogue = load(&[&text]).unwrap();
        let mut made = registration("a", "example");
        made.client_secret = None;
        made.keys = with_keys(None, false, true, false).keys;
        catalogue
            .configure(vec![made.clone()])
            .map(|_| provider(&catalogue, made).client.assertion.unwrap().audience)
    };
    let errors = with("").unwrap_err();
    assert!(errors[0].to_string().contains("client assertions name the issuer"), "{errors:?}");
    assert_eq!(errors[0].mistake.key().as_deref(), Some("client_auth"));
    assert_eq!(with("assertion_audience = \"token_endpoint\"").unwrap(), AssertionAudience::TokenEndpoint);
}
