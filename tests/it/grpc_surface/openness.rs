//! What is open: health, and nothing else.

use prost::Message as _;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_types::StatusExt as _;

use crate::support::doors::{AGENT, Doors, POWERLESS, SERVICE, bearer};

/// Every method that the proto has, so that a new one without a check fails here.
fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(token_broker::r#gen::FILE_DESCRIPTOR_SET).unwrap();
    let own = files.file.iter().filter(|file| file.package() == "tokenbroker.v1");
    let methods: Vec<_> = own
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service.method.iter().map(|m| format!("/tokenbroker.v1.{}/{}", service.name(), m.name()))
        })
        .collect();
    assert!(methods.len() >= 13, "{methods:?}");
    methods
}

/// Calls a method by its path with an empty message, and waits for the head of its answer: a stream may have no end.
async fn call(doors: &Doors, path: &str, authorization: &[&str]) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(doors.channel().await);
    client.ready().await.unwrap();
    let mut request = Request::new(());
    for entry in authorization {
        request.metadata_mut().append("authorization", entry.parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.server_streaming(request, path.parse().unwrap(), codec).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_needs_a_key() {
    let doors = Doors::open().await;
    let good = bearer(AGENT).to_str().unwrap().to_owned();
    let wrong = good.replace("agent", "gnome");
    let prefix = &good[..good.len() - 1];
    for method in methods() {
        for authorization in [&[][..], &[""], &[&wrong], &[prefix], &[&good, &good], &[&good, &wrong]] {
            let status = call(&doors, &method, authorization).await.err().unwrap();
            assert_eq!(status.code(), Code::Unauthenticated, "{method} {authorization:?}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.domain.as_str(), info.reason.as_str()), ("tokenbroker", "UNAUTHENTICATED"));
        }
        let status = call(&doors, &method, &[&good]).await.err();
        assert_ne!(status.map(|s| s.code()), Some(Code::Unauthenticated), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_needs_a_permission() {
    let doors = Doors::open().await;
    let powerless = bearer(POWERLESS).to_str().unwrap().to_owned();
    for method in methods() {
        // An empty message is no valid one, which most methods say first; none of them does anything.
        let code = call(&doors, &method, &[&powerless]).await.err().unwrap().code();
        assert!(matches!(code, Code::PermissionDenied | Code::InvalidArgument), "{method}: {code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_need_a_key_too() {
    let doors = Doors::open().await;
    let good = bearer(AGENT).to_str().unwrap().to_owned();
    for path in ["/tokenbroker.v1.TokenBrokerService/Nothing", "/tokenbroker.v1.AdminService/Get", "/x/y"] {
        assert_eq!(call(&doors, path, &[]).await.err().unwrap().code(), Code::Unauthenticated);
        let status = call(&doors, path, &[&good]).await.err().unwrap();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(status.get_details_error_info().unwrap().reason, "UNIMPLEMENTED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open() {
    let doors = Doors::open().await;
    let mut client = HealthClient::new(doors.channel().await);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
        let first = client.watch(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
    }
    let unknown = client.check(HealthCheckRequest { service: "no.such".to_owned() }).await.err().unwrap();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_takes_no_large_messages() {
    let doors = Doors::open().await;
    let mut client = HealthClient::new(doors.channel().await);
    let large = HealthCheckRequest { service: "x".repeat(8 * 1024) };
    assert_eq!(client.check(large.clone()).await.err().unwrap().code(), Code::OutOfRange);
    assert_eq!(client.watch(large).await.err().unwrap().code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_to_callers() {
    let doors = Doors::open().await;
    let ask = |authorization: bool, channel| async move {
        let mut client = ServerReflectionClient::new(channel);
        let mut request = Request::new(futures_util::stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }]));
        if authorization {
            request.metadata_mut().insert("authorization", bearer(AGENT));
        }
        let mut answers = client.server_reflection_info(request).await?.into_inner();
        answers.message().await
    };
    let refused = ask(false, doors.channel().await).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let answer: ServerReflectionResponse = ask(true, doors.channel().await).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list of services");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let reflection = "grpc.reflection.v1.ServerReflection";
    assert_eq!(names, ["grpc.health.v1.Health", reflection, "tokenbroker.v1.AdminService", SERVICE]);
}
