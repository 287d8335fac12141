//! A watch that runs goes by the rights of now: it ends with them, and shows nothing that they do not cover.

use std::sync::Arc;
use std::time::Duration;

use token_broker::application::error::{BrokerError, Unavailable};
use token_broker::application::types::{WatchInput, WatchMessage};
use token_broker::application::{Identified, Watch, WatchSettings};
use token_broker::domain::access_policy::{Action, Allowed, Caller, Principal, Suspension, UserRule};
use token_broker::domain::key::{CallerId, TenantId, UserId};

use crate::support::one_caller::{Down, OneCaller, Says};
use crate::support::rig::{Rig, RigOptions, all_but, caller, rights, rule, user_service};

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// On the test's clock; the watch looks at that clock as often in real time.
const RECHECK: Duration = Duration::from_millis(5);

struct Stage {
    rig: Rig,
    directory: Arc<OneCaller>,
}

impl Stage {
    async fn new() -> Self {
        let never = Duration::from_secs(3_600);
        let watches = WatchSettings { per_caller: 3, poll: never, progress: never, recheck: RECHECK };
        let rig = Rig::with(RigOptions { watches, ..RigOptions::default() }).await;
        Self { rig, directory: Arc::new(OneCaller::of(&caller("agents"))) }
    }

    async fn watch(&self, principal: Principal, user: Option<&str>, cursor: Option<&str>) -> (Watch, String) {
        let input =
            WatchInput { user: user.map(|id| UserId::new(id).unwrap()), cursor: cursor.map(str::to_owned) };
        let identified = Identified::new(self.directory.clone(), OneCaller::IDENTITY);
        let mut watch =
            self.rig.broker.watch_credentials(&Arc::new(principal), identified, input).await.unwrap();
        let first = watch.next().await.unwrap();
        (watch, first.cursor)
    }

    async fn import(&self, users: &[&str]) {
        for user in users {
            let mut input = self.rig.import_input();
            (input.key, input.overwrite) = (user_service(user, "mail"), true);
            self.rig.broker.import_credential(&self.rig.caller, input).await.unwrap();
        }
    }

    /// The time at which the watch asks again who it is.
    fn later(&self) {
        self.rig.clock.advance(RECHECK);
    }
}

fn only(users: &[&str]) -> Principal {
    let mut principal = caller("agents");
    let users = users.iter().map(|id| UserRule::Exact(UserId::new(*id).unwrap()));
    rule(&mut principal).users = Allowed::Only(users.collect());
    principal
}

fn of(principal: Principal) -> Caller {
    Arc::unwrap_or_clone(principal.caller)
}

async fn next(watch: &mut Watch) -> Result<WatchMessage, BrokerError> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("it goes on or ends in time")
}

async fn user(watch: &mut Watch) -> String {
    next(watch).await.unwrap().event.expect("an event").event.told.key.user.to_string()
}

#[tokio::test]
async fn a_watch_without_events_ends_with_its_rights() {
    type Expected = fn(&BrokerError) -> bool;
    let mut no_watches = caller("agents");
    rule(&mut no_watches).actions = all_but(Action::WatchCredentials);
    let mut elsewhere = caller("agents");
    rights(&mut elsewhere).tenant = TenantId::new("tenant-b").unwrap();
    let mut other = caller("agents");
    rights(&mut other).id = CallerId::new("other").unwrap();
    let suspended = |why| Ok(Some(Caller { suspension: Some(why), ..of(caller("agents")) }));
    let denied: Expected = |error| matches!(error, BrokerError::PermissionDenied);
    let unknown: Expected = |error| matches!(error, BrokerError::NotKnownAnyMore);
    let cases: [(&str, Says, Expected); 8] = [
        ("the caller is deleted, its key revoked or over", Ok(None), unknown),
        ("the identity is another caller's", Ok(Some(of(other))), unknown),
        ("the identity is another tenant's", Ok(Some(of(elsewhere))), unknown),
        ("the caller is disabled", suspended(Suspension::Caller), |error| {
            matches!(error, BrokerError::Suspended(Suspension::Caller))
        }),
        ("the tenant is disabled", suspended(Suspension::Tenant), |error| {
            matches!(error, BrokerError::Suspended(Suspension::Tenant))
        }),
        ("it may not watch any more", Ok(Some(of(no_watches))), denied),
        ("it may not watch this user any more", Ok(Some(of(only(&["bob"])))), denied),
        ("nobody can say", Err(Down), |error| {
            matches!(error, BrokerError::Unavailable { what: Unavailable::Storage, .. })
        }),
    ];
    for (what, says, expected) in cases {
        let stage = Stage::new().await;
        let (mut watch, _) = stage.watch(caller("agents"), Some("alice"), None).await;
        stage.directory.say(says);
        // What it knows is good for so long, and it waits.
        let waiting = futures_util::future::poll_immediate(watch.next()).await;
        assert!(waiting.is_none() && stage.directory.asked() == 0, "{what}");
        stage.later();
        let error = next(&mut watch).await.unwrap_err();
        assert!(expected(&error), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn what_was_read_is_shown_by_the_rights_of_now() {
    let stage = Stage::new().await;
    let (_, start) = stage.watch(caller("agents"), None, None).await;
    stage.import(&["alice", "bob", "alice", "carol", "bob", "alice"]).await;
    let (mut watch, _) = stage.watch(caller("agents"), None, Some(&start)).await;
    // All are read with the first.
    assert_eq!(user(&mut watch).await, "alice");
    stage.directory.say(Ok(Some(of(only(&["bob"])))));
    assert_eq!(user(&mut watch).await, "bob", "as was known");
    stage.later();
    assert_eq!(user(&mut watch).await, "bob", "neither alice nor carol");
    stage.import(&["alice", "carol", "bob"]).await;
    assert_eq!(user(&mut watch).await, "bob");
}

#[tokio::test]
async fn rights_that_grow_count_as_well() {
    let stage = Stage::new().await;
    let (mut watch, _) = stage.watch(only(&["bob"]), None, None).await;
    stage.import(&["alice", "bob"]).await;
    assert_eq!(user(&mut watch).await, "bob");
    stage.directory.say(Ok(Some(of(caller("agents")))));
    stage.later();
    stage.import(&["alice"]).await;
    assert_eq!(user(&mut watch).await, "alice");
}

#[tokio::test]
async fn events_do_not_ask_who_watches() {
    let stage = Stage::new().await;
    let (_, start) = stage.watch(caller("agents"), None, None).await;
    let names: Vec<_> = (0..150).map(|n| format!("user{n:03}")).collect();
    stage.import(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut watch, _) = stage.watch(caller("agents"), None, Some(&start)).await;
    for (seen, name) in names.iter().enumerate() {
        if seen == 75 {
            stage.later();
        }
        assert_eq!(user(&mut watch).await, *name);
    }
    assert_eq!(stage.directory.asked(), 1, "once, since time has passed once");
}
