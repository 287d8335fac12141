//! What a caller may not see is exactly as unknown as what never was.

use token_broker::r#gen::v1::acquire_lease_response::Result as AcquireResult;
use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::{
    AcquireLeaseRequest, AuthorizationRequiredReason, CancelFlowRequest, CredentialKey, GetCredentialRequest,
    GetFlowRequest, ListCredentialsRequest, ReleaseLeaseRequest, RenewLeaseRequest, RevokeRequest,
};
use tonic::{Code, Status};

use crate::support::doors::{AGENT, BOBS, Doors, RIVAL, files};

/// Everything of a reply that a caller can see.
fn bytes(status: &Status) -> String {
    let mut metadata: Vec<_> = status.metadata().clone().into_headers().into_iter().collect();
    metadata.retain(|(name, _)| name.as_ref().is_none_or(|name| name != "date"));
    format!("{:?} {:?} {:?} {metadata:?}", status.code(), status.message(), status.details())
}

const NEVER_WAS: &str = "0190f0a8-0000-4000-8000-00000000002a";

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_flow_is_as_unknown_as_none() {
    let doors = Doors::open().await;
    let (flow, _) = doors.begin(AGENT, "hostile", "alice").await;
    let before = doors.rows().await;
    for caller in [RIVAL, BOBS] {
        let mut client = doors.client(caller).await;
        let get = |id: &str| GetFlowRequest { flow_id: id.to_owned() };
        let cancel = |id: &str| CancelFlowRequest { flow_id: id.to_owned() };
        let theirs = client.get_flow(get(&flow)).await.err().unwrap();
        assert_eq!(theirs.code(), Code::NotFound);
        assert_eq!(bytes(&theirs), bytes(&client.get_flow(get(NEVER_WAS)).await.err().unwrap()));
        let theirs = client.cancel_flow(cancel(&flow)).await.err().unwrap();
        assert_eq!(bytes(&theirs), bytes(&client.cancel_flow(cancel(NEVER_WAS)).await.err().unwrap()));
    }
    assert_eq!(doors.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_credential_is_as_unknown_as_none() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let before = doors.rows().await;
    let mut rival = doors.client(RIVAL).await;
    let ask = |user: &str| GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() };
    let theirs = rival.get_credential(ask("alice")).await.unwrap().into_inner();
    let nobodys = rival.get_credential(ask("nobody")).await.unwrap().into_inner();
    assert!(theirs == nobodys);
    assert!(matches!(theirs.result, Some(GetResult::AuthorizationRequired(_))));
    let revoke = |user: &str| RevokeRequest { key: Some(files("hostile", user)), ..Default::default() };
    let theirs = rival.revoke(revoke("alice")).await.unwrap().into_inner();
    let nobodys = rival.revoke(revoke("nobody")).await.unwrap().into_inner();
    assert!(theirs == nobodys && !theirs.deleted);
    for force in [false, true] {
        let revoke = |user: &str| RevokeRequest { key: Some(files("hostile", user)), force };
        assert!(!rival.revoke(revoke("alice")).await.unwrap().into_inner().deleted);
    }
    let mut agent = doors.client(AGENT).await;
    let acquire =
        |user: &str| AcquireLeaseRequest { key: Some(files("hostile", user)), ..Default::default() };
    let Some(AcquireResult::Leased(leased)) =
        agent.acquire_lease(acquire("alice")).await.unwrap().into_inner().result
    else {
        panic!("no lease")
    };
    let lease_id = leased.lease.unwrap().lease_id;
    let theirs = rival.acquire_lease(acquire("alice")).await.unwrap().into_inner();
    assert!(theirs == rival.acquire_lease(acquire("nobody")).await.unwrap().into_inner());
    let renew = |user: &str| RenewLeaseRequest {
        key: Some(files("hostile", user)),
        lease_id: lease_id.clone(),
        ttl: None,
    };
    let theirs = rival.renew_lease(renew("alice")).await.err().unwrap();
    assert_eq!(theirs.code(), Code::FailedPrecondition);
    assert_eq!(bytes(&theirs), bytes(&rival.renew_lease(renew("nobody")).await.err().unwrap()));
    let release =
        |user: &str| ReleaseLeaseRequest { key: Some(files("hostile", user)), lease_id: lease_id.clone() };
    assert!(!rival.release_lease(release("alice")).await.unwrap().into_inner().released);
    assert!(agent.release_lease(release("alice")).await.unwrap().into_inner().released, "it is untouched");
    let list = rival.list_credentials(ListCredentialsRequest::default()).await.unwrap().into_inner();
    assert!(list.credentials.is_empty());
    assert_eq!(doors.rows().await, before);
    assert_eq!(doors.provider.requests_at("/revoke").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_comes_before_existence() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let mut bobs = doors.client(BOBS).await;
    let mut replies = std::collections::BTreeSet::new();
    // A user with a credential, one without; a provider that there is, one that there is not.
    for (provider, user) in
        [("hostile", "alice"), ("hostile", "nobody"), ("other", "bob"), ("no-such", "bob")]
    {
        let request = GetCredentialRequest { key: Some(files(provider, user)), ..Default::default() };
        let refused = bobs.get_credential(request).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{provider} {user}");
        replies.insert(bytes(&refused));
    }
    assert_eq!(replies.len(), 1, "{replies:#?}");
    let own = GetCredentialRequest { key: Some(files("hostile", "bob")), ..Default::default() };
    assert!(bobs.get_credential(own).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_credential_gets_nobody_elses() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "at-1", "rt-1").await;
    let mut agent = doors.client(AGENT).await;
    for (user, account) in [
        ("bob", ""),
        ("Alice", ""),
        ("alic", ""),
        ("alice2", ""),
        ("default", ""),
        ("agent", ""),
        ("alice", "work"),
        ("alice", "Default"),
    ] {
        let key = CredentialKey { account: account.to_owned(), ..files("hostile", user) };
        let request = GetCredentialRequest { key: Some(key), ..Default::default() };
        let answer = agent.get_credential(request).await.unwrap().into_inner().result;
        let Some(GetResult::AuthorizationRequired(required)) = answer else { panic!("{user} {account}") };
        assert!(required.reason() == AuthorizationRequiredReason::NotConnected, "{user} {account}");
    }
}
