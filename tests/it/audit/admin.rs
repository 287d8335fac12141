//! The trail for operators: by RPC and by command line.

use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;
use token_broker::r#gen::v1::{
    AuditHead, AuditOutcome, CredentialKey, DeleteUserDataRequest, ExportAuditRequest, GetCredentialRequest,
    ListProvidersRequest, QueryAuditRequest, VerifyAuditRequest,
};
use tonic::Code;

use crate::support::broker::{AdminClient, BrokerBuilder, CallerRights, TestBroker, answered, refused};
use crate::support::hostile::HostileServer;

fn builder(provider: &HostileServer) -> BrokerBuilder {
    BrokerBuilder::new()
        .hostile(provider)
        .caller("rival", CallerRights::all("bolt"))
        .caller("ops", CallerRights::none("acme"))
        .set("callers.ops.admin", vec!["read_audit"])
        .caller("root", CallerRights::none("other"))
        .set("callers.root.admin", "any")
        .set("callers.root.all_tenants", true)
}

fn ask(user: &str) -> GetCredentialRequest {
    let key = CredentialKey {
        provider: "hostile".to_owned(),
        user_id: user.to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    };
    GetCredentialRequest { key: Some(key), ..Default::default() }
}

async fn some_calls(broker: &TestBroker) {
    let mut agent = broker.client("agent").await;
    for user in ["alice", "bob", "alice"] {
        answered(agent.get_credential(ask(user)).await);
    }
    answered(agent.list_providers(ListProvidersRequest {}).await);
    answered(broker.client("rival").await.get_credential(ask("alice")).await);
}

/// Every row of this operator's chain is written that was told before: an answer that is given waits for its own row, while a
/// refusal, or what takes access away, does not.
async fn written(operator: &mut AdminClient) {
    answered(operator.verify_audit(VerifyAuditRequest::default()).await);
}

