//! AcquireLease, RenewLease, ReleaseLease, and what waits for leases.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::SignedDuration;
use token_broker::application::LeaseGate;
use token_broker::application::error::{BrokerError, LostLease, Precondition};
use token_broker::application::types::{
    AccessGrant, AcquireInput, ConsentReason, LeaseAnswer, LeaseTarget, LeaseView, RenewInput, ServiceKey,
};
use token_broker::domain::access_policy::Action;
use token_broker::domain::coordination::LeaseStore as _;
use token_broker::domain::key::LeaseId;

use token_broker::domain::provider::Provider;
use token_broker::domain::refresh_policy::Demand;
use token_broker::domain::scope::ScopeSet;

use crate::support::rig::{Rig, RigOptions, all_but, caller, rights, row_key, rule, service, user_service};

const MINUTE: Duration = Duration::from_secs(60);

/// At a provider where a refresh ends the token before.
async fn rig() -> Rig {
    Rig::with(RigOptions { kills_access: true, ..RigOptions::default() }).await
}

fn input(key: ServiceKey, ttl: Option<Duration>) -> AcquireInput {
    AcquireInput { key, ttl, scopes: ScopeSet::default(), min_ttl: Duration::ZERO, time_left: None }
}

impl Rig {
    async fn acquire(&self, ttl: Duration) -> (Box<AccessGrant>, LeaseView) {
        match self.broker.acquire_lease(&self.caller, input(service("mail"), Some(ttl))).await.unwrap() {
            LeaseAnswer::Leased { grant, lease } => (grant, lease),
            LeaseAnswer::AuthorizationRequired(required) => panic!("{required:?}"),
        }
    }

    async fn renew(&self, id: LeaseId, ttl: Duration) -> Result<(Box<AccessGrant>, LeaseView), BrokerError> {
        self.renew_of(service("mail"), id, ttl).await
    }

    async fn renew_of(
        &self,
        key: ServiceKey,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<(Box<AccessGrant>, LeaseView), BrokerError> {
        let lease = LeaseTarget { key, lease };
        self.broker.renew_lease(&self.caller, RenewInput { lease, ttl: Some(ttl), time_left: None }).await
    }

    async fn release(&self, lease: LeaseId) -> bool {
        let target = LeaseTarget { key: service("mail"), lease };
        self.broker.release_lease(&self.caller, target).await.unwrap()
    }

    fn acme(&self) -> std::sync::Arc<Provider> {
        let id = row_key("mail").provider;
        self.providers.configured().into_iter().find(|provider| provider.id == id).unwrap()
    }

    /// What a refresh that begins now would be told.
    async fn gate(&self, demand: Demand) -> LeaseGate {
        self.broker.leases_allow(&self.acme(), &self.row().await, demand).await
    }

    fn lasts(&self, lease: &LeaseView) -> Duration {
        Duration::try_from(lease.expires_at.duration_since(self.now())).unwrap()
    }
}

fn lost(answer: Result<(Box<AccessGrant>, LeaseView), BrokerError>) -> LostLease {
    match answer {
        Err(BrokerError::FailedPrecondition(Precondition::LeaseLost(why))) => why,
        other => panic!("it should be lost: {other:?}"),
    }
}

#[tokio::test]
async fn five_executors_share_a_lease_at_once() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let five = futures_util::future::join_all((0..5).map(|_| rig.acquire(MINUTE))).await;
    let token = rig.token().await;
    let mut ids = std::collections::BTreeSet::new();
    for (grant, lease) in &five {
        assert_eq!(grant.access_token.expose_secret(), token.access_token.expose_secret());
        assert_eq!((rig.lasts(lease), lease.capped, lease.unprotected), (MINUTE, false, false));
        ids.insert(lease.id);
    }
    assert_eq!(ids.len(), 5);
    assert_eq!(rig.leases.count(rig.row().await.id).await.unwrap(), 5);
    for (left, (_, lease)) in (0..5).rev().zip(&five) {
        assert!(rig.release(lease.id).await);
        assert!(!rig.release(lease.id).await, "once only");
        assert_eq!(rig.leases.count(rig.row().await.id).await.unwrap(), left);
    }
}

