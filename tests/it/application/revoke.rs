//! Gone here at once, and in the end at the provider.

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::{BrokerError, Unavailable};
use token_broker::application::types::{ConsentReason, ProviderRevocation, RevokeAnswer};
use token_broker::domain::ports::{OutboxStore as _, ProviderFailure};
use token_broker::domain::provider::Revocation;

use crate::support::rig::{Rig, RigOptions, ids, service, token};

async fn revoke(rig: &Rig) -> RevokeAnswer {
    rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap()
}

#[tokio::test]
async fn revoke_ends_the_grant_here_and_there() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let access = rig.token().await.access_token;
    rig.begin(&["files"]).await.unwrap();
    let answer = revoke(&rig).await;
    assert!(answer.deleted);
    assert_eq!(answer.provider, Some(ProviderRevocation::Revoked));
    assert_eq!(ids(&answer.services), ["mail"], "what was connected, not all that could have been");
    assert_eq!(answer.cancelled_flows, 1);
    assert!(!rig.provider.accepts(&access));
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
    assert!(rig.row().await.tokens().is_none());
    let again = revoke(&rig).await;
    assert_eq!((again.deleted, again.provider, again.cancelled_flows), (false, None, 0));
    assert_eq!(rig.provider.revocations(), 1);
}

#[tokio::test]
async fn revoking_nothing_is_no_error() {
    let rig = Rig::new().await;
    let answer = revoke(&rig).await;
    assert_eq!((answer.deleted, answer.provider), (false, None));
    assert!(answer.services.is_empty());
    assert_eq!(rig.required().await.reason, ConsentReason::NotConnected);
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_later() {
    for failure in [
        ProviderFailure::NotSent,
        ProviderFailure::Ambiguous,
        ProviderFailure::RateLimited { retry_after: None },
        ProviderFailure::ClientRejected,
    ] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        for _ in 0..3 {
            rig.provider.next_revocation_fails(failure);
        }
        assert_eq!(revoke(&rig).await.provider, Some(ProviderRevocation::Pending));
        assert_eq!(rig.required().await.reason, ConsentReason::Revoked, "here it is gone at once");
        for (seconds, attempts) in [(0, 1), (1, 2), (2, 3), (4, 4)] {
            rig.clock.advance(Duration::from_secs(seconds));
            rig.broker.sweep().await;
            rig.settle().await;
            assert_eq!(rig.provider.revocations(), attempts, "{failure:?} after {seconds} s");
        }
        assert_eq!(rig.provider.live_grants(), 0);
        rig.clock.advance(Duration::from_secs(3600));
        rig.broker.sweep().await;
        rig.settle().await;
        assert_eq!(rig.provider.revocations(), 4, "done is done");
    }
}

#[tokio::test]
async fn a_provider_that_limits_the_rate_is_left_alone_as_long_as_it_says() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let pause = Duration::from_secs(60);
    rig.provider.next_revocation_fails(ProviderFailure::RateLimited { retry_after: Some(pause) });
    assert_eq!(revoke(&rig).await.provider, Some(ProviderRevocation::Pending));
    for (seconds, attempts) in [(59, 1), (1, 2)] {
        rig.clock.advance(Duration::from_secs(seconds));
        rig.broker.sweep().await;
        rig.settle().await;
        assert_eq!(rig.provider.revocations(), attempts);
    }
}

#[tokio::test]
async fn what_the_provider_says_is_the_answer() {
    for (failure, answer) in [
        (ProviderFailure::Refused, ProviderRevocation::Failed),
        (ProviderFailure::InvalidGrant, ProviderRevocation::Revoked),
    ] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.provider.next_revocation_fails(failure);
        assert_eq!(revoke(&rig).await.provider, Some(answer));
        assert!(rig.store.due_revocations(jiff::Timestamp::MAX, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_provider_without_revocation_is_named() {
    let rig = Rig::with(RigOptions { revocation: Revocation::NotSupported, ..RigOptions::default() }).await;
    rig.connect(&["mail"]).await;
    let answer = revoke(&rig).await;
    assert!(answer.deleted);
    assert_eq!(answer.provider, Some(ProviderRevocation::NotSupported));
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
}

#[tokio::test]
async fn after_three_days_the_broker_gives_up() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    revoke(&rig).await;
    rig.clock.advance(Duration::from_secs(72 * 3600 + 1));
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    rig.broker.sweep().await;
    rig.settle().await;
    rig.clock.advance(Duration::from_secs(3600));
    rig.broker.sweep().await;
    rig.settle().await;
    assert_eq!(rig.provider.revocations(), 2);
}

#[tokio::test]
async fn a_revoke_that_is_not_stored_is_not_acknowledged() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.faults.revoke.store(1, Ordering::SeqCst);
    let answer = rig.broker.revoke(&rig.caller, service("mail"), false).await;
    assert!(matches!(answer, Err(BrokerError::Unavailable { what: Unavailable::Storage, .. })));
    assert_eq!(rig.provider.revocations(), 0);
    rig.token().await;
}

#[tokio::test]
async fn a_new_consent_after_revoke_continues_the_row() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let before = rig.row().await;
    revoke(&rig).await;
    rig.connect(&["mail"]).await;
    let after = rig.row().await;
    assert_eq!((after.id, after.created_at), (before.id, before.created_at));
    assert!(after.generation > before.generation && after.epoch > before.epoch + 1);
    token(rig.get().await);
}
