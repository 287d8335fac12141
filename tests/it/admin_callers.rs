//! Callers, API keys and tenants of the database, over the wire and by the command line.

use prost::Message as _;
use token_broker::app::Overrides;
use token_broker::application::types::MAX_PAGE_BYTES;
use token_broker::r#gen::v1::{self as pb, get_credential_response::Result as GetResult};
use tonic::{Code, Status};

use crate::support::broker::{
    AdminClient, BrokerBuilder, CallerRights, TestBroker, answered, reason, refused,
};
use crate::support::hostile::HostileServer;

async fn start(server: &HostileServer) -> TestBroker {
    BrokerBuilder::new()
        .hostile(server)
        .set("authentication.cache_ttl", "0s")
        .caller("ops", CallerRights::none("acme").admin(false))
        .caller("lesser", CallerRights::none("acme"))
        .set("callers.lesser.admin", vec!["manage_callers"])
        .caller("root", CallerRights::none("acme").admin(true))
        .caller("rival", CallerRights::all("globex"))
        .start_in_process(Overrides::default())
        .await
}

fn everything() -> pb::AllowRule {
    pb::AllowRule {
        actions: Some(pb::AllowedNames { any: true, names: vec![] }),
        providers: Some(pb::AllowedNames { any: true, names: vec![] }),
        users: Some(pb::AllowedTexts { any: true, ..Default::default() }),
        assert_user_id: true,
        ..Default::default()
    }
}

async fn create(admin: &mut AdminClient, caller: &str, settings: pb::CallerSettings) -> Result<(), Status> {
    let request =
        pb::CreateCallerRequest { caller: caller.to_owned(), settings: Some(settings), ..Default::default() };
    admin.create_caller(request).await.map(|_| ())
}

async fn new_key(admin: &mut AdminClient, caller: &str) -> (String, String) {
    let request = pb::CreateApiKeyRequest { caller: caller.to_owned(), ..Default::default() };
    let made = answered(admin.create_api_key(request).await);
    (made.key.unwrap().key_id, made.api_key)
}

async fn come_in(broker: &TestBroker, key: &str) -> Result<(), Status> {
    broker.client_with_key(Some(key)).await.list_providers(pb::ListProvidersRequest {}).await.map(|_| ())
}

#[tokio::test]
async fn a_caller_is_made_changed_and_deleted_without_a_restart() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut ops = broker.admin("ops").await;
    let settings = pb::CallerSettings { allow: vec![everything()], ..Default::default() };
    create(&mut ops, "agents", settings.clone()).await.unwrap();
    let (_, key) = new_key(&mut ops, "agents").await;
    come_in(&broker, &key).await.unwrap();

    let update = |revision, settings: &pb::CallerSettings| pb::UpdateCallerRequest {
        caller: "agents".to_owned(),
        revision,
        settings: Some(settings.clone()),
        ..Default::default()
    };
    let disabled = pb::CallerSettings { disabled: true, ..settings.clone() };
    assert_eq!(answered(ops.update_caller(update(1, &disabled)).await).caller.unwrap().revision, 2);
    let refusal = come_in(&broker, &key).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::PermissionDenied, "CALLER_DISABLED"));
    let stale = refused(ops.update_caller(update(1, &settings)).await);
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::FailedPrecondition, "CALLER_CHANGED"));
    let nothing = pb::CallerSettings { allow: vec![], ..settings.clone() };
    answered(ops.update_caller(update(2, &nothing)).await);
    let refusal = come_in(&broker, &key).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    answered(ops.update_caller(update(3, &settings)).await);
    come_in(&broker, &key).await.unwrap();

    let delete = pb::DeleteCallerRequest { caller: "agents".to_owned(), ..Default::default() };
    answered(ops.delete_caller(delete.clone()).await);
    assert_eq!(come_in(&broker, &key).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(reason(&refused(ops.delete_caller(delete).await)), "CALLER_NOT_FOUND");
}