#[tokio::test]
async fn a_lease_has_a_default_and_a_longest_time_and_ends_with_its_token() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let answer = rig.broker.acquire_lease(&rig.caller, input(service("mail"), None)).await.unwrap();
    let LeaseAnswer::Leased { lease, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(rig.lasts(&lease), MINUTE);
    let (_, lease) = rig.acquire(Duration::from_secs(3_000)).await;
    assert_eq!(rig.lasts(&lease), 10 * MINUTE);
    // The token has four minutes to live, one of which is margin.
    let end = rig.token().await.expires_at.unwrap();
    let left = end.duration_since(rig.now()) - SignedDuration::from_secs(240);
    rig.clock.advance(Duration::try_from(left).unwrap());
    let margin = rig.acme().refresh.expiry_margin;
    // It is nearly due: the refresh behind the reader must not win the race.
    let down = token_broker::domain::ports::ProviderFailure::NotSent;
    rig.provider.next_refresh(crate::support::strict_provider::Script::Fail(down));
    let (_, lease) = rig.acquire(10 * MINUTE).await;
    assert_eq!(rig.lasts(&lease) + margin, Duration::from_secs(240));
    rig.settle().await;
}

#[tokio::test]
async fn a_user_who_has_not_consented_is_asked_to() {
    let rig = rig().await;
    let answer = rig.broker.acquire_lease(&rig.caller, input(service("mail"), None)).await.unwrap();
    let LeaseAnswer::AuthorizationRequired(required) = answer else { panic!("{answer:?}") };
    assert_eq!(required.reason, ConsentReason::NotConnected);
    let unknown = LeaseId::from_random([3; 16]);
    assert_eq!(lost(rig.renew(unknown, MINUTE).await), LostLease::NoToken(ConsentReason::NotConnected));
    assert!(!rig.release(unknown).await);
}

#[tokio::test]
async fn renewing_answers_the_newer_token() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (grant, lease) = rig.acquire(MINUTE).await;
    rig.clock.advance(MINUTE / 2);
    let (same, renewed) = rig.renew(lease.id, MINUTE).await.unwrap();
    assert_eq!((same.generation, renewed.id), (grant.generation, lease.id));
    assert_eq!(rig.lasts(&renewed), MINUTE);
    // Somebody got a 401: that refresh waits for nobody.
    rig.refresh(grant.generation).await.unwrap();
    let (newer, _) = rig.renew(lease.id, MINUTE).await.unwrap();
    assert_eq!(newer.generation, grant.generation + 1);
    assert_ne!(newer.access_token.expose_secret(), grant.access_token.expose_secret());
    rig.clock.advance(MINUTE);
    assert_eq!(lost(rig.renew(lease.id, MINUTE).await), LostLease::Ended);
}

#[tokio::test]
async fn a_waiting_refresh_caps_leases_and_the_drain_is_bounded() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::Go);
    rig.broker.leases_settled(&rig.acme(), rig.row().await.id).await;
    let (_, long) = rig.acquire(2 * MINUTE).await;
    let (_, short) = rig.acquire(MINUTE).await;
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::WaitFor(2 * MINUTE));
    // Readers still get leases, none of which goes beyond the longest; nor does renewing.
    let (_, late) = rig.acquire(10 * MINUTE).await;
    assert!(late.capped && rig.lasts(&late) == 2 * MINUTE);
    let (_, renewed) = rig.renew(short.id, 10 * MINUTE).await.unwrap();
    assert!(renewed.capped && rig.lasts(&renewed) == 2 * MINUTE);
    let mut waited = Duration::ZERO;
    for _ in 0..4 {
        rig.clock.advance(MINUTE / 2);
        waited += MINUTE / 2;
        for id in [long.id, short.id, late.id] {
            let _ = rig.renew(id, 10 * MINUTE).await;
        }
        match rig.gate(Demand::Ahead).await {
            LeaseGate::WaitFor(left) => assert_eq!(left + waited, 2 * MINUTE),
            LeaseGate::Go => break,
        }
    }
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::Go);
    assert_eq!(waited, 2 * MINUTE, "as long as the longest lease at its beginning, and no longer");
    rig.broker.leases_settled(&rig.acme(), rig.row().await.id).await;
    let (_, after) = rig.acquire(3 * MINUTE).await;
    assert!(!after.capped && rig.lasts(&after) == 3 * MINUTE);
}

