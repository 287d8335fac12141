//! Apps are managed over the wire and by the command line; what is refused changes nothing.

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{app, builder, create, ops, pair, reason, secret, start};
use crate::support::broker::{AdminClient, BrokerBuilder, CallerRights, answered, refused};
use crate::support::hostile::HostileServer;

const RSA: &str = include_str!("../support/keys/rsa.pem");
const SHORT_RSA: &str = include_str!("../support/keys/rsa1024.pem");
const ENCRYPTED: &str = include_str!("../support/keys/encrypted.pem");
const CERTIFICATE: &str = include_str!("../support/tls/mutual/client.crt");
const CERTIFICATE_KEY: &str = include_str!("../support/tls/mutual/client.key");
const OTHER_KEY: &str = include_str!("../support/tls/mutual/stranger.key");

async fn all(operator: &mut AdminClient) -> Vec<pb::ProviderConfiguration> {
    let list = pb::ListProviderConfigurationsRequest::default();
    answered(operator.list_provider_configurations(list).await).configurations
}

fn fields(status: &Status) -> Vec<String> {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::InvalidArgument, "INVALID_ARGUMENT"),
        "{status}"
    );
    let bad = status.get_details_bad_request().unwrap();
    bad.field_violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn an_app_is_made_changed_and_deleted_without_a_restart() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut operator = ops(&broker, "acme").await;
    let made = create(&broker, "acme", app("acme-app", "canary-own-secret")).await;
    assert_eq!((made.tenant.as_str(), made.provider.as_str(), made.revision), ("acme", "hostile", 1));
    assert!(made.has_client_secret && !made.has_private_key && made.disable_time.is_none());
    assert_eq!(
        made.redirect_uri,
        format!("{}/oauth/callback/hostile/{}", broker.public_url(), made.configuration_id)
    );
    let twice = refused(operator.create_provider_configuration(app("other", "other")).await);
    assert_eq!(
        (twice.code(), reason(&twice).as_str()),
        (Code::FailedPrecondition, "PROVIDER_CONFIGURATION_EXISTS")
    );
    let key = pb::ClientAuthentication {
        method: "private_key_jwt".to_owned(),
        private_key: RSA.to_owned(),
        private_key_id: "kid-1".to_owned(),
        private_key_algorithm: "PS256".to_owned(),
        ..Default::default()
    };
    // The test's definition has no issuer that assertions could name: another kind of key will do.
    let update = |revision, authentication| pb::UpdateProviderConfigurationRequest {
        provider: "hostile".to_owned(),
        revision,
        authentication: Some(authentication),
        ..Default::default()
    };
    let no_issuer = refused(operator.update_provider_configuration(update(1, key)).await);
    assert_eq!(fields(&no_issuer), ["authentication.method"]);
    let by_certificate = pb::ClientAuthentication {
        tls_certificate: CERTIFICATE.to_owned(),
        tls_key: CERTIFICATE_KEY.to_owned(),
        ..Default::default()
    };
    let changed = operator.update_provider_configuration(update(1, by_certificate.clone())).await;
    let changed = answered(changed).configuration.unwrap();
    assert_eq!((changed.revision, changed.has_client_secret), (2, false));
    assert_eq!(changed.tls_certificate, CERTIFICATE);
    assert_eq!((&changed.configuration_id, &changed.client_id), (&made.configuration_id, &made.client_id));
    let stale = refused(operator.update_provider_configuration(update(1, by_certificate)).await);
    assert_eq!(
        (stale.code(), reason(&stale).as_str()),
        (Code::FailedPrecondition, "PROVIDER_CONFIGURATION_CHANGED")
    );
    let get = pb::GetProviderConfigurationRequest { provider: "hostile".to_owned(), ..Default::default() };
    assert!(
        answered(operator.get_provider_configuration(get.clone()).await).configuration.unwrap() == changed
    );
    let delete =
        pb::DeleteProviderConfigurationRequest { provider: "hostile".to_owned(), ..Default::default() };
    answered(operator.delete_provider_configuration(delete.clone()).await);
    for refusal in [
        refused(operator.delete_provider_configuration(delete).await),
        refused(operator.get_provider_configuration(get).await),
        refused(operator.update_provider_configuration(update(2, secret("s"))).await),
    ] {
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str()),
            (Code::NotFound, "PROVIDER_CONFIGURATION_NOT_FOUND")
        );
    }
}

