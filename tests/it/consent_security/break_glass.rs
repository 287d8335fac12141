//! Break glass ends what is under way as well: a consent that was begun before does not complete after.

use token_broker::application::admin::BrokenGlass;
use token_broker::domain::access_policy::{Caller, Principal};
use token_broker::domain::admin_policy::{AdminAction, AdminRights};
use token_broker::domain::key::{CallerId, TenantId, UserId};
use token_broker::r#gen::v1::{ConsentBinding, FlowStatus};

use super::{
    assert_ended, begin, come_back, complete, completion, flow_of, nothing_came_of_it, returned, token,
};
use crate::support::doors::{Doors, state_in};
use crate::support::hostile::{Gate, Reply};

async fn break_glass(doors: &Doors, user: Option<&str>) -> BrokenGlass {
    let tenant = TenantId::new("tenant-a").unwrap();
    let mut caller = Caller::new(CallerId::new("ops").unwrap(), tenant, vec![]);
    caller.admin = AdminRights { actions: [AdminAction::BreakGlass].into(), all_tenants: false };
    let user = user.map(|id| UserId::new(id).unwrap());
    doors.broker.break_glass(&Principal::from(caller), None, user).await.unwrap()
}

/// At every stage that a consent without a credential can have.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_was_begun_before_does_not_complete_after() {
    for user in [Some("alice"), None] {
        let doors = Doors::open().await;
        let unopened =
            doors.begin_with(super::AGENT, "other", "alice", super::bound(ConsentBinding::Confirm)).await;
        let let_in = begin(&doors, "alice", ConsentBinding::Confirm).await;
        let state = doors.confirm(&let_in).await;
        let (back, code) = returned(&doors, "alice").await;
        let bobs = begin(&doors, "bob", ConsentBinding::Confirm).await;
        let bobs_state = doors.confirm(&bobs).await;
        let done = break_glass(&doors, user).await;
        let cancelled = if user.is_some() { 3 } else { 4 };
        assert_eq!(done, BrokenGlass { revoked: 0, cancelled_flows: cancelled, more: false });
        for flow in [&unopened, &let_in, &back] {
            assert_ended(&doors, flow, FlowStatus::Cancelled, "").await;
        }
        let link: url::Url = unopened.authorization_url.parse().unwrap();
        assert_eq!(doors.browse(link.path()).await.name(), "already-used");
        assert_eq!(come_back(&doors, &state).await.name(), "already-used");
        let answered = flow_of(complete(&doors, completion(&back, &code, "alice")).await);
        assert!(answered.status() == FlowStatus::Cancelled);
        nothing_came_of_it(&doors, "alice").await;
        // Others' go on, and so does what is begun after.
        let (state, who) = if user.is_some() {
            (bobs_state, "bob")
        } else {
            assert_eq!(come_back(&doors, &bobs_state).await.name(), "already-used");
            nothing_came_of_it(&doors, "bob").await;
            let new = begin(&doors, "alice", ConsentBinding::Confirm).await;
            (doors.confirm(&new).await, "alice")
        };
        doors.provider.push(Reply::tokens("at-1", "rt-1"));
        doors.provider.push_at("/userinfo", Reply::status(500));
        assert_eq!(come_back(&doors, &state).await.name(), "connected");
        assert_eq!(token(&doors, who).await.as_deref(), Some("at-1"));
    }
}

/// The code is at the provider when the glass is broken: what comes of it is nobody's, and is revoked there.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_under_way_stores_nothing_and_its_tokens_are_revoked() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let state = state_in(&doors.first_stop(&flow).await);
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-1", "rt-1").held_by(&gate));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let meanwhile = async {
        while doors.provider.requests_at("/token").is_empty() {
            tokio::task::yield_now().await;
        }
        let done = break_glass(&doors, Some("alice")).await;
        assert_eq!(done, BrokenGlass { revoked: 0, cancelled_flows: 1, more: false });
        gate.release();
    };
    let (page, ()) = tokio::join!(come_back(&doors, &state), meanwhile);
    assert_eq!(page.name(), "already-used", "{}", page.html);
    doors.settle().await;
    assert_ended(&doors, &flow, FlowStatus::Cancelled, "").await;
    assert_eq!(token(&doors, "alice").await, None);
    let revoked = doors.provider.requests_at("/revoke");
    assert_eq!(revoked[0].param("token").as_deref(), Some("rt-1"));
}

/// The consent ended before: its credential is among those that are revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_completed_before_is_revoked() {
    let doors = Doors::open().await;
    doors.connect(super::AGENT, "alice", "at-1", "rt-1").await;
    let pending = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let done = break_glass(&doors, Some("alice")).await;
    assert_eq!(done, BrokenGlass { revoked: 1, cancelled_flows: 1, more: false });
    assert_ended(&doors, &pending, FlowStatus::Cancelled, "").await;
    assert_eq!(token(&doors, "alice").await, None);
}