#[tokio::test]
async fn an_api_key_is_shown_once_rotated_with_overlap_and_revoked() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut ops = broker.admin("ops").await;
    let settings = pb::CallerSettings { allow: vec![everything()], ..Default::default() };
    create(&mut ops, "agents", settings).await.unwrap();
    let (first_id, first) = new_key(&mut ops, "agents").await;
    assert!(first.starts_with("tb_") && first.len() == 46);
    let rotate = |key_id: &str, overlap: i64| pb::RotateApiKeyRequest {
        caller: "agents".to_owned(),
        key_id: key_id.to_owned(),
        overlap: Some(prost_types::Duration { seconds: overlap, nanos: 0 }),
        ..Default::default()
    };
    let second = answered(ops.rotate_api_key(rotate(&first_id, 3600)).await);
    let second_id = second.key.unwrap().key_id;
    for key in [&first, &second.api_key] {
        come_in(&broker, key).await.unwrap();
    }
    let third = answered(ops.rotate_api_key(rotate(&second_id, 0)).await);
    assert_eq!(come_in(&broker, &second.api_key).await.unwrap_err().code(), Code::Unauthenticated);
    come_in(&broker, &third.api_key).await.unwrap();
    let revoke = pb::RevokeApiKeyRequest {
        caller: "agents".to_owned(),
        key_id: third.key.unwrap().key_id,
        ..Default::default()
    };
    answered(ops.revoke_api_key(revoke).await);
    assert_eq!(come_in(&broker, &third.api_key).await.unwrap_err().code(), Code::Unauthenticated);
    come_in(&broker, &first).await.unwrap();

    let list = pb::ListApiKeysRequest { caller: "agents".to_owned(), ..Default::default() };
    let keys = answered(ops.list_api_keys(list).await).keys;
    let good: Vec<_> = keys.iter().filter(|key| key.good).map(|key| key.key_id.as_str()).collect();
    assert_eq!((keys.len(), good), (3, vec![first_id.as_str()]));
    // Neither the list nor the database has a key, or a part of one.
    let shown = prost::Message::encode_to_vec(&pb::ListApiKeysResponse { keys });
    let mut files = vec![shown];
    for suffix in ["", "-wal"] {
        files.push(std::fs::read(format!("{}{suffix}", broker.database().display())).unwrap_or_default());
    }
    for key in [&first, &second.api_key, &third.api_key] {
        let part = &key.as_bytes()[3..15];
        assert!(files.iter().all(|file| file.windows(part.len()).all(|window| window != part)));
    }
}

#[tokio::test]
async fn nobody_comes_by_an_admin_right_that_it_does_not_have() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let (mut lesser, mut root) = (broker.admin("lesser").await, broker.admin("root").await);
    let with = |action: pb::AdminAction, all_tenants| pb::CallerSettings {
        admin_actions: vec![action.into()],
        all_tenants,
        ..Default::default()
    };
    for more in [with(pb::AdminAction::BreakGlass, false), with(pb::AdminAction::ManageCallers, true)] {
        assert_eq!(create(&mut lesser, "more", more).await.unwrap_err().code(), Code::PermissionDenied);
    }
    create(&mut lesser, "same", with(pb::AdminAction::ManageCallers, false)).await.unwrap();
    // Who can be the greater one by a key, an identity or a change of its rules, would have its rights.
    create(&mut root, "greater", with(pb::AdminAction::BreakGlass, false)).await.unwrap();
    let (key_id, _) = new_key(&mut root, "greater").await;
    let caller = || "greater".to_owned();
    let codes = [
        refused(
            lesser.create_api_key(pb::CreateApiKeyRequest { caller: caller(), ..Default::default() }).await,
        ),
        refused(
            lesser
                .rotate_api_key(pb::RotateApiKeyRequest {
                    caller: caller(),
                    key_id: key_id.clone(),
                    ..Default::default()
                })
                .await,
        ),
        refused(
            lesser
                .revoke_api_key(pb::RevokeApiKeyRequest { caller: caller(), key_id, ..Default::default() })
                .await,
        ),
        refused(
            lesser
                .update_caller(pb::UpdateCallerRequest {
                    caller: caller(),
                    revision: 1,
                    settings: Some(pb::CallerSettings::default()),
                    ..Default::default()
                })
                .await,
        ),
        refused(
            lesser.delete_caller(pb::DeleteCallerRequest { caller: caller(), ..Default::default() }).await,
        ),
    ];
    assert!(codes.iter().all(|status| status.code() == Code::PermissionDenied), "{codes:?}");
}

