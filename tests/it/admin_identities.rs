//! What callers prove to be beside their keys: each identity is one caller's, in the configuration and in the database.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::broker::{
    AdminClient, BrokerBuilder, CallerRights, TestBroker, answered, reason, refused,
};

const ISSUER: &str = "https://issuer.example";

/// A file with no keys: nobody comes in by a token here.
static NO_KEYS: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("no-keys-{}.json", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, "{\"keys\":[]}").unwrap();
    path
});

/// Operators of `acme` and of all tenants; workloads of the configuration in both tenants.
fn builder() -> BrokerBuilder {
    let subject = |name: &str| {
        let pairs = [("issuer", ISSUER), ("subject", name)];
        let pairs = pairs.map(|(key, text)| (key.to_owned(), toml::Value::from(text)));
        vec![toml::Value::Table(toml::Table::from_iter(pairs))]
    };
    let keys = NO_KEYS.to_str().unwrap().to_owned();
    let domain = [
        ("jwt_bundle_file".to_owned(), toml::Value::from(keys.clone())),
        ("jwt_audiences".to_owned(), vec!["token-broker"].into()),
    ];
    BrokerBuilder::new()
        .set_table(&["spiffe", "trust_domains", "example.org"], toml::Table::from_iter(domain))
        .set("issuers.cluster.issuer", ISSUER)
        .set("issuers.cluster.audiences", vec!["token-broker"])
        .set("issuers.cluster.for", vec!["callers"])
        .set("issuers.cluster.jwks_file", keys)
        .caller("ops", CallerRights::none("acme").admin(false))
        .caller("root", CallerRights::none("acme").admin(true))
        .caller("mail", CallerRights::all("acme"))
        .set("callers.mail.spiffe_ids", vec!["spiffe://example.org/acme"])
        .set("callers.mail.subjects", subject("acme"))
        .caller("rival", CallerRights::all("globex"))
        .set("callers.rival.spiffe_ids", vec!["spiffe://example.org/globex"])
        .set("callers.rival.subjects", subject("globex"))
}

async fn start() -> TestBroker {
    builder().start_in_process(Overrides::default()).await
}

fn spiffe(id: &str) -> pb::CallerSettings {
    pb::CallerSettings { spiffe_ids: vec![id.to_owned()], ..Default::default() }
}

fn subject(name: &str) -> pb::CallerSettings {
    let subject = pb::JwtSubject { issuer: ISSUER.to_owned(), subject: name.to_owned() };
    pb::CallerSettings { subjects: vec![subject], ..Default::default() }
}

async fn create(
    admin: &mut AdminClient,
    tenant: &str,
    caller: &str,
    settings: pb::CallerSettings,
) -> Result<(), Status> {
    let request = pb::CreateCallerRequest {
        tenant: tenant.to_owned(),
        caller: caller.to_owned(),
        settings: Some(settings),
    };
    admin.create_caller(request).await.map(|_| ())
}

