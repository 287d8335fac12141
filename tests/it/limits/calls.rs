//! At the gRPC door, by a clock that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;
use token_broker::domain::audit::{AuditQuery, Outcome};
use token_broker::domain::coordination::CoordinationError;
use token_broker::domain::key::TenantId;
use token_broker::domain::rate_limit::{Bucket, Empty, RateLimit, SharedBuckets};
use token_broker::r#gen::v1::{ConsentOptions, GetCredentialRequest, ListProvidersRequest, RefreshRequest};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{limits, only};
use crate::isolation_matrix::agents_requests;
use crate::support::doors::{
    AGENT, BOBS, DISABLED, Doors, OF_DISABLED, POWERLESS, READER, RIVAL, bearer, files,
};
use crate::support::hostile::{Gate, Reply};
use crate::support::raw_grpc::call;

/// Buckets that count, and are used up when they are told so.
#[derive(Default)]
struct Counting {
    taken: AtomicUsize,
    used_up: AtomicBool,
    buckets: std::sync::Mutex<Vec<Vec<RateLimit>>>,
}

#[async_trait]
impl SharedBuckets for Counting {
    async fn take(&self, _: &TenantId, buckets: &[Bucket]) -> Result<Result<(), Empty>, CoordinationError> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.buckets.lock().unwrap().push(buckets.iter().map(|bucket| bucket.limit).collect());
        let empty = Empty { limit: RateLimit::Caller, retry_after: Duration::from_secs(7) };
        Ok(if self.used_up.load(Ordering::SeqCst) { Err(empty) } else { Ok(()) })
    }
}

fn limited(status: &Status) -> (String, Duration) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("tokenbroker", "RATE_LIMITED"));
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    (info.metadata["limit"].clone(), retry)
}

fn all_of(tenant: &str) -> AuditQuery {
    AuditQuery::all(TenantId::new(tenant).unwrap(), 100)
}

fn ask(user: &str) -> GetCredentialRequest {
    GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() }
}

/// Generated from the proto: an RPC that is added and is not counted fails here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rpc_takes_once_from_the_shared_buckets() {
    let shared = Arc::new(Counting::default());
    let settings = limits(|limits| limits.caller = only(1_000));
    let doors = Doors::open_limited(settings, Some(shared.clone()), false).await;
    let files = prost_types::FileDescriptorSet::decode(token_broker::r#gen::FILE_DESCRIPTOR_SET).unwrap();
    let own = files.file.iter().filter(|file| file.package() == "tokenbroker.v1");
    let mut calls = 0;
    for service in own.flat_map(|file| &file.service) {
        for method in &service.method {
            let mut client = tonic::client::Grpc::new(doors.channel().await);
            client.ready().await.unwrap();
            let mut request = Request::new(());
            request.metadata_mut().insert("authorization", bearer(AGENT));
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let path = format!("/tokenbroker.v1.{}/{}", service.name(), method.name());
            let _ = client.server_streaming(request, path.parse().unwrap(), codec).await;
            calls += 1;
            assert_eq!(shared.taken.load(Ordering::SeqCst), calls, "{path}");
        }
    }
    assert!(calls >= 17);
}