#[tokio::test]
async fn an_id_and_an_identity_are_one_callers() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut ops = broker.admin("ops").await;
    let is = |id: &str| pb::CallerSettings { spiffe_ids: vec![id.to_owned()], ..Default::default() };
    let taken = create(&mut ops, "agent", pb::CallerSettings::default()).await.unwrap_err();
    assert_eq!(reason(&taken), "CALLER_EXISTS", "in the configuration");
    create(&mut ops, "first", is("spiffe://example.org/a")).await.unwrap();
    let taken = create(&mut ops, "first", pb::CallerSettings::default()).await.unwrap_err();
    assert_eq!(reason(&taken), "CALLER_EXISTS", "in the database");
    let taken = create(&mut ops, "second", is("spiffe://example.org/a")).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::AlreadyExists, "IDENTITY_TAKEN"));
    let update = pb::UpdateCallerRequest {
        caller: "agent".to_owned(),
        revision: 1,
        settings: Some(pb::CallerSettings::default()),
        ..Default::default()
    };
    assert_eq!(reason(&refused(ops.update_caller(update).await)), "CALLER_CONFIGURED");
    for bad in [
        pb::CallerSettings { allow: vec![pb::AllowRule::default()], ..Default::default() },
        pb::CallerSettings {
            allow: vec![pb::AllowRule {
                users: Some(pb::AllowedTexts { own: true, ..Default::default() }),
                ..everything()
            }],
            ..Default::default()
        },
        pb::CallerSettings { admin_actions: vec![77], ..Default::default() },
    ] {
        assert_eq!(create(&mut ops, "bad", bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let page = pb::ListCallersRequest { page_size: 2, ..Default::default() };
    let page = answered(ops.list_callers(page).await);
    let ids =
        |page: &pb::ListCallersResponse| page.callers.iter().map(|c| c.caller.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&page), ["agent", "first"]);
    let rest = pb::ListCallersRequest { page_token: page.next_page_token, ..Default::default() };
    let rest = answered(ops.list_callers(rest).await);
    assert_eq!(
        (ids(&rest), rest.next_page_token.as_str()),
        (vec!["lesser".into(), "ops".into(), "root".into()], "")
    );

    // A configuration that names one of the database does not start.
    broker.shutdown().await;
    let config = std::fs::read_to_string(broker.site().config_path()).unwrap();
    let hash = "0a".repeat(32);
    let twice = format!("{config}\n[callers.first]\ntenant = \"acme\"\nkey_sha256 = [\"{hash}\"]\n");
    std::fs::write(broker.site().config_path(), twice).unwrap();
    let output = broker.site().run(&["serve"]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && error.contains("callers.first"), "{error}");
}

/// Rules may be long. Whoever makes many such callers must not make the list one that no client reads.
#[tokio::test]
async fn a_page_of_long_rules_ends_when_it_is_large() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut ops = broker.admin("ops").await;
    let exact = (0..900).map(|n| format!("{n:x>200}")).collect();
    let users = Some(pb::AllowedTexts { exact, ..Default::default() });
    let rule = pb::AllowRule { users, ..everything() };
    let long: Vec<_> = (0..8).map(|n| format!("long-{n}")).collect();
    for caller in &long {
        let settings = pb::CallerSettings { allow: vec![rule.clone()], ..Default::default() };
        create(&mut ops, caller, settings).await.unwrap();
    }
    let (mut seen, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = pb::ListCallersRequest { page_token, ..Default::default() };
        let page = answered(ops.list_callers(request).await);
        assert!(page.encoded_len() <= MAX_PAGE_BYTES + 4_096, "{} bytes", page.encoded_len());
        seen.extend(page.callers.into_iter().map(|caller| caller.caller));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    seen.retain(|caller| caller.starts_with("long-"));
    assert_eq!((seen, pages), (long, 2));
}

#[tokio::test]
async fn a_tenant_is_disabled_enabled_and_deleted() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut root = broker.admin("root").await;
    let mut rival = broker.client("rival").await;
    answered(rival.list_providers(pb::ListProvidersRequest {}).await);
    let update = |disabled| pb::UpdateTenantRequest {
        tenant: "globex".to_owned(),
        disabled: Some(disabled),
        ..Default::default()
    };
    assert!(answered(root.update_tenant(update(true)).await).tenant.unwrap().disable_time.is_some());
    let refusal = refused(rival.list_providers(pb::ListProvidersRequest {}).await);
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::PermissionDenied, "TENANT_DISABLED"));
    answered(broker.client("agent").await.list_providers(pb::ListProvidersRequest {}).await);
    answered(root.update_tenant(update(false)).await);
    answered(rival.list_providers(pb::ListProvidersRequest {}).await);
    let listed = answered(root.list_tenants(pb::ListTenantsRequest::default()).await).tenants;
    assert_eq!(listed.iter().map(|t| t.tenant.as_str()).collect::<Vec<_>>(), ["acme", "globex"]);

    // A caller of the tenant's own, to be gone with it.
    let settings = pb::CallerSettings { allow: vec![everything()], ..Default::default() };
    let request = pb::CreateCallerRequest {
        tenant: "globex".to_owned(),
        caller: "stored".to_owned(),
        settings: Some(settings),
    };
    answered(root.create_caller(request).await);
    let request = pb::CreateApiKeyRequest {
        tenant: "globex".to_owned(),
        caller: "stored".to_owned(),
        ..Default::default()
    };
    let key = answered(root.create_api_key(request).await).api_key;
    come_in(&broker, &key).await.unwrap();
    let delete = pb::DeleteTenantRequest { tenant: "globex".to_owned() };
    answered(root.delete_tenant(delete.clone()).await);
    assert_eq!(come_in(&broker, &key).await.unwrap_err().code(), Code::Unauthenticated);
    let refusal = refused(rival.list_providers(pb::ListProvidersRequest {}).await);
    assert_eq!(reason(&refusal), "TENANT_DISABLED");
    assert_eq!(reason(&refused(root.delete_tenant(delete).await)), "TENANT_NOT_FOUND");
    let again = pb::CreateTenantRequest { tenant: "globex".to_owned(), ..Default::default() };
    assert_eq!(reason(&refused(root.create_tenant(again).await)), "TENANT_EXISTS");
    let new = pb::CreateTenantRequest { tenant: "new".to_owned(), display_name: "New".to_owned() };
    answered(root.create_tenant(new).await);
}