#[tokio::test]
async fn what_can_not_be_an_app_is_refused_by_its_field_and_changes_nothing() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut operator = ops(&broker, "acme").await;
    let with = |change: &dyn Fn(&mut pb::CreateProviderConfigurationRequest)| {
        let mut request = app("acme-app", "canary-own-secret");
        change(&mut request);
        request
    };
    let authentication = |change: &dyn Fn(&mut pb::ClientAuthentication)| {
        let mut authentication = secret("canary-own-secret");
        change(&mut authentication);
        with(&|request| request.authentication = Some(authentication.clone()))
    };
    let open = |name: &str, value: &str| {
        with(&|request| {
            request.definition = "test-open".to_owned();
            request.variables = [(name.to_owned(), value.to_owned())].into();
        })
    };
    let oidc = |issuer: &str| {
        with(&|request| {
            request.definition = "oidc".to_owned();
            request.variables = [("issuer".to_owned(), issuer.to_owned())].into();
        })
    };
    let cases: Vec<(pb::CreateProviderConfigurationRequest, &[&str])> = vec![
        (with(&|r| r.provider = "Not a slug".to_owned()), &["provider"]),
        (with(&|r| r.provider = String::new()), &["provider"]),
        (with(&|r| r.tenant = "Not a slug".to_owned()), &["tenant"]),
        (with(&|r| r.definition = "canary-nothing".to_owned()), &["definition"]),
        (with(&|r| r.definition = "../../etc/passwd".to_owned()), &["definition"]),
        (with(&|r| r.client_id = String::new()), &["client_id"]),
        (with(&|r| r.client_id = "x".repeat(513)), &["client_id"]),
        (with(&|r| r.client_id = "a\nb".to_owned()), &["client_id"]),
        (with(&|r| r.client_id = " a".to_owned()), &["client_id"]),
        (with(&|r| r.variables = [("host".to_owned(), "a".to_owned())].into()), &["variables.host"]),
        (with(&|r| r.variables = [("Bad Name".to_owned(), "a".to_owned())].into()), &["variables"]),
        (
            with(&|r| r.variables = (0..17).map(|n| (format!("v{n}"), "a".to_owned())).collect()),
            &["variables"],
        ),
        (with(&|r| r.authentication = None), &["authentication.client_secret"]),
        (authentication(&|a| a.method = "canary-method".to_owned()), &["authentication.method"]),
        (authentication(&|a| a.client_secret = "x".repeat(4097)), &["authentication.client_secret"]),
        (authentication(&|a| a.client_secret = "canary-a\n".to_owned()), &["authentication.client_secret"]),
        (
            authentication(&|a| a.client_secret = "canary-\u{e4}".to_owned()),
            &["authentication.client_secret"],
        ),
        (authentication(&|a| a.method = "none".to_owned()), &["authentication.client_secret"]),
        (
            authentication(&|a| a.method = "tls_client_auth".to_owned()),
            &["authentication.client_secret", "authentication.tls_certificate"],
        ),
        (authentication(&|a| a.tls_certificate = CERTIFICATE.to_owned()), &["authentication.tls_key"]),
        (authentication(&|a| a.tls_key = CERTIFICATE_KEY.to_owned()), &["authentication.tls_certificate"]),
        (
            authentication(&|a| {
                a.client_secret.clear();
                a.tls_certificate = CERTIFICATE.to_owned();
                a.tls_key = OTHER_KEY.to_owned();
            }),
            &["authentication.tls_certificate"],
        ),
        (authentication(&|a| a.private_key_id = "kid".to_owned()), &["authentication.private_key"]),
        (
            authentication(&|a| a.private_key_algorithm = "HS256".to_owned()),
            &["authentication.private_key_algorithm"],
        ),
        (authentication(&|a| a.private_key = "x".repeat(16 * 1024 + 1)), &["authentication.private_key"]),
        (authentication(&|a| a.private_key = "canary-\u{0}".to_owned()), &["authentication.private_key"]),
        (open("realm", "main"), &["variables.host"]),
        (open("host", "a/b"), &["variables.host"]),
        (open("host", "user@example.com"), &["variables.host"]),
        // What a tenant names leads to public addresses by https.
        (open("host", "localhost"), &["variables"]),
        (open("host", "127.0.0.1"), &["variables"]),
        (open("host", "127.1"), &["variables"]),
        (open("host", "10.0.0.1:8443"), &["variables"]),
        (open("host", "169.254.169.254"), &["variables"]),
        (open("host", "2130706433"), &["variables"]),
        (oidc("http://127.0.0.1:8080"), &["variables.issuer"]),
        (oidc("http://localhost"), &["variables.issuer"]),
        (oidc("http://issuer.example"), &["variables.issuer"]),
        (oidc("https://[::1]"), &["variables"]),
        (oidc("https://[fd00:ec2::254]"), &["variables"]),
        (oidc("https://192.168.1.1/realm"), &["variables"]),
        (oidc("https://issuer.example/?x=1"), &["variables.issuer"]),
        (oidc("https://user:pw@issuer.example"), &["variables.issuer"]),
    ];
    for (request, expected) in cases {
        let refusal = refused(operator.create_provider_configuration(request.clone()).await);
        assert_eq!(fields(&refusal), expected, "{}: {:?}", request.definition, request.variables);
        let said = format!("{refusal:?}");
        assert!(!said.contains("canary"), "no value is repeated: {said}");
    }
    assert!(all(&mut operator).await.is_empty());
}

