//! WatchCredentials: who sees what, from where, and how a watch is bounded.

use std::sync::Arc;
use std::time::Duration;

use token_broker::application::error::{BrokerError, Limit, Precondition};
use token_broker::application::types::{ConsentInput, EventView, WatchInput};
use token_broker::application::{Identified, Watch, WatchSettings};
use token_broker::domain::access_policy::{Action, Allowed, Prefix, Principal, UserRule};
use token_broker::domain::event::{Change, EventStore as _, Standing};
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::key::{ProviderId, TenantId, UserId};

use crate::support::one_caller::OneCaller;
use crate::support::rig::{Rig, RigOptions, all_but, caller, ids, rights, rule, service, user_service};

fn from(cursor: Option<&str>) -> WatchInput {
    WatchInput { user: None, cursor: cursor.map(str::to_owned) }
}

fn prefix(text: &str) -> UserRule {
    UserRule::Prefix(Prefix::new(text).unwrap())
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Never looks and never reports by itself within a test: what comes was told.
fn patient() -> WatchSettings {
    let never = Duration::from_secs(3_600);
    WatchSettings { per_caller: 3, poll: never, progress: never, recheck: never }
}

async fn patient_rig() -> Rig {
    Rig::with(RigOptions { watches: patient(), ..RigOptions::default() }).await
}

impl Rig {
    async fn watch_as(&self, caller: Principal, input: WatchInput) -> Result<Watch, BrokerError> {
        let caller = Arc::new(caller);
        let directory = Arc::new(OneCaller::of(&caller));
        self.broker.watch_credentials(&caller, Identified::new(directory, OneCaller::IDENTITY), input).await
    }

    /// From a cursor on, behind the first message. Answers the watch and that message's cursor.
    async fn watch(&self, cursor: Option<&str>) -> (Watch, String) {
        let mut watch = self.watch_as(caller("agents"), from(cursor)).await.unwrap();
        let first = watch.next().await.unwrap();
        assert!(first.event.is_none());
        (watch, first.cursor)
    }

    async fn import(&self, user_id: &str) {
        let mut input = self.import_input();
        input.key = user_service(user_id, "mail");
        input.overwrite = true;
        self.broker.import_credential(&self.caller, input).await.unwrap();
    }
}

async fn event(watch: &mut Watch) -> (EventView, String) {
    let message = tokio::time::timeout(PATIENCE, watch.next()).await.expect("there is an event").unwrap();
    (message.event.expect("an event"), message.cursor)
}

async fn changes(watch: &mut Watch, count: usize) -> Vec<Change> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(event(watch).await.0.event.told.change);
    }
    all
}

async fn users(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(event(watch).await.0.event.told.key.user.to_string());
    }
    all
}

#[tokio::test]
async fn a_whole_life_is_told_as_it_happens() {
    let rig = patient_rig().await;
    let (mut watch, _) = rig.watch(None).await;
    let begun = rig.begin(&["mail"]).await.unwrap();
    rig.come_back(&begun).await;
    let (connected, _) = event(&mut watch).await;
    let Change::Connected { was: Standing::NotConnected, generation: 1, flow: Some(flow) } =
        connected.event.told.change
    else {
        panic!("{connected:?}")
    };
    assert_eq!((flow.id, ids(&connected.services)), (begun.id, vec!["files", "mail"]));
    let ended = changes(&mut watch, 1).await.remove(0);
    assert!(matches!(ended, Change::FlowEnded { is: FlowStatus::Completed, .. }), "{ended:?}");
    // A refresh is nobody's business.
    rig.refresh(1).await.unwrap();
    rig.provider.end_all_grants();
    rig.refresh(2).await.unwrap();
    rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap();
    rig.import("alice").await;
    let told = changes(&mut watch, 3).await;
    assert!(
        matches!(told[0], Change::NeedsReauth { was: Standing::Connected, generation: 2, .. }),
        "{told:?}"
    );
    assert_eq!(told[1], Change::Revoked { was: Standing::NeedsReauth, generation: 2 });
    assert_eq!(told[2], Change::Connected { was: Standing::Revoked, generation: 3, flow: None });
}

