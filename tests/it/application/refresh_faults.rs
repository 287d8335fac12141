//! What a refresh meets when things go wrong.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use token_broker::application::error::{BrokerError, Unavailable};
use token_broker::application::types::ConsentReason;
use token_broker::domain::coordination::{Permit, PermitRequest, PermitStore as _};
use token_broker::domain::credential::{CredentialState, RefreshFailure};
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::{CredentialStore as _, DeadOwners, ProviderFailure};
use token_broker::domain::provider::{DISPATCH_WITHIN, HTTP_DEADLINE, Rotation, STRICT_SETTLE};
use tokio::sync::watch;

use crate::storage_faults::tamper;
use crate::support::rig::{Rig, RigOptions, get_input, required, service, token, unavailable, user_service};
use crate::support::strict_provider::Script;

#[tokio::test]
async fn a_failing_provider_costs_readers_nothing_while_the_token_is_valid() {
    for (failure, seen) in [
        (ProviderFailure::NotSent, RefreshFailure::ProviderUnavailable),
        (ProviderFailure::RateLimited { retry_after: None }, RefreshFailure::RateLimited),
        (ProviderFailure::ClientRejected, RefreshFailure::ClientRejected),
        (ProviderFailure::Refused, RefreshFailure::ClientRejected),
    ] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.clock.advance(Duration::from_secs(3600 - 200));
        rig.provider.next_refresh(Script::Fail(failure));
        assert_eq!(rig.token().await.failure, None);
        rig.settle().await;
        assert_eq!(rig.token().await.failure, Some(seen));
        rig.settle().await;
        assert_eq!(rig.provider.presented().len(), 1, "not asked again at once");
        rig.clock.advance(Duration::from_secs(2));
        rig.token().await;
        rig.settle().await;
        let fresh = rig.token().await;
        assert_eq!((fresh.generation, fresh.failure), (2, None), "asked again after the back-off");
    }
}

#[tokio::test]
async fn a_failing_provider_is_an_outage_when_no_token_is_left() {
    for (failure, seen) in [
        (ProviderFailure::NotSent, Unavailable::Provider),
        (ProviderFailure::RateLimited { retry_after: None }, Unavailable::ProviderRateLimited),
        (ProviderFailure::ClientRejected, Unavailable::ClientRejected),
    ] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        rig.provider.next_refresh(Script::Fail(failure));
        let (what, retry_after) = unavailable(rig.get().await);
        assert_eq!(what, seen);
        assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1), "{retry_after:?}");
        let again = join_all((0..20).map(|_| rig.get())).await;
        assert!(again.into_iter().all(|answer| unavailable(answer).0 == seen));
        assert_eq!(rig.provider.presented().len(), 1);
        rig.clock.advance(retry_after);
        assert_eq!(rig.token().await.generation, 2);
        assert_eq!(rig.provider.live_grants(), 1);
    }
}

#[tokio::test]
async fn back_off_doubles_and_retry_after_is_obeyed() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    for longest in [1, 2, 4, 8] {
        rig.provider.next_refresh(Script::Fail(ProviderFailure::NotSent));
        let (_, retry_after) = unavailable(rig.get().await);
        let longest = Duration::from_secs(longest);
        assert!(retry_after <= longest && retry_after >= longest * 4 / 5, "{retry_after:?}");
        rig.clock.advance(retry_after);
    }
    let limit = Some(Duration::from_secs(300));
    rig.provider.next_refresh(Script::Fail(ProviderFailure::RateLimited { retry_after: limit }));
    assert_eq!(unavailable(rig.get().await).1, Duration::from_secs(300));
}

#[tokio::test]
async fn i1_an_unknown_outcome_is_not_presented_again_before_it_settles() {
    for (script, healed) in [(Script::LostBefore, true), (Script::LostAfter, false)] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        rig.provider.next_refresh(script);
        let (what, retry_after) = unavailable(rig.get().await);
        assert_eq!((what, retry_after), (Unavailable::OutcomeUnknown, STRICT_SETTLE));
        rig.clock.advance(STRICT_SETTLE.saturating_sub(Duration::from_secs(10)));
        rig.broker.sweep().await;
        rig.settle().await;
        assert_eq!(unavailable(rig.get().await).0, Unavailable::OutcomeUnknown);
        assert_eq!(rig.provider.presented().len(), 1);
        rig.clock.advance(Duration::from_secs(10));
        rig.broker.sweep().await;
        rig.settle().await;
        assert_eq!(rig.provider.presented().len(), 2, "one last chance");
        if healed {
            assert_eq!(rig.token().await.generation, 2);
        } else {
            // Strict: the answer that was lost had rotated. The documented window loss.
            assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
        }
        assert_eq!(rig.provider.overlaps(), 0);
    }
}

