//! Each decision has one row: calls as they are answered, consents as they end, and what the broker does by itself.

use http::uri::PathAndQuery;
use prost::Message as _;
use token_broker::application::audit::AuditSettings;
use token_broker::domain::audit::{AuditQuery, Outcome, Row};
use token_broker::domain::key::{ProviderId, ServiceId, TenantId, UserId};
use token_broker::r#gen::v1::{
    BeginOAuthRequest, CancelFlowRequest, GetCredentialRequest, RefreshRequest, RevokeRequest,
};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use std::sync::Arc;

use super::scripted::{Script, ScriptedSink};
use super::{LONG, SHORT};
use crate::support::doors::{AGENT, BOBS, DISABLED, Doors, OF_DISABLED, POWERLESS, RIVAL, bearer, files};
use crate::support::hostile::Reply;

async fn open() -> Doors {
    Doors::open_audited(LONG, vec![]).await
}

/// All rows of a tenant, the oldest first.
async fn rows_of(doors: &Doors, tenant: &str) -> Vec<Row> {
    let query = AuditQuery::all(TenantId::new(tenant).unwrap(), 1_000);
    let mut rows = doors.audit.as_ref().unwrap().archive.find(&query).await.unwrap().rows;
    rows.reverse();
    rows
}

/// The same, when everything that was noted is written.
async fn rows(doors: &Doors) -> Vec<Row> {
    doors.settle().await;
    doors.audit.as_ref().unwrap().log.close().await;
    rows_of(doors, "tenant-a").await
}

fn told(rows: &[Row]) -> Vec<(&str, Outcome, &str)> {
    rows.iter()
        .map(|row| (&*row.entry.action, row.entry.outcome, row.entry.reason.as_deref().unwrap_or_default()))
        .collect()
}

/// The names of all RPCs that have rows.
fn rpcs() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(token_broker::r#gen::FILE_DESCRIPTOR_SET).unwrap();
    let services = files.file.iter().flat_map(|file| {
        let package = file.package().to_owned();
        file.service.iter().map(move |service| (format!("{package}.{}", service.name()), service.clone()))
    });
    let methods = services.flat_map(|(name, service)| {
        let one = |method: &prost_types::MethodDescriptorProto| format!("/{name}/{}", method.name());
        service.method.iter().map(one).collect::<Vec<_>>()
    });
    methods.filter(|path| path.starts_with("/tokenbroker.v1.")).collect()
}