#[tokio::test]
async fn consents_that_fail_are_told_with_their_client_state() {
    let rig = patient_rig().await;
    let (mut watch, _) = rig.watch(None).await;
    let mut ask = crate::support::rig::get_input("mail");
    ask.begin_if_missing =
        Some(ConsentInput { client_state: Some("chat-7".to_owned()), ..ConsentInput::default() });
    let flow = crate::support::rig::required(rig.ask(ask.clone()).await).flow.unwrap();
    let mut denied = rig.callback(&flow).await;
    (denied.answer.code, denied.answer.error) = (None, Some("user_said_no".to_owned()));
    rig.take(denied).await;
    let told = changes(&mut watch, 1).await.remove(0);
    let Change::FlowEnded { flow: cause, was: FlowStatus::Pending, is: FlowStatus::Denied } = told else {
        panic!("{told:?}")
    };
    assert_eq!((cause.id, cause.client_state.as_deref()), (flow.id, Some("chat-7")));
    let flow = crate::support::rig::required(rig.ask(ask).await).flow.unwrap();
    rig.broker.cancel_flow(&rig.caller, flow.id).await.unwrap();
    let told = changes(&mut watch, 1).await.remove(0);
    assert!(matches!(told, Change::FlowEnded { is: FlowStatus::Cancelled, .. }), "{told:?}");
}

#[tokio::test]
async fn a_watch_goes_on_behind_any_of_its_cursors() {
    let rig = patient_rig().await;
    let (_, start) = rig.watch(None).await;
    for name in ["a", "b", "c"] {
        rig.import(name).await;
    }
    let (mut watch, _) = rig.watch(Some(&start)).await;
    let mut cursors = vec![start];
    for expected in ["a", "b", "c"] {
        let (view, cursor) = event(&mut watch).await;
        assert_eq!(view.event.told.key.user, user(expected));
        cursors.push(cursor);
    }
    drop(watch);
    for (seen, cursor) in cursors.iter().enumerate() {
        let (mut watch, _) = rig.watch(Some(cursor)).await;
        rig.import("last").await;
        let mut rest = vec!["a", "b", "c"].split_off(seen);
        rest.extend(std::iter::repeat_n("last", seen + 1));
        assert_eq!(users(&mut watch, rest.len()).await, rest, "{seen}");
    }
}

#[tokio::test]
async fn pages_are_told_to_the_last_event() {
    let rig = patient_rig().await;
    let (mut watch, _) = rig.watch(None).await;
    let names: Vec<_> = (0..150).map(|n| format!("user{n:03}")).collect();
    for name in &names {
        rig.import(name).await;
    }
    assert_eq!(users(&mut watch, names.len()).await, names);
}

#[tokio::test]
async fn nobody_sees_what_its_rights_do_not_cover() {
    let rig = patient_rig().await;
    let (_, start) = rig.watch(None).await;
    for name in ["alice", "bob", "team-a/carol", "alice", "bob"] {
        rig.import(name).await;
    }
    let limited = |users: &[UserRule]| {
        let mut limited = caller("limited");
        rule(&mut limited).users = Allowed::Only(users.iter().cloned().collect());
        limited
    };
    let exact = |name: &str| UserRule::Exact(user(name));
    for (caller, expected) in [
        (limited(&[exact("bob")]), vec!["bob", "bob"]),
        (limited(&[exact("bob"), prefix("team-a/")]), vec!["bob", "team-a/carol", "bob"]),
        (caller("unlimited"), vec!["alice", "bob", "team-a/carol", "alice", "bob"]),
    ] {
        let mut watch = rig.watch_as(caller, from(Some(&start))).await.unwrap();
        watch.next().await.unwrap();
        assert_eq!(users(&mut watch, expected.len()).await, expected);
        // And no more: the next that comes is the next that happens.
        rig.import("bob").await;
        assert_eq!(users(&mut watch, 1).await, ["bob"]);
    }
    let mut of_alice = WatchInput { user: Some(user("alice")), ..from(Some(&start)) };
    let mut watch = rig.watch_as(caller("agents"), of_alice.clone()).await.unwrap();
    watch.next().await.unwrap();
    assert_eq!(users(&mut watch, 2).await, ["alice", "alice"]);
    drop(watch);

    let mut elsewhere = caller("elsewhere");
    rule(&mut elsewhere).providers = Allowed::Only([ProviderId::new("other").unwrap()].into());
    let mut rival = caller("rival");
    rights(&mut rival).tenant = TenantId::new("tenant-b").unwrap();
    for stranger in [elsewhere, rival] {
        let mut watch = rig.watch_as(stranger, from(Some(&start))).await.unwrap();
        watch.next().await.unwrap();
        // It reads past everything; nothing is left to be found.
        let silence = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
        assert!(silence.is_err(), "{silence:?}");
    }
    let mut powerless = caller("powerless");
    rule(&mut powerless).actions = all_but(Action::WatchCredentials);
    of_alice.cursor = None;
    for (caller, input) in
        [(powerless, from(None)), (limited(&[]), from(None)), (limited(&[exact("bob")]), of_alice)]
    {
        let refused = rig.watch_as(caller, input).await.err();
        assert!(matches!(refused, Some(BrokerError::PermissionDenied)), "{refused:?}");
    }
}