#[tokio::test]
async fn an_unknown_outcome_costs_readers_nothing_while_the_token_is_valid() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.clock.advance(Duration::from_secs(3600 - 290));
    rig.provider.next_refresh(Script::LostBefore);
    rig.token().await;
    rig.settle().await;
    let served = rig.token().await;
    assert_eq!(served.generation, 1);
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(rig.token().await.failure, Some(RefreshFailure::OutcomeUnknown));
}

#[tokio::test]
async fn where_nothing_rotates_an_unknown_outcome_is_only_a_failure() {
    let rig = Rig::with(RigOptions { rotation: Rotation::None, ..RigOptions::default() }).await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.provider.next_refresh(Script::LostBefore);
    let (what, retry_after) = unavailable(rig.get().await);
    assert_eq!(what, Unavailable::Provider);
    rig.clock.advance(retry_after);
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn a_reader_waits_no_longer_than_its_own_time_and_the_refresh_goes_on() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.expire_token();
    let mut input = get_input("mail");
    input.time_left = Some(Duration::from_millis(50));
    assert_eq!(unavailable(rig.ask(input).await).0, Unavailable::RefreshInProgress);
    open.send_replace(true);
    rig.settle().await;
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn a_reader_that_asked_for_more_life_gets_what_is_left() {
    let options = RigOptions::impatient();
    let rig = Rig::with(options).await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.clock.advance(Duration::from_secs(3000));
    let mut input = get_input("mail");
    input.min_ttl = Duration::from_secs(1200);
    let served = token(rig.ask(input).await);
    assert_eq!((served.generation, served.failure), (1, Some(RefreshFailure::OutcomeUnknown)));
    open.send_replace(true);
    rig.settle().await;
}

#[tokio::test]
async fn i7_a_pair_that_can_not_be_stored_yet_is_kept_until_it_can() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.faults.persist.store(3, Ordering::SeqCst);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
    assert_eq!(rig.provider.live_grants(), 1);
}

#[tokio::test]
async fn a_database_error_is_an_outage_never_the_need_to_consent() {
    let rig = Rig::new().await;
    rig.faults.load.store(1, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage, "also for a key that has no row");
    rig.connect(&["mail"]).await;
    rig.faults.load.store(1, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    rig.expire_token();
    rig.faults.claim.store(1, Ordering::SeqCst);
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    assert!(rig.provider.presented().is_empty(), "nothing is sent without a claim");
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn a_valid_token_is_served_when_only_the_claim_fails() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.clock.advance(Duration::from_secs(3600 - 200));
    rig.faults.claim.store(1, Ordering::SeqCst);
    assert_eq!(rig.token().await.generation, 1);
    rig.settle().await;
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn i8_a_late_refusal_does_not_demote_a_new_consent() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.expire_token();
    let reader = rig.get();
    let meanwhile = async {
        rig.provider.wait_for_presentations(1).await;
        rig.provider.end_all_grants();
        rig.connect(&["mail"]).await;
        open.send_replace(true); // the old grant's refresh is now refused
    };
    let (answer, ()) = tokio::join!(reader, meanwhile);
    assert_eq!(token(answer).generation, 2);
    rig.settle().await;
    assert!(matches!(rig.row().await.state, CredentialState::Active { .. }));
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn i3_i4_revoke_wins_over_a_refresh_in_flight() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.provider.next_revocation_fails(ProviderFailure::NotSent);
    rig.expire_token();
    let reader = rig.get();
    let meanwhile = async {
        rig.provider.wait_for_presentations(1).await;
        let answer = rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap();
        assert!(answer.deleted);
        assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
        open.send_replace(true);
    };
    let (answer, ()) = tokio::join!(reader, meanwhile);
    assert_eq!(required(answer).reason, ConsentReason::Revoked);
    rig.settle().await;
    assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
    assert_eq!(rig.provider.live_grants(), 0, "what the refresh obtained is revoked too");
    assert!(matches!(rig.row().await.state, CredentialState::Revoked));
}

#[tokio::test]
async fn i3_a_new_consent_does_not_save_what_a_revoked_grants_refresh_obtains() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    // The provider knows nothing of the old token any more, and keeps the grant.
    rig.provider.next_revocation_fails(ProviderFailure::InvalidGrant);
    rig.expire_token();
    let reader = rig.get();
    let meanwhile = async {
        rig.provider.wait_for_presentations(1).await;
        assert!(rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap().deleted);
        rig.connect(&["mail"]).await;
        open.send_replace(true);
    };
    let (answer, ()) = tokio::join!(reader, meanwhile);
    let current = token(answer);
    rig.settle().await;
    assert!(rig.provider.accepts(&current.access_token));
    assert_eq!(rig.provider.live_grants(), 1, "the revoked one is dead, the new one lives");
}

#[tokio::test]
async fn a_row_that_could_not_take_the_answer_is_not_refreshed() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    tamper(rig.store.path(), "UPDATE credentials SET profile_sealed = x'00'").await;
    rig.provider.next_refresh(Script::Extra("instance_url", "https://eu1.acme.example"));
    let before = rig.row().await;
    assert!(matches!(rig.get().await, Err(BrokerError::DataLoss)));
    assert!(rig.provider.presented().is_empty(), "the new pair would be lost");
    assert_eq!(rig.row().await, before);
}