/// Generated from the proto. Operators may do less or more; nobody is asked what before the limits are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rpc_of_operators_is_done_over_a_used_up_budget() {
    let shared = Arc::new(Counting::default());
    shared.used_up.store(true, Ordering::SeqCst);
    let settings = limits(|limits| limits.caller = only(1_000));
    let doors = Doors::open_limited(settings, Some(shared.clone()), false).await;
    let files = prost_types::FileDescriptorSet::decode(token_broker::r#gen::FILE_DESCRIPTOR_SET).unwrap();
    let services = files.file.iter().flat_map(|file| &file.service);
    let operators = services.filter(|service| service.name() == "AdminService");
    for method in operators.flat_map(|service| &service.method) {
        let mut client = tonic::client::Grpc::new(doors.channel().await);
        client.ready().await.unwrap();
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", bearer(AGENT));
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = format!("/tokenbroker.v1.AdminService/{}", method.name());
        let refused = client.server_streaming(request, path.parse().unwrap(), codec).await.err().unwrap();
        assert_eq!(limited(&refused), ("caller".to_owned(), Duration::from_secs(7)), "{path}");
    }
    assert!(shared.taken.load(Ordering::SeqCst) >= 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_limit_is_its_own() {
    let doors = Doors::open_limited(limits(|limits| limits.caller = only(3)), None, true).await;
    let mut agent = doors.client(AGENT).await;
    for _ in 0..3 {
        agent.list_providers(ListProvidersRequest {}).await.unwrap();
    }
    let refused = agent.get_credential(ask("alice")).await.err().unwrap();
    assert_eq!(limited(&refused), ("caller".to_owned(), Duration::from_secs(1)));
    for caller in [BOBS, RIVAL] {
        doors.client(caller).await.list_providers(ListProvidersRequest {}).await.unwrap();
    }
    doors.clock.advance(Duration::from_secs(1));
    agent.list_providers(ListProvidersRequest {}).await.unwrap();
    assert!(agent.list_providers(ListProvidersRequest {}).await.is_err());
    // A flood of calls is no flood of rows.
    let audit = doors.audit.as_ref().unwrap();
    audit.log.close().await;
    let rows = audit.archive.find(&all_of("tenant-a")).await.unwrap().rows;
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row.entry.outcome == Outcome::Allowed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_limit_is_for_all_of_its_callers_and_no_other() {
    let doors = Doors::open_limited(limits(|limits| limits.tenant = only(2)), None, false).await;
    for caller in [AGENT, BOBS] {
        doors.client(caller).await.list_providers(ListProvidersRequest {}).await.unwrap();
    }
    let refused = doors.client(AGENT).await.list_providers(ListProvidersRequest {}).await.err().unwrap();
    assert_eq!(limited(&refused).0, "tenant");
    doors.client(RIVAL).await.list_providers(ListProvidersRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_limit_is_for_all_callers_that_ask_for_the_user() {
    let doors = Doors::open_limited(limits(|limits| limits.user = only(2)), None, false).await;
    let (mut agent, mut bobs) = (doors.client(AGENT).await, doors.client(BOBS).await);
    agent.get_credential(ask("bob")).await.unwrap();
    bobs.get_credential(ask("bob")).await.unwrap();
    for client in [&mut agent, &mut bobs] {
        assert_eq!(limited(&client.get_credential(ask("bob")).await.err().unwrap()).0, "user");
    }
    agent.get_credential(ask("alice")).await.unwrap();
    // The same name in another tenant is another user.
    doors.client(RIVAL).await.get_credential(ask("bob")).await.unwrap();
}

/// Through all RPCs that there are, by the rows of the isolation matrix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_limit_is_asked_behind_the_policy() {
    let shared = Arc::new(Counting::default());
    let settings = limits(|limits| {
        limits.caller = only(1_000);
        limits.user = only(1_000);
    });
    let doors = Doors::open_limited(settings, Some(shared.clone()), false).await;
    let channel = doors.channel().await;
    for (path, request) in agents_requests() {
        let for_nobody = ["GetFlow", "CancelFlow", "ListProviders"].iter().any(|rpc| path.ends_with(rpc));
        for (caller, allowed) in [(POWERLESS, false), (AGENT, true)] {
            let authorization = [bearer(caller).to_str().unwrap().to_owned()];
            let answer = call(&channel, &format!("/tokenbroker.v1.{path}"), &authorization, &request).await;
            let denied = answer.is_err_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(denied, !allowed, "{path}");
            let asked = std::mem::take(&mut *shared.buckets.lock().unwrap());
            let expected = if allowed && !for_nobody {
                vec![RateLimit::Caller, RateLimit::User]
            } else {
                vec![RateLimit::Caller]
            };
            assert_eq!(asked, [expected], "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_ask_for_a_user_uses_up_nothing_of_theirs() {
    let doors = Doors::open_limited(limits(|limits| limits.user = only(2)), None, false).await;
    let mut agent = doors.client(AGENT).await;
    let refused = async |caller| {
        let status = doors.client(caller).await.get_credential(ask("alice")).await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        format!("{:?}", status.details())
    };
    let before = refused(BOBS).await;
    for _ in 0..10 {
        refused(POWERLESS).await;
        refused(BOBS).await;
    }
    // It may ask for her token, and not begin a consent.
    let begin = GetCredentialRequest { begin_if_missing: Some(ConsentOptions::default()), ..ask("alice") };
    for _ in 0..10 {
        let status = doors.client(READER).await.get_credential(begin.clone()).await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    for _ in 0..2 {
        agent.get_credential(ask("alice")).await.unwrap();
    }
    assert_eq!(limited(&agent.get_credential(ask("alice")).await.err().unwrap()).0, "user");
    // Nor does it show that she is in use.
    assert_eq!(refused(BOBS).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_disabled_is_limited_as_well() {
    let doors = Doors::open_limited(limits(|limits| limits.caller = only(3)), None, true).await;
    for (caller, reason) in [(DISABLED, "CALLER_DISABLED"), (OF_DISABLED, "TENANT_DISABLED")] {
        let mut client = doors.client(caller).await;
        for n in 0..10 {
            let refused = client.list_providers(ListProvidersRequest {}).await.err().unwrap();
            if n < 3 {
                assert_eq!(refused.get_details_error_info().unwrap().reason, reason);
            } else {
                assert_eq!(limited(&refused).0, "caller");
            }
        }
    }
    let audit = doors.audit.as_ref().unwrap();
    audit.log.close().await;
    for tenant in ["tenant-a", "tenant-c"] {
        assert_eq!(audit.archive.find(&all_of(tenant)).await.unwrap().rows.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_of_call_has_its_own_limit() {
    let doors = Doors::open_limited(limits(|limits| limits.lists = only(1)), None, false).await;
    let mut agent = doors.client(AGENT).await;
    agent.list_providers(ListProvidersRequest {}).await.unwrap();
    let refused = agent.list_providers(ListProvidersRequest {}).await.err().unwrap();
    assert_eq!(limited(&refused).0, "lists");
    for _ in 0..5 {
        agent.get_credential(ask("alice")).await.unwrap();
    }
}

/// The refresh goes on and its token is stored, however often its caller asks meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_under_way_is_not_lost() {
    let doors = Doors::open_limited(limits(|limits| limits.caller = only(4)), None, false).await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-2", "rt-2").held_by(&gate));
    let mut client = doors.client(AGENT).await;
    let refresh = RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 1 };
    let waiting = tokio::spawn(async move { client.refresh(refresh).await });
    while doors.provider.requests_at("/token").len() < 2 {
        tokio::task::yield_now().await;
    }
    let mut client = doors.client(AGENT).await;
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(client.get_credential(ask("alice")).await.is_err());
    }
    assert!(refused >= 17, "{refused}");
    gate.release();
    waiting.await.unwrap().unwrap();
    doors.settle().await;
    doors.clock.advance(Duration::from_secs(10));
    let answer = client.get_credential(ask("alice")).await.unwrap().into_inner();
    let Some(token_broker::r#gen::v1::get_credential_response::Result::Credential(credential)) =
        answer.result
    else {
        panic!("a token")
    };
    assert_eq!((credential.access_token.as_str(), credential.generation), ("at-2", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_limited_and_hold_up_nobody_who_is_known() {
    let doors = Doors::open_limited(limits(|limits| limits.strangers = only(3)), None, false).await;
    let wrong = || {
        let mut request = Request::new(ListProvidersRequest {});
        let key = bearer(AGENT).to_str().unwrap().replace("agent", "gnome");
        request.metadata_mut().insert("authorization", key.parse().unwrap());
        request
    };
    let channel = doors.channel().await;
    let mut stranger =
        token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient::new(channel);
    for _ in 0..3 {
        let refused = stranger.list_providers(wrong()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let refused = stranger.list_providers(wrong()).await.err().unwrap();
    assert_eq!(limited(&refused).0, "strangers");
    doors.client(AGENT).await.list_providers(ListProvidersRequest {}).await.unwrap();
}