/// Everything of an answer that its caller can see.
fn bytes(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn an_identity_of_the_configuration_is_nobody_elses() {
    type Identity = fn(&str) -> pb::CallerSettings;
    let broker = start().await;
    let mut ops = broker.admin("ops").await;
    create(&mut ops, "", "stored", spiffe("spiffe://example.org/stored")).await.unwrap();
    let as_id: Identity = |name| spiffe(&format!("spiffe://example.org/{name}"));
    for (identity, field) in [(as_id, "settings.spiffe_ids"), (subject as Identity, "settings.subjects")] {
        let own = create(&mut ops, "", "new", identity("acme")).await.unwrap_err();
        assert_eq!((own.code(), reason(&own).as_str()), (Code::AlreadyExists, "IDENTITY_TAKEN"));
        assert!(own.message().starts_with(field), "{}", own.message());
        // Whose it is does not show.
        let others = create(&mut ops, "", "new", identity("globex")).await.unwrap_err();
        assert_eq!(bytes(&own), bytes(&others));
        for taken in ["acme", "globex"] {
            let update = pb::UpdateCallerRequest {
                caller: "stored".to_owned(),
                revision: 1,
                settings: Some(identity(taken)),
                ..Default::default()
            };
            assert_eq!(bytes(&own), bytes(&refused(ops.update_caller(update).await)));
        }
    }
    // Nor does it differ from one that the database has, in either tenant.
    let mut root = broker.admin("root").await;
    create(&mut root, "globex", "theirs", spiffe("spiffe://example.org/theirs")).await.unwrap();
    let configured = create(&mut ops, "", "new", as_id("globex")).await.unwrap_err();
    for taken in ["stored", "theirs"] {
        let stored = create(&mut ops, "", "new", as_id(taken)).await.unwrap_err();
        assert_eq!(bytes(&configured), bytes(&stored), "{taken}");
    }
    // Nothing of all that was stored.
    let request = pb::GetCallerRequest { caller: "stored".to_owned(), ..Default::default() };
    let stored = answered(ops.get_caller(request).await).caller.unwrap();
    let ids = stored.settings.map(|settings| settings.spiffe_ids);
    assert_eq!((stored.revision, ids), (1, Some(vec!["spiffe://example.org/stored".to_owned()])));
    let request = pb::GetCallerRequest { caller: "new".to_owned(), ..Default::default() };
    assert_eq!(reason(&refused(ops.get_caller(request).await)), "CALLER_NOT_FOUND");
}

#[tokio::test]
async fn who_may_not_make_callers_learns_nothing_of_identities() {
    let broker = start().await;
    let mut agent = broker.admin("agent").await;
    let mut ops = broker.admin("ops").await;
    let free = create(&mut agent, "", "new", spiffe("spiffe://example.org/free")).await.unwrap_err();
    let taken = create(&mut agent, "", "new", spiffe("spiffe://example.org/globex")).await.unwrap_err();
    let elsewhere = create(&mut ops, "globex", "new", spiffe("spiffe://example.org/globex")).await;
    assert_eq!(free.code(), Code::PermissionDenied);
    assert_eq!(bytes(&free), bytes(&taken));
    assert_eq!(bytes(&free), bytes(&elsewhere.unwrap_err()));
}

#[tokio::test]
async fn a_spiffe_id_is_one_that_a_certificate_can_name() {
    let broker = start().await;
    let mut ops = broker.admin("ops").await;
    let too_long = format!("spiffe://example.org/{}", "a".repeat(2_028));
    let domain_too_long = format!("spiffe://{}/a", "d".repeat(256));
    for bad in [
        "",
        "https://example.org/a",
        "SPIFFE://example.org/a",
        "spiffe://",
        "spiffe:///a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/./a",
        "spiffe://Example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b=c",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%62",
        "spiffe://example.org/a b",
        "spiffe://example.org/\u{e4}",
        " spiffe://example.org/a",
        "spiffe://example.org/a\n",
        &too_long,
        &domain_too_long,
    ] {
        let settings = pb::CallerSettings {
            spiffe_ids: vec!["spiffe://example.org/fine".to_owned(), bad.to_owned()],
            ..Default::default()
        };
        let refusal = create(&mut ops, "", "new", settings.clone()).await.unwrap_err();
        let update = pb::UpdateCallerRequest {
            caller: "new".to_owned(),
            revision: 1,
            settings: Some(settings),
            ..Default::default()
        };
        for refusal in [refusal, refused(ops.update_caller(update).await)] {
            assert_eq!(refusal.code(), Code::InvalidArgument, "{bad:?}");
            let fields = refusal.get_details_bad_request().unwrap().field_violations;
            let fields: Vec<_> = fields.into_iter().map(|violation| violation.field).collect();
            assert_eq!(fields, ["settings.spiffe_ids[1]"], "{bad:?}");
        }
    }
    create(&mut ops, "", "new", spiffe("spiffe://example.org/fine")).await.unwrap();
}

#[tokio::test]
async fn a_configuration_with_an_identity_of_the_database_does_not_start() {
    let broker = start().await;
    let mut root = broker.admin("root").await;
    let settings =
        pb::CallerSettings { subjects: subject("stored").subjects, ..spiffe("spiffe://example.org/stored") };
    create(&mut root, "globex", "stored", settings).await.unwrap();
    broker.shutdown().await;
    let config = std::fs::read_to_string(broker.site().config_path()).unwrap();
    let subjects = format!("subjects = [{{ issuer = \"{ISSUER}\", subject = \"stored\" }}]");
    for (line, key) in [
        ("spiffe_ids = [\"spiffe://example.org/stored\"]", "callers.late.spiffe_ids"),
        (subjects.as_str(), "callers.late.subjects"),
    ] {
        let text = format!("{config}\n[callers.late]\ntenant = \"acme\"\n{line}\n");
        std::fs::write(broker.site().config_path(), text).unwrap();
        let output = broker.site().run(&["serve"]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && error.contains(key), "{error}");
    }
}

#[tokio::test]
async fn the_command_line_shows_who_callers_are() {
    let builder = builder().caller("agent", CallerRights::none("acme").admin(true));
    let broker = builder.start_in_process(Overrides::default()).await;
    let mut root = broker.admin("root").await;
    let settings = pb::CallerSettings {
        spiffe_ids: vec!["spiffe://example.org/one".to_owned(), "spiffe://example.org/two".to_owned()],
        ..subject("stored")
    };
    create(&mut root, "", "stored", settings).await.unwrap();
    let run = async |args: &[&str]| {
        let output = broker.site().run(args).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json = async |args: &[&str]| {
        let text = run(&[args, &["--output", "json"]].concat()).await;
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let subjects = |name: &str| serde_json::json!([{ "issuer": ISSUER, "subject": name }]);
    // From the file, and from the broker, which knows both kinds of callers.
    for args in [&["callers", "list"][..], &["callers", "list", "--stored"]] {
        let all = json(args).await;
        let all = all.as_array().unwrap();
        let named = |name: &str| {
            all.iter().find(|caller| [&caller["id"], &caller["caller"]].contains(&&name.into())).unwrap()
        };
        let mail = named("mail");
        assert_eq!(mail["spiffe_ids"], serde_json::json!(["spiffe://example.org/acme"]), "{args:?}");
        assert_eq!(mail["subjects"], subjects("acme"));
        let none = serde_json::json!([]);
        assert_eq!((&named("ops")["spiffe_ids"], &named("ops")["subjects"]), (&none, &none));
        let table = run(args).await;
        assert!(table.contains("spiffe://example.org/acme"), "{table}");
        assert!(table.contains("acme of https://issuer.example"), "{table}");
    }
    let stored = json(&["callers", "show", "stored"]).await;
    assert_eq!(stored["spiffe_ids"].as_array().unwrap().len(), 2);
    assert_eq!(stored["subjects"], subjects("stored"));
    let table = run(&["callers", "list", "--stored"]).await;
    let lines = ["spiffe://example.org/one", "spiffe://example.org/two", "stored of https://issuer.example"];
    assert!(lines.iter().all(|line| table.lines().any(|shown| shown.ends_with(line))), "{table}");
    let configured = json(&["callers", "show", "mail"]).await;
    assert_eq!(configured["spiffe_ids"], serde_json::json!(["spiffe://example.org/acme"]));
    let shown = run(&["callers", "show", "mail"]).await;
    assert!(shown.contains("is spiffe://example.org/acme\n  is acme of https://issuer.example"), "{shown}");
}