#[tokio::test]
async fn break_glass_revokes_all_of_a_user_and_all_of_a_tenant() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let mut agent = broker.client("agent").await;
    let key = |user: &str, account: &str| {
        Some(pb::CredentialKey {
            provider: "hostile".to_owned(),
            user_id: user.to_owned(),
            service: "files".to_owned(),
            account: account.to_owned(),
        })
    };
    let import = async |client: &mut crate::support::broker::Client, user: &str, account: &str| {
        let request = pb::ImportCredentialRequest {
            key: key(user, account),
            access_token: "at".to_owned(),
            ..Default::default()
        };
        answered(client.import_credential(request).await);
    };
    for account in ["one", "two"] {
        import(&mut agent, "alice", account).await;
    }
    import(&mut agent, "bob", "one").await;
    let mut rival = broker.client("rival").await;
    import(&mut rival, "alice", "one").await;
    // A lease holds nothing up.
    let lease = pb::AcquireLeaseRequest { key: key("alice", "one"), ..Default::default() };
    answered(agent.acquire_lease(lease).await);
    let mut ops = broker.admin("ops").await;
    let of_alice = pb::RevokeUserCredentialsRequest { user_id: "alice".to_owned(), ..Default::default() };
    let done = answered(ops.revoke_user_credentials(of_alice.clone()).await);
    assert_eq!((done.revoked, done.more), (2, false));
    assert_eq!(answered(ops.revoke_user_credentials(of_alice).await).revoked, 0);
    let get = async |client: &mut crate::support::broker::Client, user: &str| {
        let request = pb::GetCredentialRequest { key: key(user, "one"), ..Default::default() };
        matches!(answered(client.get_credential(request).await).result, Some(GetResult::Credential(_)))
    };
    assert!(!get(&mut agent, "alice").await);
    assert!(get(&mut agent, "bob").await && get(&mut rival, "alice").await);
    for n in 0..204 {
        import(&mut agent, &format!("user-{n}"), "one").await;
    }
    let all = pb::RevokeTenantCredentialsRequest::default();
    let done = answered(ops.revoke_tenant_credentials(all.clone()).await);
    assert_eq!((done.revoked, done.more), (200, true));
    let done = answered(ops.revoke_tenant_credentials(all).await);
    assert_eq!((done.revoked, done.more), (5, false));
    assert!(get(&mut rival, "alice").await, "another tenant's");
}

