//! Leases over the wire.

use token_broker::r#gen::v1::acquire_lease_response::Result as Acquired;
use token_broker::r#gen::v1::{
    AcquireLeaseRequest, AuthorizationRequiredReason, LeasedCredential, RefreshRequest, ReleaseLeaseRequest,
    RenewLeaseRequest, RevokeRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::doors::{AGENT, Client, Doors, files};
use crate::support::hostile::Reply;

fn acquire(user: &str) -> AcquireLeaseRequest {
    AcquireLeaseRequest { key: Some(files("hostile", user)), ..Default::default() }
}

async fn leased(client: &mut Client) -> LeasedCredential {
    match client.acquire_lease(acquire("alice")).await.unwrap().into_inner().result {
        Some(Acquired::Leased(leased)) => leased,
        _ => panic!("no lease"),
    }
}

fn renew(id: &str) -> RenewLeaseRequest {
    RenewLeaseRequest { key: Some(files("hostile", "alice")), lease_id: id.to_owned(), ttl: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_from_its_beginning_to_its_end() {
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let answer = client.acquire_lease(acquire("alice")).await.unwrap().into_inner().result;
    let Some(Acquired::AuthorizationRequired(required)) = answer else { panic!("nobody has consented") };
    assert!(required.reason() == AuthorizationRequiredReason::NotConnected);

    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let first = leased(&mut client).await;
    let lease = first.lease.unwrap();
    assert!(!lease.capped && !lease.unprotected && lease.expire_time.is_some());
    assert_eq!(first.credential.unwrap().access_token, "at-1");

    doors.provider.push(Reply::tokens("at-2", "rt-2"));
    let refresh = RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 1 };
    client.refresh(refresh).await.unwrap();
    let renewed = client.renew_lease(renew(&lease.lease_id)).await.unwrap().into_inner().leased.unwrap();
    let credential = renewed.credential.unwrap();
    assert_eq!((credential.access_token.as_str(), credential.generation), ("at-2", 2));
    assert_eq!(renewed.lease.unwrap().lease_id, lease.lease_id);

    let release =
        ReleaseLeaseRequest { key: Some(files("hostile", "alice")), lease_id: lease.lease_id.clone() };
    assert!(client.release_lease(release.clone()).await.unwrap().into_inner().released);
    assert!(!client.release_lease(release).await.unwrap().into_inner().released);
    let lost = client.renew_lease(renew(&lease.lease_id)).await.err().unwrap();
    assert_eq!(lost.code(), Code::FailedPrecondition);
    let info = lost.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["lease_lost_reason"].as_str()), ("LEASE_LOST", "ENDED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_says_how_many_use_the_token_and_force_tells_them() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let mut client = doors.client(AGENT).await;
    let (one, two) = (leased(&mut client).await, leased(&mut client).await);
    let revoke = |force| RevokeRequest { key: Some(files("hostile", "alice")), force };
    let refused = client.revoke(revoke(false)).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["leases"].as_str()), ("LEASED", "2"));
    assert_eq!(doors.provider.requests_at("/revoke").len(), 0);
    assert!(client.revoke(revoke(true)).await.unwrap().into_inner().deleted);
    for leased in [one, two] {
        let lost = client.renew_lease(renew(&leased.lease.unwrap().lease_id)).await.err().unwrap();
        let info = lost.get_details_error_info().unwrap();
        assert_eq!(info.metadata["lease_lost_reason"], "REVOKED");
    }
}