#[tokio::test]
async fn rows_that_can_not_be_settled_do_not_keep_the_others_from_it() {
    const BATCH: u32 = 32;
    let options = RigOptions { max_wait: Duration::from_millis(1), ..RigOptions::default() };
    let rig = Rig::with(options).await;
    let stuck: Vec<_> = (0..BATCH).map(|n| format!("stuck-{n}")).collect();
    for user in stuck.iter().map(String::as_str).chain(["alice"]) {
        let mut input = rig.import_input();
        input.key = user_service(user, "mail");
        input.expires_at = Some(rig.now() - Duration::from_secs(1));
        rig.broker.import_credential(&rig.caller, input).await.unwrap();
        rig.provider.next_refresh(Script::LostBefore);
        // Past the longest opening of the circuit, which these failures open.
        rig.clock.advance(Duration::from_secs(61));
        let mut input = get_input("mail");
        input.key = user_service(user, "mail");
        unavailable(rig.ask(input).await);
        rig.settle().await;
    }
    let stuck = "UPDATE credentials SET provider = 'gone' WHERE user_id LIKE 'stuck-%'";
    tamper(rig.store.path(), stuck).await;
    let presented = rig.provider.presented().len();
    rig.clock.advance(STRICT_SETTLE);
    for _ in 0..2 {
        rig.broker.sweep().await;
        rig.settle().await;
    }
    assert_eq!(rig.provider.presented().len(), presented + 1);
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn after_a_restart_a_dead_owners_claim_is_settled_soon() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.provider.next_refresh(Script::LostBefore);
    unavailable(rig.get().await);
    let restarted = ClaimOwner::from_random([2; 16]);
    rig.permits.store().owner_died(ClaimOwner::from_random([1; 16])).await.unwrap();
    assert_eq!(rig.store.settle_early(DeadOwners::AllBut(restarted)).await.unwrap(), 1);
    rig.clock.advance(HTTP_DEADLINE + DISPATCH_WITHIN);
    rig.broker.sweep().await;
    rig.settle().await;
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn i1_the_last_chance_waits_for_a_permit_that_the_row_does_not_know_of() {
    let rig = Rig::new().await;
    // Another replica has taken the last chance, whose request must have ended by now, and the database has failed over and
    // lost its claim; or a flight of this process could not give its permit back.
    let another = (ClaimOwner::from_random([2; 16]), DISPATCH_WITHIN + HTTP_DEADLINE);
    for (owner, age) in [another, (rig.owner, Duration::ZERO)] {
        rig.connect(&["mail"]).await;
        let before = rig.provider.presented().len();
        rig.comes_to_the_last_chance().await;
        let row = rig.row().await;
        let refresh = row.tokens().unwrap().refresh.clone().unwrap();
        let request = PermitRequest {
            credential: row.id,
            grant: row.grant_id,
            token: refresh.fingerprint,
            row_epoch: refresh.epoch,
            owner,
            lifetime: STRICT_SETTLE,
            takeover: None,
        };
        assert_eq!(rig.permits.store().take(request).await.unwrap(), Permit::Taken);
        rig.clock.advance(age);
        let left = STRICT_SETTLE.saturating_sub(age);
        assert_eq!(unavailable(rig.get().await), (Unavailable::OutcomeUnknown, left));
        assert_eq!(rig.provider.presented().len(), before + 1);
        rig.clock.advance(left);
        assert_eq!(rig.token().await.generation, row.generation + 1);
    }
}

#[tokio::test]
async fn unknown_endpoints_are_an_outage_before_anything_is_claimed() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.undiscoverable(true);
    assert!(matches!(
        rig.begin(&["mail"]).await,
        Err(BrokerError::Unavailable { what: Unavailable::Provider, .. })
    ));
    rig.clock.advance(Duration::from_secs(3600 - 200));
    assert_eq!(rig.token().await.generation, 1);
    rig.settle().await;
    rig.clock.advance(Duration::from_secs(200));
    let before = rig.row().await;
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Provider);
    assert_eq!(rig.row().await, before);
    rig.provider.undiscoverable(false);
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn the_end_of_a_claim_is_written_in_spite_of_a_database_that_stumbles() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.faults.end_claim.store(3, Ordering::SeqCst);
    rig.provider.next_refresh(Script::Fail(ProviderFailure::NotSent));
    let (what, retry_after) = unavailable(rig.get().await);
    assert_eq!(what, Unavailable::Provider, "not an outcome that has to be settled");
    rig.clock.advance(retry_after);
    rig.faults.end_claim.store(3, Ordering::SeqCst);
    rig.provider.end_all_grants();
    assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
    assert_eq!(rig.faults.end_claim.load(Ordering::SeqCst), 0);
}