#[tokio::test]
async fn a_users_data_is_deleted_and_nobody_elses() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let key = |user: &str| {
        Some(pb::CredentialKey {
            provider: "hostile".to_owned(),
            user_id: user.to_owned(),
            service: "files".to_owned(),
            account: "one".to_owned(),
        })
    };
    for (caller, user) in [("agent", "alice"), ("agent", "bob"), ("rival", "alice")] {
        let request = pb::ImportCredentialRequest {
            key: key(user),
            access_token: "at".to_owned(),
            ..Default::default()
        };
        answered(broker.client(caller).await.import_credential(request).await);
    }
    let connected = async |caller: &str, user: &str| {
        let request = pb::GetCredentialRequest { key: key(user), ..Default::default() };
        let answer = answered(broker.client(caller).await.get_credential(request).await);
        matches!(answer.result, Some(GetResult::Credential(_)))
    };
    let request = |user: &str, tenant: &str| pb::DeleteUserDataRequest {
        tenant: tenant.to_owned(),
        user_id: user.to_owned(),
        abandon_revocations: true,
    };
    let mut lesser = broker.admin("lesser").await;
    assert_eq!(refused(lesser.delete_user_data(request("alice", "")).await).code(), Code::PermissionDenied);
    let mut ops = broker.admin("ops").await;
    let foreign = refused(ops.delete_user_data(request("alice", "globex")).await);
    assert_eq!(foreign.code(), Code::PermissionDenied);
    for user in ["", " alice", "a\0"] {
        assert_eq!(refused(ops.delete_user_data(request(user, "")).await).code(), Code::InvalidArgument);
    }
    assert!(connected("agent", "alice").await, "none of that did anything");
    let done = answered(ops.delete_user_data(request("alice", "")).await);
    assert_eq!((done.revoked, done.deleted, done.more, done.waiting_revocations), (1, true, false, 0));
    assert!(!connected("agent", "alice").await);
    assert!(connected("agent", "bob").await && connected("rival", "alice").await);
    let mut root = broker.admin("root").await;
    assert!(answered(root.delete_user_data(request("alice", "globex")).await).deleted);
    assert!(!connected("rival", "alice").await);
}