/// Generated from the proto: an RPC that is added without a row fails here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rpc_yields_one_row() {
    let doors = open().await;
    let mut client = tonic::client::Grpc::new(doors.channel().await);
    let mut expected = Vec::new();
    for path in rpcs() {
        for caller in [AGENT, POWERLESS] {
            client.ready().await.unwrap();
            let id = format!("{}-{expected}", path.rsplit('/').next().unwrap(), expected = expected.len());
            let mut request = Request::new(());
            request.metadata_mut().insert("authorization", bearer(caller));
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let to = PathAndQuery::try_from(path.as_str()).unwrap();
            // An answer of one message is a stream of one; the head is enough.
            let answer = client.server_streaming(request, to, codec).await;
            let outcome = match answer.err().map(|status| status.code()) {
                None | Some(Code::Ok) => Outcome::Allowed,
                Some(Code::PermissionDenied) => Outcome::Denied,
                Some(Code::InvalidArgument) => Outcome::Failed,
                Some(other) => panic!("{path}: {other:?}"),
            };
            let who = if caller == AGENT { "agent" } else { "powerless" };
            expected.push((id, path.rsplit('/').next().unwrap().to_owned(), who.to_owned(), outcome));
        }
    }
    assert!(expected.len() >= 34);
    let found: Vec<_> = rows(&doors)
        .await
        .into_iter()
        .map(|row| {
            let caller = row.entry.actor.caller.unwrap().to_string();
            assert_eq!(row.entry.actor.identified_by.as_deref(), Some("api_key"));
            (row.entry.request_id.unwrap(), row.entry.action.into_owned(), caller, row.entry.outcome)
        })
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_given_away_is_on_record() {
    let doors = open().await;
    doors.connect(AGENT, "alice", "canary-at-1", "canary-rt-1").await;
    let mut client = doors.client(AGENT).await;
    let ask = || {
        let mut request =
            Request::new(GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() });
        request.metadata_mut().insert("tokenbroker-purpose", MetadataValue::from_static("sort the files"));
        request
    };
    client.get_credential(ask()).await.unwrap();
    // The row is there as soon as the answer is.
    let row = rows_of(&doors, "tenant-a").await.pop().unwrap();
    assert_eq!((&*row.entry.action, row.entry.outcome), ("GetCredential", Outcome::Allowed));
    let token = row.entry.token.unwrap();
    assert_eq!((token.generation, row.entry.purpose.as_deref()), (1, Some("sort the files")));
    assert_eq!(row.entry.subject.user, Some(UserId::new("alice").unwrap()));
    assert_eq!(row.entry.subject.provider, Some(ProviderId::new("hostile").unwrap()));
    assert_eq!(row.entry.subject.services, [ServiceId::new("files").unwrap()].into());
    assert_eq!(row.entry.request_id.as_deref(), Some("test"));

    // The same token, the same fingerprint; another one, another.
    client.get_credential(ask()).await.unwrap();
    doors.provider.push(Reply::tokens("canary-at-2", "canary-rt-2"));
    let refresh = RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 1 };
    client.refresh(refresh).await.unwrap();
    let rows = rows(&doors).await;
    let marks: Vec<_> = rows.iter().filter_map(|row| row.entry.token).collect();
    assert_eq!(marks.len(), 3);
    assert_eq!(marks[0], marks[1]);
    assert_eq!(marks[2].generation, 2);
    assert_ne!(marks[2].fingerprint, marks[1].fingerprint);
    assert!(rows.iter().all(|row| !format!("{row:?}").contains("canary")));
}