#[tokio::test]
async fn keys_that_can_not_sign_and_changes_that_can_not_be_are_refused() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut operator = ops(&broker, "acme").await;
    // Keys, where the definition has an issuer.
    let signed = |key: &str, algorithm: &str| {
        let mut request = app("acme-app", "canary-own-secret");
        request.definition = "oidc".to_owned();
        request.variables = [("issuer".to_owned(), "https://issuer.example".to_owned())].into();
        request.authentication = Some(pb::ClientAuthentication {
            private_key: key.to_owned(),
            private_key_algorithm: algorithm.to_owned(),
            ..Default::default()
        });
        request
    };
    for (key, algorithm) in [(SHORT_RSA, ""), (ENCRYPTED, ""), ("nothing", ""), (RSA, "ES256")] {
        let refusal = refused(operator.create_provider_configuration(signed(key, algorithm)).await);
        assert_eq!(fields(&refusal), ["authentication.private_key"]);
    }
    assert!(all(&mut operator).await.is_empty());
    answered(operator.create_provider_configuration(signed(RSA, "PS256")).await);
    let stored = all(&mut operator).await;
    let [made] = &stored[..] else { panic!("one") };
    assert!(made.has_private_key && made.private_key_algorithm == "PS256");

    // The same for changes.
    let update = |change: &dyn Fn(&mut pb::UpdateProviderConfigurationRequest)| {
        let mut request = pb::UpdateProviderConfigurationRequest {
            provider: "hostile".to_owned(),
            revision: 1,
            disabled: Some(true),
            ..Default::default()
        };
        change(&mut request);
        request
    };
    for (request, expected) in [
        (update(&|r| r.revision = 0), "revision"),
        (update(&|r| r.revision = -1), "revision"),
        (update(&|r| r.disabled = None), "authentication"),
        (update(&|r| r.authentication = Some(secret("canary-\u{7f}"))), "authentication.client_secret"),
        (update(&|r| r.provider = "-".to_owned()), "provider"),
    ] {
        let refusal = refused(operator.update_provider_configuration(request).await);
        assert_eq!(fields(&refusal), [expected]);
    }
    assert!(all(&mut operator).await == [made.clone()]);
}

#[tokio::test]
async fn an_operator_of_one_tenant_manages_that_tenants_apps_alone() {
    let server = HostileServer::start().await;
    let broker = builder(&server)
        .caller("other-rights", CallerRights::none("acme"))
        .set("callers.other-rights.admin", vec!["manage_callers", "manage_tenants", "break_glass"])
        .start_in_process(Overrides::default())
        .await;
    create(&broker, "acme", app("acme-app", "secret")).await;
    let of = |tenant: &str| pb::CreateProviderConfigurationRequest {
        tenant: tenant.to_owned(),
        ..app("app", "s")
    };
    let mut globex = ops(&broker, "globex").await;
    for refusal in [
        refused(globex.create_provider_configuration(of("acme")).await),
        refused(globex.create_provider_configuration(of("no-such-tenant")).await),
        refused(broker.admin("other-rights").await.create_provider_configuration(of("acme")).await),
    ] {
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str()),
            (Code::PermissionDenied, "PERMISSION_DENIED")
        );
    }
    assert!(all(&mut globex).await.is_empty());
    // One of the whole broker names the tenant.
    let mut root = broker.admin("root").await;
    answered(root.create_provider_configuration(of("globex")).await);
    assert_eq!(all(&mut globex).await.len(), 1);
    let refusal = refused(root.create_provider_configuration(of("no-such-tenant")).await);
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::NotFound, "TENANT_NOT_FOUND"));
}