#[tokio::test]
async fn the_command_line_does_all_of_it() {
    let server = HostileServer::start().await;
    let broker = BrokerBuilder::new()
        .hostile(&server)
        .set("authentication.cache_ttl", "0s")
        .caller("agent", CallerRights::none("acme").admin(true))
        .start_in_process(Overrides::default())
        .await;
    let run = async |args: &[&str], code: i32| {
        let output = broker.site().run(&[args, &["--output", "json"]].concat()).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
    };
    let made = run(
        &[
            "callers",
            "create",
            "ci",
            "--any-action",
            "--any-provider",
            "--user-prefix",
            "ci/",
            "--assert-user-id",
            "--description",
            "the builds",
            "--spiffe-id",
            "spiffe://example.org/ci",
        ],
        0,
    )
    .await;
    let key = made["api_key"].as_str().unwrap().to_owned();
    come_in(&broker, &key).await.unwrap();
    assert_eq!(made["allow"][0]["users"], serde_json::json!([{ "prefix": "ci/" }]));
    let can = |user| ["callers", "can", "ci", "revoke", "--provider", "hostile", "--user", user, "--stored"];
    assert_eq!(run(&can("ci/1"), 0).await["decided_by"], "allow[0]");
    let no = run(&can("alice"), 8).await;
    assert_eq!(
        (no["decided_by"].as_str(), no["rules"][0].as_str()),
        (Some("no rule"), Some("does not name the user"))
    );
    let listed = run(&["callers", "list", "--stored"], 0).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        (listed[0]["from"].as_str(), listed[1]["from"].as_str()),
        (Some("configuration"), Some("database"))
    );

    let old = made["key"]["key_id"].as_str().unwrap();
    let new = run(&["callers", "keys", "rotate", "ci", old, "--overlap", "0s", "--label", "second"], 0).await;
    assert_eq!(come_in(&broker, &key).await.unwrap_err().code(), Code::Unauthenticated);
    come_in(&broker, new["api_key"].as_str().unwrap()).await.unwrap();
    let keys = run(&["callers", "keys", "list", "ci"], 0).await;
    assert_eq!((keys[0]["state"].as_str(), keys[1]["state"].as_str()), (Some("good"), Some("expired")));
    let third = run(&["callers", "keys", "new", "ci", "--lifetime", "1h"], 0).await;
    assert!(third["expire_time"].is_string());
    run(&["callers", "keys", "revoke", "ci", third["key_id"].as_str().unwrap()], 0).await;

    assert_eq!(run(&["callers", "update", "ci", "--disable"], 0).await["disabled"], true);
    run(&["callers", "update", "ci"], 2).await;
    let rules = broker.site().path().join("rules.toml");
    std::fs::write(&rules, "[[allow]]\nactions = [\"get_flow\"]\nproviders = \"any\"\nusers = [\"own\"]\n")
        .unwrap();
    let replaced =
        run(&["callers", "update", "ci", "--replace", "--enable", "--rules", rules.to_str().unwrap()], 0)
            .await;
    assert_eq!((replaced["disabled"].as_bool(), replaced["revision"].as_i64()), (Some(false), Some(3)));
    assert_eq!(run(&["callers", "show", "ci"], 0).await["allow"][0]["users"], serde_json::json!(["own"]));
    std::fs::write(&rules, "[[allow]]\nactions = [\"fly\"]\n").unwrap();
    run(&["callers", "update", "ci", "--replace", "--rules", rules.to_str().unwrap()], 2).await;
    run(&["callers", "delete", "ci"], 0).await;
    run(&["callers", "show", "ci"], 9).await;

    assert_eq!(
        run(&["tenants", "create", "initech", "--name", "Initech"], 0).await["display_name"],
        "Initech"
    );
    assert!(run(&["tenants", "update", "initech", "--disable"], 0).await["disable_time"].is_string());
    // Where to ask may stand behind the subcommand, as everywhere.
    assert_eq!(run(&["tenants", "list", "--timeout", "20s"], 0).await.as_array().unwrap().len(), 2);
    run(&["tenants", "delete", "initech"], 2).await;
    run(&["tenants", "delete", "initech", "--yes"], 0).await;
    run(&["tenants", "show", "initech"], 9).await;
    assert_eq!(run(&["tenants", "revoke-user", "alice"], 0).await["revoked"], 0);
    assert_eq!(run(&["tenants", "revoke-all", "--yes"], 0).await["revoked"], 0);
    run(&["tenants", "delete-user", "alice"], 2).await;
    let deleted = run(&["tenants", "delete-user", "alice", "--yes", "--abandon-revocations"], 0).await;
    let expected =
        serde_json::json!({ "deleted": true, "revoked": 0, "cancelled_flows": 0, "waiting_revocations": 0 });
    assert_eq!(deleted, expected);
}