#[tokio::test]
async fn progress_moves_the_cursor_past_what_others_see() {
    let watches = WatchSettings { progress: Duration::from_millis(1), ..WatchSettings::default() };
    let rig = Rig::with(RigOptions { watches, ..RigOptions::default() }).await;
    let mut limited = caller("limited");
    rule(&mut limited).users = Allowed::Only([prefix("bob")].into());
    let mut watch = rig.watch_as(limited.clone(), from(None)).await.unwrap();
    let first = watch.next().await.unwrap().cursor;
    rig.import("alice").await;
    let read_past = rig.store.newest_position().await.unwrap();
    let cursor = loop {
        let message = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        assert!(message.event.is_none());
        if message.cursor != first {
            break message.cursor;
        }
    };
    // The events up to there are deleted; the cursor is none the worse.
    rig.store
        .delete_events_before(rig.now().checked_add(jiff::SignedDuration::from_secs(1)).unwrap(), 10)
        .await
        .unwrap();
    assert_eq!(rig.store.newest_position().await.unwrap(), read_past);
    let mut watch = rig.watch_as(limited, from(Some(&cursor))).await.unwrap();
    watch.next().await.unwrap();
    rig.import("bob").await;
    loop {
        let message = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        if let Some(view) = message.event {
            assert_eq!(view.event.told.key.user, user("bob"));
            break;
        }
    }
}

#[tokio::test]
async fn old_cursors_and_those_of_another_database_are_told_so() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let rig = patient_rig().await;
    let (_, cursor) = rig.watch(None).await;
    rig.import("alice").await;
    let (_, newer) = rig.watch(None).await;
    let other = patient_rig().await;
    let expired = |answer: Result<Watch, BrokerError>| {
        let error = answer.err();
        assert!(
            matches!(error, Some(BrokerError::FailedPrecondition(Precondition::CursorExpired))),
            "{error:?}"
        );
    };
    expired(other.watch_as(caller("agents"), from(Some(&newer))).await);
    // Sweeping takes nothing from a cursor that still works.
    rig.clock.advance(7 * DAY);
    rig.broker.sweep().await;
    let (mut watch, _) = rig.watch(Some(&cursor)).await;
    assert_eq!(users(&mut watch, 1).await, ["alice"]);
    drop(watch);
    rig.clock.advance(Duration::from_secs(1));
    expired(rig.watch_as(caller("agents"), from(Some(&cursor))).await);
    rig.clock.advance(DAY);
    rig.broker.sweep().await;
    assert_eq!(rig.store.delete_events_before(rig.now(), 10).await.unwrap(), 0, "the sweep has done it");
    let malformed = rig.watch_as(caller("agents"), from(Some("no-cursor"))).await.err();
    assert!(matches!(malformed, Some(BrokerError::InvalidArgument(_))), "{malformed:?}");
}

#[tokio::test]
async fn a_caller_has_so_many_watches_and_no_more() {
    let rig = patient_rig().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(rig.watch_as(caller("agents"), from(None)).await.unwrap());
    }
    let refused = rig.watch_as(caller("agents"), from(None)).await.err();
    let limit = |error: &Option<BrokerError>| {
        matches!(error, Some(BrokerError::ResourceExhausted { limit: Limit::Watches, .. }))
    };
    assert!(limit(&refused), "{refused:?}");
    // Another caller has its own; one that ends makes room.
    assert!(rig.watch_as(caller("others"), from(None)).await.is_ok());
    open.pop();
    assert!(rig.watch_as(caller("agents"), from(None)).await.is_ok());
}

#[tokio::test]
async fn a_missed_word_is_made_up_for_by_looking() {
    let watches = WatchSettings { poll: Duration::from_millis(20), ..patient() };
    let rig = Rig::with(RigOptions { watches, deaf: true, ..RigOptions::default() }).await;
    let (mut watch, _) = rig.watch(None).await;
    rig.import("alice").await;
    assert_eq!(users(&mut watch, 1).await, ["alice"]);
}

#[tokio::test]
async fn a_database_that_fails_ends_the_watch_with_an_error() {
    let rig = patient_rig().await;
    let (mut watch, _) = rig.watch(None).await;
    rig.store.close().await;
    let error = watch.next().await.err();
    assert!(matches!(error, Some(BrokerError::Unavailable { .. })), "{error:?}");
}
