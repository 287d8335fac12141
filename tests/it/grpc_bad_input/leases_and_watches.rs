//! The tables of AcquireLease, RenewLease, ReleaseLease and WatchCredentials.

use token_broker::r#gen::v1::acquire_lease_response::Result as Acquired;
use token_broker::r#gen::v1::{
    AcquireLeaseRequest, ReleaseLeaseRequest, RenewLeaseRequest, WatchCredentialsRequest,
};
use tonic::Code;

use super::keys::rows;
use super::{FORBIDDEN, Refusal, Row, Stage, invalid, run_table};
use crate::support::doors::{AGENT, BOBS, POWERLESS, files};

fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

const NEVER_WAS: &str = "0190f0a8-0000-4000-8000-00000000002a";
const LOST: Refusal = (Code::FailedPrecondition, "LEASE_LOST", &[]);

#[tokio::test(flavor = "multi_thread")]
async fn acquire_lease() {
    let good = || AcquireLeaseRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    let mut table: Vec<Row<AcquireLeaseRequest>> = rows();
    let more: Vec<Row<AcquireLeaseRequest>> = vec![
        ("no time at all", |m| m.ttl = Some(duration(0, 0)), invalid(&["ttl"])),
        ("a negative time", |m| m.ttl = Some(duration(-1, 0)), invalid(&["ttl"])),
        ("over a day", |m| m.ttl = Some(duration(86_401, 0)), invalid(&["ttl"])),
        ("odd nanoseconds", |m| m.ttl = Some(duration(1, -1)), invalid(&["ttl"])),
        ("an empty scope", |m| m.scopes = vec![String::new()], invalid(&["scopes[0]"])),
        ("NUL in a scope", |m| m.scopes = vec!["canary\0".into()], invalid(&["scopes[0]"])),
        ("a negative min_ttl", |m| m.min_ttl = Some(duration(-1, 0)), invalid(&["min_ttl"])),
        (
            "several mistakes",
            |m| {
                m.key = None;
                m.ttl = Some(duration(-1, 0));
                m.min_ttl = Some(duration(-1, 0));
            },
            invalid(&["key", "ttl", "min_ttl"]),
        ),
    ];
    table.extend(more);
    run_table!(acquire_lease, good(), table);
}

/// The ids that are none, for both calls that take one.
const NO_IDS: [&str; 4] = ["", "canary", "{0190f0a8-0000-4000-8000-00000000002a}", "' OR 1=1 --"];