/// "Who used Alice's files at the provider" is one query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_used_alices_files_is_one_query() {
    let doors = open().await;
    for user in ["alice", "bob"] {
        doors.connect(AGENT, user, "at", "rt").await;
    }
    let ask = |user: &str| GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() };
    for (caller, user) in [(AGENT, "alice"), (AGENT, "bob"), (BOBS, "bob"), (BOBS, "alice"), (RIVAL, "alice")]
    {
        let _ = doors.client(caller).await.get_credential(ask(user)).await;
    }
    let all = rows(&doors).await;
    let query = AuditQuery {
        user: Some(UserId::new("alice").unwrap()),
        provider: Some(ProviderId::new("hostile").unwrap()),
        service: Some(ServiceId::new("files").unwrap()),
        action: Some("GetCredential".into()),
        ..AuditQuery::all(TenantId::new("tenant-a").unwrap(), 10)
    };
    let found = doors.audit.as_ref().unwrap().archive.find(&query).await.unwrap().rows;
    let who: Vec<_> = found
        .iter()
        .map(|row| {
            (row.entry.actor.caller.as_ref().unwrap().as_str(), row.entry.outcome, row.entry.token.is_some())
        })
        .collect();
    assert_eq!(who, [("bobs", Outcome::Denied, false), ("agent", Outcome::Allowed, true)]);
    // The other tenant's question is in its own log.
    assert!(all.iter().all(|row| row.entry.actor.caller.as_ref().is_none_or(|id| id.as_str() != "rival")));
    let theirs = rows_of(&doors, "tenant-b").await;
    assert_eq!(told(&theirs), [("GetCredential", Outcome::Allowed, "NOT_CONNECTED")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consents_are_on_record_with_their_ends() {
    let doors = open().await;
    let flow = doors.connect(AGENT, "alice", "at", "rt").await;
    let (_, state) = doors.begin(AGENT, "hostile", "bob").await;
    doors.browse(&format!("/oauth/callback/hostile?error=access_denied&state={state}")).await;
    let (_, state) = doors.begin(AGENT, "hostile", "carol").await;
    doors.provider.push(Reply::error("invalid_grant"));
    doors.browse(&format!("/oauth/callback/hostile?code=code&state={state}")).await;
    // Not a link of this broker: nobody's, so in nobody's log.
    doors.browse(&format!("/oauth/callback/hostile?code=code&state={}", "A".repeat(43))).await;
    let (cancelled, _) = doors.begin(AGENT, "hostile", "dave").await;
    let cancel = CancelFlowRequest { flow_id: cancelled.clone() };
    doors.client(AGENT).await.cancel_flow(cancel).await.unwrap();
    let rows = rows(&doors).await;
    assert_eq!(
        told(&rows),
        [
            ("BeginOAuth", Outcome::Allowed, ""),
            ("Consent", Outcome::Allowed, "COMPLETED"),
            ("BeginOAuth", Outcome::Allowed, ""),
            ("Consent", Outcome::Denied, "DENIED"),
            ("BeginOAuth", Outcome::Allowed, ""),
            ("Consent", Outcome::Failed, "EXCHANGE_REJECTED"),
            ("BeginOAuth", Outcome::Allowed, ""),
            ("CancelFlow", Outcome::Allowed, ""),
        ]
    );
    let of = |n: usize| rows[n].entry.subject.flow.unwrap().to_string();
    assert_eq!((of(0), of(1), of(6), of(7)), (flow.clone(), flow, cancelled.clone(), cancelled));
    assert_eq!(rows[1].entry.actor.identified_by.as_deref(), Some("browser"));
    assert_eq!(rows[7].entry.subject.user, Some(UserId::new("dave").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_does_at_providers_is_on_record() {
    let doors = open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let mut client = doors.client(AGENT).await;
    doors.provider.push(Reply::tokens("at-2", "rt-2"));
    let refresh = RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 1 };
    client.refresh(refresh).await.unwrap();
    let revoke = RevokeRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    client.revoke(revoke).await.unwrap();
    let rows = rows(&doors).await;
    let names: Vec<_> = rows[2..].iter().map(|row| &*row.entry.action).collect();
    assert_eq!(names, ["PresentRefreshToken", "Refresh", "RevokeAtProvider", "Revoke"]);
    assert!(rows[2].entry.actor.caller.is_none() && rows[4].entry.actor.caller.is_none());
    assert_eq!(rows[2].entry.subject.user, Some(UserId::new("alice").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purpose_that_cannot_be_recorded_is_refused() {
    let doors = open().await;
    let long = "x".repeat(129);
    for purpose in [long.as_str(), ""] {
        let mut request =
            Request::new(GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() });
        request.metadata_mut().insert("tokenbroker-purpose", purpose.parse().unwrap());
        let refused = doors.client(AGENT).await.get_credential(request).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "MALFORMED_PURPOSE");
    }
    let rows = rows(&doors).await;
    assert_eq!(told(&rows), [("GetCredential", Outcome::Failed, "MALFORMED_PURPOSE"); 2]);
    assert!(rows.iter().all(|row| row.entry.purpose.is_none()));
}

/// A key that was stolen, and is tried after it was disabled, and somebody who makes up tokens of users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_a_known_caller_can_not_make_are_on_record() {
    let doors = open().await;
    let forged = [(AGENT, "canary-no-token", "USER_TOKEN_INVALID"), (AGENT, "", "USER_TOKEN_INVALID")];
    let disabled = [(DISABLED, "x", "CALLER_DISABLED"), (OF_DISABLED, "x", "TENANT_DISABLED")];
    for (caller, token, reason) in forged.into_iter().chain(disabled) {
        let mut request =
            Request::new(GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() });
        request.metadata_mut().insert("tokenbroker-user-token", token.parse().unwrap());
        request.metadata_mut().insert("tokenbroker-purpose", MetadataValue::from_static("sort the files"));
        let refused = doors.client(caller).await.get_credential(request).await.err().unwrap();
        assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
    }
    let own = rows(&doors).await;
    let row = |reason| ("GetCredential", Outcome::Denied, reason);
    assert_eq!(told(&own), [row("USER_TOKEN_INVALID"), row("USER_TOKEN_INVALID"), row("CALLER_DISABLED")]);
    let others = rows_of(&doors, "tenant-c").await;
    assert_eq!(told(&others), [row("TENANT_DISABLED")]);
    let who: Vec<_> =
        own.iter().chain(&others).map(|row| row.entry.actor.caller.as_ref().unwrap().as_str()).collect();
    assert_eq!(who, ["agent", "agent", "disabled", "of-disabled"]);
    for Row { entry, .. } in own.iter().chain(&others) {
        // Nobody has shown to be a user.
        assert_eq!((entry.actor.identified_by.as_deref(), &entry.subject.user), (Some("api_key"), &None));
        assert_eq!(entry.purpose.as_deref(), Some("sort the files"));
        assert!(!format!("{entry:?}").contains("canary"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_in_nobodys_log() {
    let doors = open().await;
    let mut client = token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient::new(
        doors.channel().await,
    );
    let refused = client.get_credential(GetCredentialRequest::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(rows(&doors).await, []);
}

/// Fail closed: no token leaves without its row; what takes access away is not held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_sink_blocks_tokens_are_withheld_and_revoke_is_not() {
    let sink = Arc::new(ScriptedSink { script: Script::blocked(), ..ScriptedSink::default() });
    sink.script.gate.as_ref().unwrap().add_permits(2);
    let doors = Doors::open_audited(SHORT, vec![sink.clone()]).await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.provider.push(Reply::tokens("at", "rt"));
    doors.provider.push_at("/userinfo", Reply::json(200, &serde_json::json!({ "sub": "alice" })));
    doors.browse(&format!("/oauth/callback/hostile?code=code&state={state}")).await;
    sink.script.has_begun(2).await;
    let mut client = doors.client(AGENT).await;
    let ask = || GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    for _ in 0..2 {
        let withheld = client.get_credential(ask()).await.err().unwrap();
        assert_eq!(withheld.code(), Code::Unavailable);
        assert_eq!(withheld.get_details_error_info().unwrap().reason, "AUDIT_UNAVAILABLE");
        assert!(withheld.get_details_retry_info().is_some());
    }
    // Nothing that would need a record is begun any more.
    let begin = BeginOAuthRequest {
        provider: "hostile".to_owned(),
        user_id: "bob".to_owned(),
        services: vec!["files".to_owned()],
        ..Default::default()
    };
    assert_eq!(client.begin_o_auth(begin).await.err().unwrap().code(), Code::Unavailable);
    let revoke = RevokeRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    assert!(client.revoke(revoke).await.unwrap().into_inner().deleted);
    sink.script.unblock();
    let rows = rows(&doors).await;
    assert_eq!(sink.got.lock().unwrap()[..], rows[..]);
    let flows =
        rows.iter().filter(|row| row.entry.action == "BeginOAuth" && row.entry.subject.flow.is_some());
    assert_eq!(flows.count(), 1);
}

/// Fail open: the same sink holds up nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_on_answers_while_a_sink_blocks() {
    let sink = Arc::new(ScriptedSink { script: Script::blocked(), ..ScriptedSink::default() });
    let settings = AuditSettings { on_failure: token_broker::application::audit::OnFailure::GoOn, ..SHORT };
    let doors = Doors::open_audited(settings, vec![sink.clone()]).await;
    doors.connect(AGENT, "alice", "at", "rt").await;
    let ask = GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    doors.client(AGENT).await.get_credential(ask).await.unwrap();
    sink.script.unblock();
    let rows = rows(&doors).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(sink.got.lock().unwrap()[..], rows[..]);
}
