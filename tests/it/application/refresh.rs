//! One refresh, whoever asks.

use std::time::Duration;

use futures_util::future::join_all;
use token_broker::application::types::ConsentReason;
use token_broker::domain::credential::CredentialState;
use token_broker::domain::provider::Rotation;
use tokio::sync::watch;

use crate::support::rig::{Rig, RigOptions, get_input, required, token};
use crate::support::strict_provider::{Script, scope_set};

#[tokio::test]
async fn a_valid_token_is_served_from_the_row() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let first = rig.token().await;
    let second = rig.token().await;
    assert_eq!(first.access_token.expose_secret(), second.access_token.expose_secret());
    assert_eq!((first.generation, first.failure), (1, None));
    assert_eq!(first.account.subject.as_deref(), Some("alice-at-acme"));
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once_for_two_hundred_callers() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.expire_token();
    let callers = join_all((0..200).map(|_| rig.token()));
    let opener = async {
        rig.provider.wait_for_presentations(1).await;
        open.send_replace(true);
    };
    let (tokens, ()) = tokio::join!(callers, opener);
    assert!(tokens.iter().all(|t| t.generation == 2 && rig.provider.accepts(&t.access_token)));
    assert_eq!(rig.provider.presented(), ["canary-rt-1"]);
}

#[tokio::test]
async fn i6_no_read_waits_while_the_token_is_valid() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.clock.advance(Duration::from_secs(3600 - 200)); // nearly due
    let served = rig.token().await;
    assert_eq!((served.generation, served.failure), (1, None));
    rig.provider.wait_for_presentations(1).await;
    assert_eq!(rig.token().await.generation, 1, "served while the refresh is under way");
    open.send_replace(true);
    rig.settle().await;
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn min_ttl_asks_for_a_younger_token_but_never_for_more_than_half_of_its_life() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let mut input = get_input("mail");
    input.min_ttl = Duration::from_secs(24 * 3600);
    assert_eq!(token(rig.ask(input.clone()).await).generation, 1, "a fresh token meets any demand");
    rig.clock.advance(Duration::from_secs(1800));
    assert_eq!(token(rig.ask(input).await).generation, 2);
    assert_eq!(rig.token().await.generation, 2);
}

#[tokio::test]
async fn a_thousand_reports_of_one_401_make_one_call() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let answers = join_all((0..1000).map(|_| rig.refresh(1))).await;
    assert!(answers.into_iter().all(|answer| token(answer).generation == 2));
    assert_eq!(rig.provider.presented().len(), 1);
    assert_eq!(token(rig.refresh(2).await).generation, 3);
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_nothing() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let (open, gate) = watch::channel(false);
    rig.provider.next_refresh(Script::Hold(gate));
    rig.expire_token();
    {
        let call = rig.get();
        tokio::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("answered without the provider"),
            () = rig.provider.wait_for_presentations(1) => {}
        }
    }
    open.send_replace(true);
    rig.settle().await;
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let rig = Rig::with(RigOptions { rotation: Rotation::None, ..RigOptions::default() }).await;
    rig.connect(&["mail"]).await;
    for generation in 2..5 {
        rig.provider.next_refresh(Script::Keep);
        rig.expire_token();
        assert_eq!(rig.token().await.generation, generation);
    }
    assert_eq!(rig.provider.presented(), ["canary-rt-1", "canary-rt-1", "canary-rt-1"]);
}

#[tokio::test]
async fn rotated_refresh_tokens_are_each_presented_once() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    for generation in 2..52 {
        rig.expire_token();
        let tokens = join_all((0..16).map(|_| rig.token())).await;
        assert!(tokens.iter().all(|t| t.generation == generation));
    }
    let mut presented = rig.provider.presented();
    assert_eq!(presented.len(), 50);
    presented.sort();
    presented.dedup();
    assert_eq!(presented.len(), 50);
    assert_eq!(rig.provider.live_grants(), 1);
}

#[tokio::test]
async fn scopes_of_a_refresh_narrow_the_grant_or_leave_it() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    for (answered, kept) in [
        (None, vec!["mail.read"]),
        (Some(vec![]), vec!["mail.read"]),
        (Some(vec!["mail.read", "extra"]), vec!["extra", "mail.read"]),
    ] {
        rig.provider.next_refresh(Script::Grant(answered));
        rig.expire_token();
        assert_eq!(rig.token().await.scopes, scope_set(kept));
    }
    rig.provider.next_refresh(Script::Grant(Some(vec!["extra"])));
    rig.expire_token();
    let lacking = rig.required().await;
    assert_eq!(lacking.reason, ConsentReason::ScopesMissing);
    assert_eq!(lacking.missing_scopes, scope_set(vec!["mail.read"]));
}

#[tokio::test]
async fn missing_scopes_are_told_without_a_refresh() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    let mut input = get_input("mail");
    input.scopes = scope_set(vec!["mail.send"]);
    assert_eq!(required(rig.ask(input).await).missing_scopes, scope_set(vec!["mail.send"]));
    assert_eq!(required(rig.ask(get_input("files")).await).reason, ConsentReason::ScopesMissing);
    assert_eq!(required(rig.ask(get_input("admin")).await).reason, ConsentReason::NotConnected);
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn a_token_that_is_born_expired_is_handed_out_once_per_call() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.expire_token();
    rig.provider.next_refresh(Script::Live(Some(Duration::ZERO)));
    assert_eq!(rig.token().await.generation, 2);
    assert_eq!(rig.provider.presented().len(), 1);
}

#[tokio::test]
async fn a_token_without_refresh_token_lives_to_its_end_and_then_needs_consent() {
    let rig = Rig::new().await;
    let mut import = rig.import_input();
    import.refresh_token = None;
    import.expires_at = Some(rig.now() + Duration::from_secs(3600));
    rig.broker.import_credential(&rig.caller, import).await.unwrap();
    rig.clock.advance(Duration::from_secs(3500));
    let mut input = get_input("mail");
    input.min_ttl = Duration::from_secs(600);
    assert_eq!(token(rig.ask(input).await).generation, 1);
    assert_eq!(required(rig.refresh(1).await).reason, ConsentReason::ExpiredNoRefresh);
    rig.clock.advance(Duration::from_secs(100));
    assert_eq!(rig.required().await.reason, ConsentReason::ExpiredNoRefresh);
    assert!(rig.provider.presented().is_empty());
}

#[tokio::test]
async fn a_dead_grant_is_asked_once_and_never_again() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.end_all_grants();
    rig.expire_token();
    for _ in 0..5 {
        assert_eq!(rig.required().await.reason, ConsentReason::RefreshTokenRejected);
        rig.clock.advance(Duration::from_secs(3600));
        rig.broker.sweep().await;
        rig.settle().await;
    }
    assert_eq!(rig.provider.presented().len(), 1);
    assert!(matches!(rig.row().await.state, CredentialState::NeedsReauth { .. }));
    rig.connect(&["mail"]).await;
    assert_eq!(rig.token().await.generation, 2, "a new consent revives the row");
}