fn of_alice() -> QueryAuditRequest {
    QueryAuditRequest { user_id: "alice".to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_stands_in_the_trail_of_the_user_and_the_trail_stays() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).set("callers.ops.admin", vec!["read_audit", "break_glass"]);
    let broker = broker.start_in_process(Overrides::default()).await;
    some_calls(&broker).await;
    let mut ops = broker.admin("ops").await;
    let request = DeleteUserDataRequest { user_id: "alice".to_owned(), ..Default::default() };
    assert!(answered(ops.delete_user_data(request).await).deleted);
    written(&mut ops).await;
    let mut rows = answered(ops.query_audit(of_alice()).await).rows;
    rows.sort_by_key(|row| row.sequence);
    let actions: Vec<_> = rows.iter().map(|row| (row.caller.as_str(), row.action.as_str())).collect();
    assert_eq!(actions, [("agent", "GetCredential"), ("agent", "GetCredential"), ("ops", "DeleteUserData")]);
    assert_eq!(answered(ops.verify_audit(VerifyAuditRequest::default()).await).flawed_sequence, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_is_asked_verified_and_copied() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).start_in_process(Overrides::default()).await;
    some_calls(&broker).await;
    let mut ops = broker.admin("ops").await;
    let found = answered(ops.query_audit(of_alice()).await).rows;
    assert_eq!(found.len(), 2);
    for row in &found {
        assert_eq!(
            (row.caller.as_str(), row.action.as_str(), row.outcome),
            ("agent", "GetCredential", i32::from(AuditOutcome::Allowed))
        );
        assert_eq!(
            (row.services.as_slice(), row.reason.as_str()),
            (&["files".to_owned()][..], "NOT_CONNECTED")
        );
    }
    // Page by page it is the same.
    let all =
        answered(ops.query_audit(QueryAuditRequest { page_size: 1_000, ..Default::default() }).await).rows;
    let mut paged = Vec::new();
    let mut request = QueryAuditRequest { page_size: 2, ..Default::default() };
    loop {
        let page = answered(ops.query_audit(request.clone()).await);
        paged.extend(page.rows);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    // Each page was itself a row.
    let numbers =
        |rows: &[token_broker::r#gen::v1::AuditRow]| rows.iter().map(|row| row.sequence).collect::<Vec<_>>();
    assert!(numbers(&paged).ends_with(&numbers(&all)), "{:?} {:?}", numbers(&paged), numbers(&all));

    let verdict = answered(ops.verify_audit(VerifyAuditRequest::default()).await);
    assert_eq!((verdict.flawed_sequence, verdict.flaw.as_str()), (0, ""));
    let head = verdict.head.unwrap();
    assert!(head.sequence >= 6);
    let noted = |noted_head| VerifyAuditRequest { noted_head: Some(noted_head), ..Default::default() };
    assert_eq!(answered(ops.verify_audit(noted(head.clone())).await).flawed_sequence, 0);
    let forged = AuditHead { hash: "0".repeat(64), ..head };
    let verdict = answered(ops.verify_audit(noted(forged)).await);
    assert_eq!(verdict.flawed_sequence, head.sequence);

    let mut chunks =
        answered(ops.export_audit(ExportAuditRequest { after_sequence: 2, ..Default::default() }).await);
    let mut lines = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        lines.extend(chunk.lines);
    }
    let lines = String::from_utf8(lines).unwrap();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["sequence"].as_u64(), first["user"].as_str()), (Some(3), Some("alice")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_trail_may_be_read_is_a_right() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).start_in_process(Overrides::default()).await;
    some_calls(&broker).await;
    let of = |tenant: &str| QueryAuditRequest { tenant: tenant.to_owned(), ..Default::default() };
    let mut ops = broker.admin("ops").await;
    let mut agent = broker.admin("agent").await;
    assert_eq!(refused(agent.query_audit(of("")).await).code(), Code::PermissionDenied);
    assert_eq!(
        refused(agent.verify_audit(VerifyAuditRequest::default()).await).code(),
        Code::PermissionDenied
    );
    assert_eq!(
        refused(agent.export_audit(ExportAuditRequest::default()).await).code(),
        Code::PermissionDenied
    );
    // Another tenant is forbidden, whether or not it is there.
    for tenant in ["bolt", "nowhere"] {
        assert_eq!(refused(ops.query_audit(of(tenant)).await).code(), Code::PermissionDenied);
    }
    let mut root = broker.admin("root").await;
    let theirs = answered(root.query_audit(of("bolt")).await).rows;
    assert_eq!(theirs.iter().map(|row| row.caller.as_str()).collect::<Vec<_>>(), ["rival"]);
    // Denied readers are on record too.
    written(&mut ops).await;
    let denied = QueryAuditRequest { outcome: AuditOutcome::Denied.into(), ..Default::default() };
    let denied = answered(ops.query_audit(denied).await).rows;
    let who: Vec<_> = denied.iter().rev().map(|row| (row.caller.as_str(), row.action.as_str())).collect();
    assert_eq!(
        who,
        [
            ("agent", "QueryAudit"),
            ("agent", "VerifyAudit"),
            ("agent", "ExportAudit"),
            ("ops", "QueryAudit"),
            ("ops", "QueryAudit"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_questions_are_refused() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).start_in_process(Overrides::default()).await;
    let mut ops = broker.admin("ops").await;
    let ok = QueryAuditRequest::default();
    let bad = [
        QueryAuditRequest { tenant: "A B".to_owned(), ..ok.clone() },
        QueryAuditRequest { user_id: " ".to_owned(), ..ok.clone() },
        QueryAuditRequest { provider: "A".to_owned(), ..ok.clone() },
        QueryAuditRequest { service: "/".to_owned(), ..ok.clone() },
        QueryAuditRequest { caller: "\0".to_owned(), ..ok.clone() },
        QueryAuditRequest { action: "x".repeat(65), ..ok.clone() },
        QueryAuditRequest { outcome: 9, ..ok.clone() },
        QueryAuditRequest { page_size: 1_001, ..ok.clone() },
        QueryAuditRequest { page_size: -1, ..ok.clone() },
        QueryAuditRequest { page_token: "07".to_owned(), ..ok.clone() },
        QueryAuditRequest { page_token: "'; DROP".to_owned(), ..ok.clone() },
        QueryAuditRequest { start_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }), ..ok },
    ];
    for request in bad {
        assert_eq!(refused(ops.query_audit(request).await).code(), Code::InvalidArgument);
    }
    for head in
        [AuditHead { sequence: 0, hash: "0".repeat(64) }, AuditHead { sequence: 1, hash: "zz".to_owned() }]
    {
        let request = VerifyAuditRequest { noted_head: Some(head), ..Default::default() };
        assert_eq!(refused(ops.verify_audit(request).await).code(), Code::InvalidArgument);
    }
    let request = ExportAuditRequest { after_sequence: -1, ..Default::default() };
    assert_eq!(refused(ops.export_audit(request).await).code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_asks_verifies_and_copies() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).spawn_process().await;
    some_calls(&broker).await;
    let folder = broker.site().path().to_owned();
    std::fs::write(folder.join("key"), broker.api_key("ops")).unwrap();
    let run = async |args: &[&str]| {
        let output = broker.site().run(&[args, &["--output", "json"]].concat()).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let as_ops = ["--api-key-file", "key"];
    let (code, out, err) = run(&[&["audit", "query", "-u", "alice"], &as_ops[..]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["action"]), (2, &"GetCredential".into()));

    let (code, out, err) = run(&[&["audit", "verify"], &as_ops[..]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    let noted = format!("{}:{}", verdict["head"]["sequence"], verdict["head"]["hash"].as_str().unwrap());

    let (code, _, err) = run(&[&["audit", "export", "--to", "copy.jsonl"], &as_ops[..]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = run(&["audit", "verify", "--file", "copy.jsonl", "--noted", &noted]).await;
    assert!(code == 0 && out.contains("\"in_order\": true"), "{out}{err}");
    // One changed letter, a missing line, another log's head.
    let copy = std::fs::read_to_string(folder.join("copy.jsonl")).unwrap();
    std::fs::write(folder.join("changed.jsonl"), copy.replacen("\"alice\"", "\"alicf\"", 1)).unwrap();
    let (code, out, _) = run(&["audit", "verify", "--file", "changed.jsonl"]).await;
    assert!(code == 1 && out.contains("\"in_order\": false"), "{out}");
    let mut cut: Vec<&str> = copy.lines().collect();
    cut.remove(1);
    let cut = cut.join("\n");
    std::fs::write(folder.join("cut.jsonl"), cut).unwrap();
    assert_eq!(run(&["audit", "verify", "--file", "cut.jsonl"]).await.0, 1);
    let other = format!("3:{}", "0".repeat(64));
    assert_eq!(run(&["audit", "verify", "--file", "copy.jsonl", "--noted", &other]).await.0, 1);
    assert_eq!(run(&["audit", "verify", "--file", "nowhere.jsonl"]).await.0, 2);
    // A caller without the right.
    std::fs::write(folder.join("key"), broker.api_key("agent")).unwrap();
    assert_eq!(run(&[&["audit", "verify"], &as_ops[..]].concat()).await.0, 8);
}

/// Every call about an app of `acme`'s own; one of them is refused.
async fn own_app_comes_and_goes(root: &mut AdminClient) {
    let (tenant, provider) = (|| "acme".to_owned(), || "hostile".to_owned());
    let secret = pb::ClientAuthentication { client_secret: "secret".to_owned(), ..Default::default() };
    let request = pb::CreateProviderConfigurationRequest {
        tenant: tenant(),
        provider: provider(),
        definition: "test-hostile".to_owned(),
        client_id: "app".to_owned(),
        authentication: Some(secret),
        ..Default::default()
    };
    answered(root.create_provider_configuration(request).await);
    let request = pb::GetProviderConfigurationRequest { tenant: tenant(), provider: provider() };
    answered(root.get_provider_configuration(request).await);
    let request = pb::ListProviderConfigurationsRequest { tenant: tenant(), ..Default::default() };
    answered(root.list_provider_configurations(request).await);
    let request = pb::UpdateProviderConfigurationRequest {
        tenant: tenant(),
        provider: provider(),
        revision: 9,
        disabled: Some(true),
        ..Default::default()
    };
    assert_eq!(refused(root.update_provider_configuration(request).await).code(), Code::FailedPrecondition);
    let request = pb::DeleteProviderConfigurationRequest {
        tenant: tenant(),
        provider: provider(),
        ..Default::default()
    };
    answered(root.delete_provider_configuration(request).await);
}

/// Of each kind of thing that operators act on, whoever asks for what was done to it finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_act_on_is_on_record() {
    let provider = HostileServer::start().await;
    let broker = builder(&provider).start_in_process(Overrides::default()).await;
    let mut root = broker.admin("root").await;
    let (acme, agents) = (|| "acme".to_owned(), || "agents".to_owned());
    answered(
        root.create_caller(pb::CreateCallerRequest {
            tenant: acme(),
            caller: agents(),
            settings: Some(pb::CallerSettings::default()),
        })
        .await,
    );
    answered(root.get_caller(pb::GetCallerRequest { tenant: acme(), caller: agents() }).await);
    let request = pb::CreateApiKeyRequest { tenant: acme(), caller: agents(), ..Default::default() };
    let first = answered(root.create_api_key(request).await).key.unwrap().key_id;
    let request = pb::RotateApiKeyRequest {
        tenant: acme(),
        caller: agents(),
        key_id: first.clone(),
        ..Default::default()
    };
    let second = answered(root.rotate_api_key(request).await).key.unwrap().key_id;
    let request = pb::RevokeApiKeyRequest { tenant: acme(), caller: agents(), key_id: second.clone() };
    answered(root.revoke_api_key(request).await);
    let update = pb::UpdateCallerRequest {
        tenant: acme(),
        caller: agents(),
        revision: 9,
        settings: Some(pb::CallerSettings::default()),
    };
    assert_eq!(refused(root.update_caller(update).await).code(), Code::FailedPrecondition);
    answered(root.delete_caller(pb::DeleteCallerRequest { tenant: acme(), caller: agents() }).await);
    let request = pb::CreateTenantRequest { tenant: "globex".to_owned(), ..Default::default() };
    answered(root.create_tenant(request).await);
    answered(root.delete_tenant(pb::DeleteTenantRequest { tenant: "globex".to_owned() }).await);
    own_app_comes_and_goes(&mut root).await;
    let request = pb::RevokeUserCredentialsRequest { tenant: acme(), user_id: "alice".to_owned() };
    answered(root.revoke_user_credentials(request).await);
    answered(root.revoke_tenant_credentials(pb::RevokeTenantCredentialsRequest::default()).await);
    // Also what was refused, and of the operator's own tenant.
    let mut ops = broker.admin("ops").await;
    let request = pb::DeleteCallerRequest { caller: "agent".to_owned(), ..Default::default() };
    assert_eq!(refused(ops.delete_caller(request).await).code(), Code::PermissionDenied);
    let denied = pb::RevokeUserCredentialsRequest { user_id: "bob".to_owned(), ..Default::default() };
    assert_eq!(refused(ops.revoke_user_credentials(denied).await).code(), Code::PermissionDenied);

    written(&mut root).await;
    written(&mut ops).await;
    let on_record = answered(root.query_audit(QueryAuditRequest::default()).await).rows;
    let on_record: Vec<_> = on_record
        .iter()
        .filter(|row| row.action != "VerifyAudit")
        .rev()
        .map(|row| (row.action.as_str(), row.target.clone(), row.user_id.as_str()))
        .collect();
    let caller = || "tenant:acme caller:agents".to_owned();
    assert_eq!(
        on_record,
        [
            ("CreateCaller", caller(), ""),
            ("GetCaller", caller(), ""),
            ("CreateApiKey", format!("{} key:{first}", caller()), ""),
            ("RotateApiKey", format!("{} key:{first} new_key:{second}", caller()), ""),
            ("RevokeApiKey", format!("{} key:{second}", caller()), ""),
            ("UpdateCaller", caller(), ""),
            ("DeleteCaller", caller(), ""),
            ("CreateTenant", "tenant:globex".to_owned(), ""),
            ("DeleteTenant", "tenant:globex".to_owned(), ""),
            ("CreateProviderConfiguration", "tenant:acme".to_owned(), ""),
            ("GetProviderConfiguration", "tenant:acme".to_owned(), ""),
            ("ListProviderConfigurations", "tenant:acme".to_owned(), ""),
            ("UpdateProviderConfiguration", "tenant:acme".to_owned(), ""),
            ("DeleteProviderConfiguration", "tenant:acme".to_owned(), ""),
            ("RevokeUserCredentials", "tenant:acme".to_owned(), "alice"),
            ("RevokeTenantCredentials", "tenant:other".to_owned(), ""),
        ]
    );
    let of = |user: &str| QueryAuditRequest { user_id: user.to_owned(), ..Default::default() };
    let alices = answered(root.query_audit(of("alice")).await).rows;
    assert_eq!(alices[0].action, "RevokeUserCredentials");
    let bobs = answered(ops.query_audit(of("bob")).await).rows;
    assert_eq!(
        (bobs[0].action.as_str(), bobs[0].target.as_str(), bobs[0].outcome),
        ("RevokeUserCredentials", "", i32::from(AuditOutcome::Denied))
    );
    let deleted = QueryAuditRequest { action: "DeleteCaller".to_owned(), ..Default::default() };
    assert_eq!(answered(ops.query_audit(deleted).await).rows[0].target, "caller:agent");
    let verdict = answered(root.verify_audit(VerifyAuditRequest::default()).await);
    assert_eq!((verdict.flawed_sequence, verdict.flaw.as_str()), (0, ""));
}