#[tokio::test]
async fn a_released_lease_ends_the_wait() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (_, lease) = rig.acquire(2 * MINUTE).await;
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::WaitFor(2 * MINUTE));
    rig.release(lease.id).await;
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::Go);
}

#[tokio::test]
async fn a_refresh_that_does_not_come_about_leaves_no_cap() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    // Nearly due, and alive.
    rig.clock.advance(Duration::from_secs(3600 - 200));
    let faults: [&dyn Fn(); 2] =
        [&|| rig.faults.claim.store(1, Ordering::SeqCst), &|| rig.provider.undiscoverable(true)];
    for fail in faults {
        fail();
        // It has a token, and starts a refresh behind its back.
        rig.token().await;
        rig.settle().await;
        assert!(rig.provider.presented().is_empty());
        assert_eq!(rig.faults.claim.load(Ordering::SeqCst), 0, "it had come that far");
        let lease = LeaseId::from_random([7; 16]);
        let term = rig.leases.acquire(rig.row().await.id, lease, MINUTE).await.unwrap();
        assert!(term.is_some_and(|term| !term.capped));
        assert!(rig.release(lease).await);
    }
}

#[tokio::test]
async fn leases_hold_up_no_refresh_that_takes_nothing_from_anybody() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    rig.acquire(10 * MINUTE).await;
    let generation = rig.row().await.generation;
    assert_eq!(rig.gate(Demand::NewerThan(generation)).await, LeaseGate::Go, "a 401 was reported");
    assert_eq!(rig.gate(Demand::ValidFor(MINUTE)).await, LeaseGate::WaitFor(10 * MINUTE));
    rig.expire_token();
    assert_eq!(rig.gate(Demand::ValidFor(MINUTE)).await, LeaseGate::Go, "the token has expired");

    let harmless = Rig::new().await;
    harmless.connect(&["mail"]).await;
    harmless.acquire(10 * MINUTE).await;
    assert_eq!(harmless.gate(Demand::Ahead).await, LeaseGate::Go, "the old token lives on");
    let (_, lease) = harmless.acquire(MINUTE).await;
    assert!(!lease.capped);
}

#[tokio::test]
async fn revoke_is_refused_while_leases_run_and_force_ends_them() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (_, one) = rig.acquire(MINUTE).await;
    let (_, two) = rig.acquire(2 * MINUTE).await;
    let refused = rig.broker.revoke(&rig.caller, service("mail"), false).await;
    let leased = Precondition::Leased { leases: 2 };
    assert!(matches!(refused, Err(BrokerError::FailedPrecondition(why)) if why == leased), "{refused:?}");
    assert_eq!(rig.token().await.generation, 1, "nothing happened");
    assert!(rig.broker.revoke(&rig.caller, service("mail"), true).await.unwrap().deleted);
    for lease in [one, two] {
        assert_eq!(lost(rig.renew(lease.id, MINUTE).await), LostLease::NoToken(ConsentReason::Revoked));
    }
    // A new consent revives none of them.
    rig.connect(&["mail"]).await;
    assert_eq!(lost(rig.renew(one.id, MINUTE).await), LostLease::Ended);
    // None is running: no force is needed.
    assert!(rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap().deleted);
}