#[tokio::test]
async fn pages_and_the_limit_of_a_tenants_apps() {
    let server = HostileServer::start().await;
    let broker = builder(&server).set("limits.changes", 0).start_in_process(Overrides::default()).await;
    let mut operator = ops(&broker, "acme").await;
    for n in 0..100 {
        let request =
            pb::CreateProviderConfigurationRequest { provider: format!("p{n:02}"), ..app("app", "secret") };
        answered(operator.create_provider_configuration(request).await);
    }
    let refusal = refused(operator.create_provider_configuration(app("app", "secret")).await);
    assert_eq!(
        (refusal.code(), reason(&refusal).as_str()),
        (Code::FailedPrecondition, "TOO_MANY_PROVIDER_CONFIGURATIONS")
    );
    let page = async |page_size, page_token: &str| {
        let request = pb::ListProviderConfigurationsRequest {
            page_size,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        ops(&broker, "acme").await.list_provider_configurations(request).await
    };
    let first = answered(page(60, "").await);
    let second = answered(page(60, &first.next_page_token).await);
    let ids = first.configurations.iter().chain(&second.configurations).map(|c| c.provider.clone());
    assert_eq!(ids.collect::<Vec<_>>(), (0..100).map(|n| format!("p{n:02}")).collect::<Vec<_>>());
    assert!(second.next_page_token.is_empty());
    for (size, token, field) in
        [(-1, "", "page_size"), (1001, "", "page_size"), (1, "Not a token", "page_token")]
    {
        assert_eq!(fields(&refused(page(size, token).await)), [field]);
    }
}

#[tokio::test]
async fn the_command_line_manages_apps_and_shows_no_secret() {
    let server = HostileServer::start().await;
    let broker = BrokerBuilder::new()
        .hostile(&server)
        .set("authentication.cache_ttl", "0s")
        .caller("agent", CallerRights::all("acme").admin(false))
        .env("OWN_SECRET", "canary-own-secret-2")
        .start_in_process(Overrides::default())
        .await;
    let secret_file = broker.site().path().join("own-secret.key");
    std::fs::write(&secret_file, "canary-own-secret-1\n").unwrap();
    let run = async |args: &[&str], code: i32| {
        let output = broker.site().run(&[args, &["--output", "json"]].concat()).await;
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(!out.contains("canary") && !error.contains("canary"), "{args:?}: {out} {error}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default()
    };
    let file = secret_file.to_str().unwrap();
    let create =
        ["providers", "create", "hostile", "--definition", "test-hostile", "--client-id", "acme-app"];
    let made = run(&[&create[..], &["--client-secret-file", file]].concat(), 0).await;
    assert_eq!(
        (made["client_id"].as_str(), made["has_client_secret"].as_bool()),
        (Some("acme-app"), Some(true))
    );
    let consent = super::connect_as(&broker, &server, "agent", "alice").await;
    assert_eq!(consent, pair("acme-app", "canary-own-secret-1"), "without the end of the line");
    run(&[&create[..], &["--client-secret-file", file]].concat(), 9).await;
    // Secrets come from files and variables, one way each.
    run(&[&create[..], &["--client-secret", "canary-x"]].concat(), 2).await;
    run(&[&create[..], &["--client-secret-env", "NO_SUCH_VARIABLE"]].concat(), 2).await;
    run(&[&create[..], &["--client-secret-file", "no-such-file"]].concat(), 2).await;
    run(&[&create[..], &["--client-secret-file", "-", "--private-key-file", "-"]].concat(), 2).await;

    assert_eq!(run(&["providers", "show", "hostile", "--stored"], 0).await, made);
    let listed = run(&["providers", "list", "--stored"], 0).await;
    assert_eq!(listed, serde_json::json!([made]));
    // Without --stored they are about the catalogue, as ever.
    assert!(run(&["providers", "list"], 0).await.as_array().unwrap().len() > 20);
    assert_eq!(run(&["providers", "show", "google"], 0).await["id"], "google");
    assert_eq!(run(&["providers", "configured"], 0).await[0]["client_id"], "client-1");

    let update = ["providers", "update", "hostile"];
    run(&update, 2).await;
    let changed = run(&[&update[..], &["--client-secret-env", "OWN_SECRET"]].concat(), 0).await;
    assert_eq!(changed["revision"], 2);
    assert_eq!(
        super::connect_as(&broker, &server, "agent", "bob").await,
        pair("acme-app", "canary-own-secret-2")
    );
    assert!(run(&[&update[..], &["--disable"]].concat(), 0).await["disable_time"].is_string());
    assert!(run(&[&update[..], &["--enable"]].concat(), 0).await["disable_time"].is_null());
    run(&["providers", "delete", "hostile"], 9).await;
    run(&["providers", "delete", "hostile", "--force"], 0).await;
    run(&["providers", "show", "hostile", "--stored"], 9).await;
    assert_eq!(run(&["providers", "list", "--stored"], 0).await, serde_json::json!([]));
}
