//! GetFlow and CancelFlow: ids that are none, that never were, that are somebody else's, and flows that have ended.

use token_broker::r#gen::v1::{CancelFlowRequest, FlowStatus, GetFlowRequest};
use tonic::Code;

use super::{FORBIDDEN, NO_FLOW, Stage, invalid};
use crate::support::doors::{AGENT, BOBS, POWERLESS, RIVAL};

const NEVER_WAS: &str = "0190f0a8-0000-4000-8000-00000000002a";

fn get(id: &str) -> GetFlowRequest {
    GetFlowRequest { flow_id: id.to_owned() }
}

fn cancel(id: &str) -> CancelFlowRequest {
    CancelFlowRequest { flow_id: id.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_none() {
    let stage = Stage::set().await;
    let mut client = stage.doors.client(AGENT).await;
    let (braced, simple, upper) =
        (format!("{{{}}}", stage.flow), stage.flow.replace('-', ""), format!("{} ", stage.flow));
    let long = "x".repeat(10_000);
    for id in ["", "canary", "canary\0", &braced, &simple, &upper, &long, "' OR 1=1 --"] {
        stage.refused("get", client.get_flow(get(id)).await, invalid(&["flow_id"])).await;
        stage.refused("cancel", client.cancel_flow(cancel(id)).await, invalid(&["flow_id"])).await;
    }
    assert!(client.get_flow(get(&stage.flow)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_never_were_or_are_somebody_elses() {
    let stage = Stage::set().await;
    for (caller, id, refusal) in [
        (AGENT, NEVER_WAS, NO_FLOW),
        (RIVAL, NEVER_WAS, NO_FLOW),
        (RIVAL, &stage.flow, NO_FLOW),
        (BOBS, &stage.flow, NO_FLOW),
        (POWERLESS, &stage.flow, FORBIDDEN),
        (POWERLESS, NEVER_WAS, FORBIDDEN),
    ] {
        let mut client = stage.doors.client(caller).await;
        stage.refused(caller, client.get_flow(get(id)).await, refusal).await;
        stage.refused(caller, client.cancel_flow(cancel(id)).await, refusal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_pending_flow_is_cancelled() {
    let mut stage = Stage::set().await;
    let mut client = stage.doors.client(AGENT).await;
    let (denied, secret) = stage.doors.begin(AGENT, "hostile", "alice").await;
    stage.doors.browse(&format!("/oauth/callback/hostile?error=access_denied&state={secret}")).await;
    stage.before = stage.doors.rows().await;
    let ended = (Code::FailedPrecondition, "FLOW_ENDED", &[][..]);
    stage.refused("denied", client.cancel_flow(cancel(&denied)).await, ended).await;
    let cancelled = client.cancel_flow(cancel(&stage.flow)).await.unwrap().into_inner().flow.unwrap();
    assert!(cancelled.status() == FlowStatus::Cancelled && cancelled.end_time.is_some());
    stage.before = stage.doors.rows().await;
    assert!(client.cancel_flow(cancel(&stage.flow)).await.is_ok(), "cancelling twice is no error");
    assert_eq!(stage.doors.rows().await, stage.before);
}