#[tokio::test]
async fn a_grant_that_the_provider_ends_is_a_lost_lease_with_its_reason() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (_, lease) = rig.acquire(10 * MINUTE).await;
    rig.provider.end_all_grants();
    rig.refresh(1).await.unwrap();
    let why = lost(rig.renew(lease.id, MINUTE).await);
    assert_eq!(why, LostLease::NoToken(ConsentReason::RefreshTokenRejected));
}

#[tokio::test]
async fn a_lease_id_is_good_for_its_own_key_alone() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    rig.connect(&["admin"]).await;
    let (_, lease) = rig.acquire(MINUTE).await;
    assert_eq!(lost(rig.renew_of(service("admin"), lease.id, MINUTE).await), LostLease::Ended);
    let of_admin = LeaseTarget { key: service("admin"), lease: lease.id };
    assert!(!rig.broker.release_lease(&rig.caller, of_admin).await.unwrap());
    let of_bob = LeaseTarget { key: user_service("bob", "mail"), lease: lease.id };
    assert!(!rig.broker.release_lease(&rig.caller, of_bob).await.unwrap());
    let mut rival = caller("rival");
    rights(&mut rival).tenant = token_broker::domain::key::TenantId::new("tenant-b").unwrap();
    let of_alice = LeaseTarget { key: service("mail"), lease: lease.id };
    assert!(!rig.broker.release_lease(&rival, of_alice).await.unwrap());
    assert!(rig.renew(lease.id, MINUTE).await.is_ok(), "it is still there");
    // The services of one grant have one token, and one lease of it.
    assert!(rig.renew_of(service("files"), lease.id, MINUTE).await.is_err(), "files was not granted");
}

#[tokio::test]
async fn without_the_lease_store_there_are_tokens_all_the_same() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (_, before) = rig.acquire(MINUTE).await;
    rig.leases.down.store(true, Ordering::SeqCst);
    let (grant, lease) = rig.acquire(MINUTE).await;
    assert!(lease.unprotected && !lease.capped && rig.lasts(&lease) == MINUTE);
    assert_eq!(grant.generation, 1);
    let (_, renewed) = rig.renew(before.id, MINUTE).await.unwrap();
    assert!(renewed.unprotected);
    assert!(!rig.release(before.id).await);
    assert_eq!(rig.gate(Demand::Ahead).await, LeaseGate::Go);
    // It comes back and has never heard of the lease.
    rig.leases.down.store(false, Ordering::SeqCst);
    assert_eq!(lost(rig.renew(lease.id, MINUTE).await), LostLease::Ended);
    rig.leases.down.store(true, Ordering::SeqCst);
    assert!(rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap().deleted);
}

#[tokio::test]
async fn each_call_needs_its_own_permission() {
    let rig = rig().await;
    rig.connect(&["mail"]).await;
    let (_, lease) = rig.acquire(MINUTE).await;
    let without = |action: Action| {
        let mut caller = caller("limited");
        rule(&mut caller).actions = all_but(action);
        caller
    };
    let acquire =
        rig.broker.acquire_lease(&without(Action::AcquireLease), input(service("mail"), None)).await;
    assert!(matches!(acquire, Err(BrokerError::PermissionDenied)), "{acquire:?}");
    let target = LeaseTarget { key: service("mail"), lease: lease.id };
    let renew = RenewInput { lease: target.clone(), ttl: None, time_left: None };
    let renew = rig.broker.renew_lease(&without(Action::RenewLease), renew).await;
    assert!(matches!(renew, Err(BrokerError::PermissionDenied)), "{renew:?}");
    let release = rig.broker.release_lease(&without(Action::ReleaseLease), target).await;
    assert!(matches!(release, Err(BrokerError::PermissionDenied)), "{release:?}");
}