#[tokio::test(flavor = "multi_thread")]
async fn renew_lease() {
    let stage = Stage::set().await;
    let mut client = stage.doors.client(AGENT).await;
    let request = AcquireLeaseRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    let Some(Acquired::Leased(leased)) = client.acquire_lease(request).await.unwrap().into_inner().result
    else {
        panic!("no lease")
    };
    let good = RenewLeaseRequest {
        key: Some(files("hostile", "alice")),
        lease_id: leased.lease.unwrap().lease_id,
        ttl: None,
    };
    for (case, change, refusal) in rows::<RenewLeaseRequest>() {
        let mut request = good.clone();
        change(&mut request);
        stage.refused(case, client.renew_lease(request).await, refusal).await;
    }
    for id in NO_IDS {
        let request = RenewLeaseRequest { lease_id: id.to_owned(), ..good.clone() };
        stage.refused(id, client.renew_lease(request).await, invalid(&["lease_id"])).await;
    }
    let request = RenewLeaseRequest { ttl: Some(duration(-1, 0)), ..good.clone() };
    stage.refused("a negative time", client.renew_lease(request).await, invalid(&["ttl"])).await;
    let request = RenewLeaseRequest { lease_id: NEVER_WAS.to_owned(), ..good.clone() };
    stage.refused("never was", client.renew_lease(request).await, LOST).await;
    let request = RenewLeaseRequest { key: Some(files("other", "alice")), ..good.clone() };
    stage.refused("of another key", client.renew_lease(request).await, LOST).await;
    for (caller, refusal) in [(POWERLESS, FORBIDDEN), (BOBS, FORBIDDEN)] {
        let answer = stage.doors.client(caller).await.renew_lease(good.clone()).await;
        stage.refused(caller, answer, refusal).await;
    }
    assert!(client.renew_lease(good).await.is_ok(), "the unchanged request is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn release_lease() {
    let good =
        || ReleaseLeaseRequest { key: Some(files("hostile", "alice")), lease_id: NEVER_WAS.to_owned() };
    let mut table: Vec<Row<ReleaseLeaseRequest>> = rows();
    let more: Vec<Row<ReleaseLeaseRequest>> = vec![
        ("no id", |m| m.lease_id.clear(), invalid(&["lease_id"])),
        ("an id that is none", |m| m.lease_id = "canary".into(), invalid(&["lease_id"])),
        ("an id in braces", |m| m.lease_id = format!("{{{NEVER_WAS}}}"), invalid(&["lease_id"])),
    ];
    table.extend(more);
    run_table!(release_lease, good(), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_credentials() {
    let stage = Stage::set().await;
    let mut client = stage.doors.client(AGENT).await;
    let rows: [(&str, WatchCredentialsRequest, Refusal); 6] = [
        (
            "a long user",
            WatchCredentialsRequest { user_id: "x".repeat(257), ..Default::default() },
            invalid(&["user_id"]),
        ),
        (
            "NUL in the user",
            WatchCredentialsRequest { user_id: "canary\0".into(), ..Default::default() },
            invalid(&["user_id"]),
        ),
        (
            "a cursor that is none",
            WatchCredentialsRequest { cursor: "canary".into(), ..Default::default() },
            invalid(&["cursor"]),
        ),
        (
            "a long cursor",
            WatchCredentialsRequest { cursor: "x".repeat(257), ..Default::default() },
            invalid(&["cursor"]),
        ),
        (
            "a cursor of another database",
            // Transaction 0, event 1,000,000, the time of the test's clock.
            WatchCredentialsRequest { cursor: far_cursor(&stage).await, ..Default::default() },
            (Code::FailedPrecondition, "CURSOR_EXPIRED", &[]),
        ),
        (
            "several mistakes",
            WatchCredentialsRequest { user_id: " canary".into(), cursor: "x".repeat(257) },
            invalid(&["user_id", "cursor"]),
        ),
    ];
    for (case, request, refusal) in rows {
        stage.refused(case, client.watch_credentials(request).await, refusal).await;
    }
    let of_alice = WatchCredentialsRequest { user_id: "alice".into(), ..Default::default() };
    for caller in [POWERLESS, BOBS] {
        let answer = stage.doors.client(caller).await.watch_credentials(of_alice.clone()).await;
        stage.refused(caller, answer, FORBIDDEN).await;
    }
    let all = WatchCredentialsRequest::default();
    let answer = stage.doors.client(POWERLESS).await.watch_credentials(all.clone()).await;
    stage.refused("without the action", answer, FORBIDDEN).await;
    assert!(stage.doors.client(BOBS).await.watch_credentials(all).await.is_ok(), "it sees what it may see");
    assert!(client.watch_credentials(of_alice).await.is_ok());
}

/// A cursor as the broker makes them, for an event that this database does not have yet.
async fn far_cursor(stage: &Stage) -> String {
    use base64::Engine as _;
    let mut client = stage.doors.client(AGENT).await;
    let mut watch = client.watch_credentials(WatchCredentialsRequest::default()).await.unwrap().into_inner();
    let cursor = watch.message().await.unwrap().unwrap().cursor;
    let engine = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let mut bytes = engine.decode(cursor).unwrap();
    bytes[9..17].copy_from_slice(&1_000_000_i64.to_be_bytes());
    engine.encode(bytes)
}
