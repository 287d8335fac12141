//! What goes over the wire: whole answers, compression, limits, deadlines, ids.

use std::time::Duration;

use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::refresh_response::Result as RefreshResult;
use token_broker::r#gen::v1::{
    CredentialStatus, FlowStatus, GetCredentialRequest, GetFlowRequest, ImportCredentialRequest,
    ListCredentialsRequest, ListProvidersRequest, ProviderRevocation, RefreshRequest, RefreshState,
    RevokeRequest,
};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::doors::{AGENT, Doors, bearer, files};
use crate::support::hostile::{Gate, Reply};

fn get(user: &str) -> GetCredentialRequest {
    GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_life_of_a_credential() {
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let flow = doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let ended = client.get_flow(GetFlowRequest { flow_id: flow }).await.unwrap().into_inner().flow.unwrap();
    assert!(ended.status() == FlowStatus::Completed && ended.failure.is_empty());
    assert_eq!(
        (ended.provider.as_str(), ended.user_id.as_str(), ended.account.as_str()),
        ("hostile", "alice", "default")
    );
    assert_eq!(
        (ended.services, ended.scopes),
        (vec!["files".to_owned()], vec!["read".to_owned(), "write".to_owned()])
    );
    assert!(ended.create_time.is_some() && ended.expire_time.is_some() && ended.end_time.is_some());

    let Some(GetResult::Credential(token)) =
        client.get_credential(get("alice")).await.unwrap().into_inner().result
    else {
        panic!("no token");
    };
    assert_eq!(
        (token.access_token.as_str(), token.token_type.as_str(), token.generation),
        ("at-1", "Bearer", 1)
    );
    assert!(token.refresh_state() == RefreshState::Fresh);
    assert!(token.scopes_assumed && token.expire_time.is_some());
    let account = token.account.unwrap();
    assert_eq!((account.subject.as_str(), account.label.as_str()), ("alice", "alice@example.com"));
    assert_eq!(token.key.unwrap().account, "default");

    doors.provider.push(Reply::tokens("at-2", "rt-2"));
    let refresh = RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 1 };
    let answer = client.refresh(refresh).await.unwrap().into_inner().result;
    let Some(RefreshResult::Credential(token)) = answer else { panic!("no token") };
    assert_eq!((token.access_token.as_str(), token.generation), ("at-2", 2));

    let list = client.list_credentials(ListCredentialsRequest::default()).await.unwrap().into_inner();
    let [summary] = &list.credentials[..] else { panic!("one credential") };
    assert!(summary.status() == CredentialStatus::Active);
    assert_eq!((summary.generation, summary.refreshable), (2, true));
    assert_eq!(summary.services, ["files"]);

    doors.provider.push_at("/revoke", Reply::status(200));
    let revoke = RevokeRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    let revoked = client.revoke(revoke).await.unwrap().into_inner();
    assert!(revoked.deleted);
    assert!(revoked.provider_revocation() == ProviderRevocation::Revoked);
    assert_eq!(revoked.services, ["files"]);
    let answer = client.get_credential(get("alice")).await.unwrap().into_inner().result;
    assert!(matches!(answer, Some(GetResult::AuthorizationRequired(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_listed_with_all_that_a_caller_needs() {
    let doors = Doors::open().await;
    let list = doors.client(AGENT).await.list_providers(ListProvidersRequest {}).await.unwrap().into_inner();
    let ids: Vec<_> = list.providers.iter().map(|provider| provider.id.as_str()).collect();
    assert_eq!(ids, ["hostile", "issuer", "other", "promises"]);
    let first = &list.providers[0];
    assert_eq!(first.redirect_uri, "https://broker.example/oauth/callback/hostile");
    assert!(first.supports_revocation);
    let [service] = &first.services[..] else { panic!("one service") };
    assert_eq!(
        (service.id.as_str(), service.display_name.as_str(), service.grant.as_str()),
        ("files", "Files", "default")
    );
    assert_eq!(service.scopes, ["read", "write"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_calls_are_answered_compressed() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = doors.client(AGENT).await;
        let mut client = client.send_compressed(encoding).accept_compressed(encoding);
        let answer = client.get_credential(get("alice")).await.unwrap();
        let used = answer.metadata().get("grpc-encoding").unwrap().to_str().unwrap().to_owned();
        assert_eq!(used, format!("{encoding}"));
        let Some(GetResult::Credential(token)) = answer.into_inner().result else { panic!("no token") };
        assert_eq!(token.access_token, "at-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_too_large_also_when_compressed() {
    let doors = Doors::open().await;
    let before = doors.rows().await;
    // Eight megabytes of one letter compress to eight kilobytes.
    let bomb = || ImportCredentialRequest {
        key: Some(files("hostile", "alice")),
        access_token: "a".repeat(8 << 20),
        ..Default::default()
    };
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let client = doors.client(AGENT).await;
        let mut client = match encoding {
            None => client,
            Some(encoding) => client.send_compressed(encoding),
        };
        let refused = client.import_credential(bomb()).await.err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{encoding:?} {refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
    }
    assert_eq!(doors.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_the_callers_mistake() {
    let doors = Doors::open().await;
    let mut client = tonic::client::Grpc::new(doors.channel().await);
    // Field 1 is a message: the first text begins one that ends too early, the second holds a user id that is not UTF-8.
    for key in [vec![0x0a, 0x05, b'x'], vec![0x12, 0x01, 0xff]] {
        client.ready().await.unwrap();
        let mut request = Request::new(key);
        request.metadata_mut().insert("authorization", bearer(AGENT));
        let path = "/tokenbroker.v1.TokenBrokerService/GetCredential".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<Vec<u8>, ()>::default();
        let refused = client.unary(request, path, codec).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "MALFORMED_REQUEST");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_by_its_deadline_and_its_refresh_goes_on() {
    // The broker's own limit, not the client's: the client would answer itself.
    let doors = Doors::open_with("https://broker.example", Duration::from_secs(2)).await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    doors.clock.advance(Duration::from_secs(3_600));
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-2", "rt-2").held_by(&gate));
    let refused = doors.client(AGENT).await.get_credential(get("alice")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "REFRESH_IN_PROGRESS");
    assert!(refused.get_details_retry_info().is_some());
    gate.release();
    doors.settle().await;
    let answer = doors.client(AGENT).await.get_credential(get("alice")).await.unwrap().into_inner().result;
    let Some(GetResult::Credential(token)) = answer else { panic!("no token") };
    assert_eq!(token.access_token, "at-2", "the refresh went on without its caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_is_echoed_on_success_and_on_failure() {
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let answer = client.list_providers(ListProvidersRequest {}).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "test");
    let refused = client.get_flow(GetFlowRequest { flow_id: "x".to_owned() }).await.err().unwrap();
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), "test");
}
