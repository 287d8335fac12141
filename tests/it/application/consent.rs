//! From a link to a stored grant.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use token_broker::application::error::{BrokerError, NotFound, Precondition};
use token_broker::application::types::{BeginInput, CallbackOutcome, ConsentInput, ConsentReason};
use token_broker::domain::flow::{EXCHANGE_LIMIT, FLOW_LIFETIME, FlowFailure, FlowStatus, MAX_PENDING_FLOWS};
use token_broker::domain::key::{Account, FlowId, ProviderId, ServiceId, UserId};
use token_broker::domain::ports::ProviderFailure;
use token_broker::domain::scope::ScopeSet;
use tokio::sync::watch;

use crate::support::rig::{Rig, caller, get_input, required, rights, rule, service, token};
use crate::support::strict_provider::{Script, scope_set};
use token_broker::domain::access_policy::{Allowed, UserRule};

async fn status(rig: &Rig, id: FlowId) -> FlowStatus {
    rig.broker.get_flow(&rig.caller, id).await.unwrap().status
}

#[tokio::test]
async fn one_consent_connects_services_that_share_a_grant() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail", "files"]).await.unwrap();
    assert_eq!(flow.scopes, scope_set(vec!["files.read", "mail.read"]));
    let CallbackOutcome::Connected { service_names, account_label, .. } = rig.come_back(&flow).await else {
        panic!("not connected")
    };
    assert_eq!(service_names, ["Acme files", "Acme mail"]);
    assert_eq!(account_label.as_deref(), Some("alice-at-acme@example.com"));
    let mail = token(rig.ask(get_input("mail")).await);
    let files = token(rig.ask(get_input("files")).await);
    assert_eq!(mail.access_token.expose_secret(), files.access_token.expose_secret());
    assert_eq!(status(&rig, flow.id).await, FlowStatus::Completed);
}

#[tokio::test]
async fn services_of_different_grants_need_a_consent_each() {
    let rig = Rig::new().await;
    let Err(BrokerError::InvalidArgument(violations)) = rig.begin(&["mail", "admin"]).await else {
        panic!("accepted")
    };
    assert_eq!(violations[0].field, "services");
    let unknown = rig.begin(&["mail", "nosuch"]).await;
    assert!(matches!(unknown, Err(BrokerError::NotFound(NotFound::Service))));
}

#[tokio::test]
async fn step_up_asks_for_the_union_and_keeps_the_row() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    let before = rig.row().await;
    let flow = rig.begin(&["files"]).await.unwrap();
    assert_eq!(flow.scopes, scope_set(vec!["files.read", "mail.read"]));
    rig.come_back(&flow).await;
    let after = rig.row().await;
    assert_eq!((after.id, after.created_at), (before.id, before.created_at));
    assert_ne!(after.grant_id, before.grant_id);
    assert_eq!(after.generation, before.generation + 1);
    assert!(after.epoch > before.epoch);
    token(rig.ask(get_input("mail")).await);
    token(rig.ask(get_input("files")).await);
}

#[tokio::test]
async fn what_was_granted_counts_not_what_was_asked_for() {
    let rig = Rig::new().await;
    for (granted, mail, assumed) in [
        (Some(vec![]), false, false),
        (Some(vec!["files.read"]), false, false),
        (Some(vec!["files.read", "mail.read", "more"]), true, false),
        (None, true, true),
    ] {
        rig.provider.grant_scopes(granted.clone());
        rig.connect(&["mail", "files"]).await;
        let answer = rig.ask(get_input("mail")).await;
        if mail {
            assert_eq!(token(answer).scopes_assumed, assumed, "{granted:?}");
        } else {
            let lacking = required(answer);
            assert_eq!(lacking.reason, ConsentReason::ScopesMissing, "{granted:?}");
            assert_eq!(lacking.missing_scopes, scope_set(vec!["mail.read"]));
        }
    }
}

#[tokio::test]
async fn another_account_is_refused_and_its_grant_revoked() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.provider.account("mallory-at-acme");
    let flow = rig.begin(&["files"]).await.unwrap();
    assert!(matches!(rig.come_back(&flow).await, CallbackOutcome::Failed { .. }));
    assert_eq!(status(&rig, flow.id).await, FlowStatus::Failed(FlowFailure::AccountMismatch));
    assert_eq!(rig.token().await.account.subject.as_deref(), Some("alice-at-acme"));
    assert_eq!(rig.provider.live_grants(), 1);
}

#[tokio::test]
async fn of_two_accounts_that_consent_at_a_time_one_is_refused() {
    let rig = Rig::new().await;
    let (first, second) = (rig.begin(&["mail"]).await.unwrap(), rig.begin(&["mail"]).await.unwrap());
    // Both come before either is stored.
    rig.faults.pause_after_load.store(100, Ordering::SeqCst);
    let other = async {
        while rig.provider.exchanges() == 0 {
            tokio::task::yield_now().await;
        }
        rig.provider.account("mallory-at-acme");
        rig.come_back(&second).await
    };
    let (one, other) = tokio::join!(rig.come_back(&first), other);
    // Whichever is stored first.
    let (kept, refused, of) = match &one {
        CallbackOutcome::Connected { .. } => (one, other, "alice-at-acme"),
        _ => (other, one, "mallory-at-acme"),
    };
    assert!(matches!(kept, CallbackOutcome::Connected { .. }), "{kept:?}");
    assert!(matches!(refused, CallbackOutcome::Failed { .. }), "{refused:?}");
    assert_eq!(rig.provider.live_grants(), 1);
    assert_eq!(rig.token().await.account.subject.as_deref(), Some(of));
}

#[tokio::test]
async fn a_flow_is_used_once_however_many_come() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    let outcomes = join_all((0..50).map(|_| rig.come_back(&flow))).await;
    let connected = outcomes.iter().filter(|o| matches!(o, CallbackOutcome::Connected { .. })).count();
    let used = outcomes.iter().filter(|o| matches!(o, CallbackOutcome::AlreadyUsed)).count();
    assert_eq!((connected, used, rig.provider.exchanges()), (1, 49, 1));
}

#[tokio::test]
async fn forged_expired_and_foreign_returns_exchange_nothing() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    let good = rig.callback(&flow).await;
    let flipped = {
        let mut state = good.answer.state.as_ref().unwrap().expose_secret().to_owned();
        let last = if state.ends_with('A') { "B" } else { "A" };
        state.replace_range(42.., last);
        state
    };
    for (name, input) in [
        ("forged", {
            let mut i = good.clone();
            i.answer.state = Some("A".repeat(43).as_str().into());
            i
        }),
        ("flipped", {
            let mut i = good.clone();
            i.answer.state = Some(flipped.as_str().into());
            i
        }),
        ("short", {
            let mut i = good.clone();
            i.answer.state = Some("A".into());
            i
        }),
        ("no state", {
            let mut i = good.clone();
            i.answer.state = None;
            i
        }),
        ("no code", {
            let mut i = good.clone();
            i.answer.code = None;
            i
        }),
        ("empty code", {
            let mut i = good.clone();
            i.answer.code = Some("".into());
            i
        }),
        ("other provider", {
            let mut i = good.clone();
            i.provider = "other".to_owned();
            i
        }),
        ("bad provider", {
            let mut i = good.clone();
            i.provider = "../x".to_owned();
            i
        }),
    ] {
        assert_eq!(rig.take(input).await, CallbackOutcome::Invalid, "{name}");
        assert_eq!(status(&rig, flow.id).await, FlowStatus::Pending, "{name} does not spend the flow");
    }
    rig.clock.advance(FLOW_LIFETIME);
    assert_eq!(rig.come_back(&flow).await, CallbackOutcome::Expired);
    assert_eq!(status(&rig, flow.id).await, FlowStatus::Expired);
    assert_eq!(rig.provider.exchanges(), 0);
}

#[tokio::test]
async fn the_issuer_is_compared_when_it_is_there() {
    for (iss, connected) in
        [(None, true), (Some("https://as.example"), true), (Some("https://evil.example"), false)]
    {
        let rig = Rig::new().await;
        let flow = rig.begin(&["mail"]).await.unwrap();
        let mut input = rig.callback(&flow).await;
        input.answer.iss = iss.map(str::to_owned);
        let outcome = rig.take(input).await;
        assert_eq!(matches!(outcome, CallbackOutcome::Connected { .. }), connected, "{iss:?}");
        assert_eq!(rig.provider.exchanges(), u32::from(connected));
    }
}

#[tokio::test]
async fn a_denial_is_told_and_what_comes_later_forgets_it() {
    for word in ["access_denied", "user_said_no"] {
        let rig = Rig::new().await;
        let flow = rig.begin(&["mail"]).await.unwrap();
        assert_eq!(rig.required().await.reason, ConsentReason::FlowPending);
        let mut input = rig.callback(&flow).await;
        input.answer.error = Some(word.to_owned());
        assert!(matches!(rig.take(input).await, CallbackOutcome::Denied { .. }));
        assert_eq!(rig.required().await.reason, ConsentReason::ConsentDenied);
        // Connected by other means: the refusal is still the latest flow, but older than the row.
        rig.clock.advance(Duration::from_secs(60));
        rig.broker.import_credential(&rig.caller, rig.import_input()).await.unwrap();
        rig.token().await;
        rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap();
        assert_eq!(rig.required().await.reason, ConsentReason::Revoked);
    }
}

#[tokio::test]
async fn failed_returns_say_how() {
    for (error, script, failure) in [
        (Some("server_error"), None, FlowFailure::ProviderError),
        (None, Some(ProviderFailure::InvalidGrant), FlowFailure::ExchangeRejected),
        (None, Some(ProviderFailure::ClientRejected), FlowFailure::ExchangeRejected),
        (None, Some(ProviderFailure::NotSent), FlowFailure::ExchangeFailed),
        (None, Some(ProviderFailure::Ambiguous), FlowFailure::ExchangeFailed),
    ] {
        let rig = Rig::new().await;
        let flow = rig.begin(&["mail"]).await.unwrap();
        let mut input = rig.callback(&flow).await;
        input.answer.error = error.map(str::to_owned);
        if let Some(failure) = script {
            rig.provider.next_exchange(Script::Fail(failure));
        }
        assert!(matches!(rig.take(input).await, CallbackOutcome::Failed { .. }));
        assert_eq!(status(&rig, flow.id).await, FlowStatus::Failed(failure));
        assert_eq!(rig.required().await.reason, ConsentReason::NotConnected);
    }
}

#[tokio::test]
async fn a_failed_write_fails_the_page_and_revokes_the_grant() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    rig.faults.store_grant.store(1, Ordering::SeqCst);
    assert!(matches!(rig.come_back(&flow).await, CallbackOutcome::Failed { .. }));
    rig.settle().await;
    assert_eq!(status(&rig, flow.id).await, FlowStatus::Failed(FlowFailure::StoreFailed));
    assert_eq!((rig.provider.exchanges(), rig.provider.live_grants()), (1, 0));
    assert_eq!(rig.required().await.reason, ConsentReason::NotConnected);
}

#[tokio::test]
async fn a_browser_that_hangs_up_interrupts_nothing() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    let (open, gate) = watch::channel(false);
    rig.provider.next_exchange(Script::Hold(gate));
    {
        let call = rig.come_back(&flow);
        tokio::pin!(call);
        let mut reached = std::pin::pin!(async {
            while status(&rig, flow.id).await != FlowStatus::Exchanging {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            _ = &mut call => panic!("answered without the provider"),
            () = &mut reached => {}
        }
    }
    open.send_replace(true);
    rig.settle().await;
    assert_eq!(rig.token().await.generation, 1);
}

#[tokio::test]
async fn a_cancelled_flow_does_not_connect_and_its_tokens_are_revoked() {
    let rig = Rig::new().await;
    let pending = rig.begin(&["mail"]).await.unwrap();
    let cancelled = rig.broker.cancel_flow(&rig.caller, pending.id).await.unwrap();
    assert_eq!(cancelled.status, FlowStatus::Cancelled);
    assert_eq!(rig.come_back(&pending).await, CallbackOutcome::AlreadyUsed);
    assert_eq!(rig.broker.cancel_flow(&rig.caller, pending.id).await.unwrap().status, FlowStatus::Cancelled);

    let flow = rig.begin(&["mail"]).await.unwrap();
    let (open, gate) = watch::channel(false);
    rig.provider.next_exchange(Script::Hold(gate));
    let meanwhile = async {
        while status(&rig, flow.id).await != FlowStatus::Exchanging {
            tokio::task::yield_now().await;
        }
        let late = rig.broker.cancel_flow(&rig.caller, flow.id).await;
        assert!(matches!(late, Err(BrokerError::FailedPrecondition(Precondition::FlowEnded))));
        let revoked = rig.broker.revoke(&rig.caller, service("mail"), false).await.unwrap();
        assert!(!revoked.deleted && revoked.cancelled_flows == 1);
        open.send_replace(true);
    };
    let (outcome, ()) = tokio::join!(rig.come_back(&flow), meanwhile);
    assert_eq!(outcome, CallbackOutcome::AlreadyUsed);
    rig.settle().await;
    assert_eq!(rig.provider.live_grants(), 0);
    assert_eq!(rig.required().await.reason, ConsentReason::NotConnected);
}

#[tokio::test]
async fn polling_agents_get_one_link() {
    let rig = Rig::new().await;
    let mut input = get_input("mail");
    input.begin_if_missing = Some(ConsentInput::default());
    let answers = join_all((0..100).map(|_| rig.ask(input.clone()))).await;
    let flows: Vec<_> = answers.into_iter().map(|answer| required(answer).flow.unwrap()).collect();
    let urls: std::collections::BTreeSet<_> =
        flows.iter().map(|flow| flow.authorization_url.expose_secret()).collect();
    assert_eq!(urls.len(), 1);
    rig.clock.advance(FLOW_LIFETIME.saturating_sub(Duration::from_secs(60)));
    let next = required(rig.ask(input.clone()).await).flow.unwrap();
    assert_ne!(next.id, flows[0].id, "a link that is about to end is not given out");
    input.scopes = scope_set(vec!["mail.send"]);
    let other = required(rig.ask(input).await).flow.unwrap();
    assert_ne!(other.id, next.id, "nor is one that asks for less");
    assert_eq!(other.scopes, scope_set(vec!["mail.read", "mail.send"]));
}

#[tokio::test]
async fn agents_that_poll_in_turn_each_keep_their_link() {
    let rig = Rig::new().await;
    let colleague = caller("colleague");
    let mut links = std::collections::BTreeMap::<_, std::collections::BTreeSet<_>>::new();
    for round in 0..MAX_PENDING_FLOWS {
        for (agent, service) in [(&rig.caller, "mail"), (&rig.caller, "files"), (&colleague, "mail")] {
            let mut input = get_input(service);
            input.begin_if_missing = Some(ConsentInput::default());
            let answer = rig.broker.get_credential(agent, input).await;
            assert!(answer.is_ok(), "round {round}: {answer:?}");
            let flow = required(answer).flow.unwrap();
            links.entry((agent.id().to_string(), service)).or_default().insert(flow.id);
        }
        rig.clock.advance(Duration::from_secs(1));
    }
    assert!(links.values().all(|flows| flows.len() == 1), "{links:?}");
    assert_eq!(links.len(), 3);
}

#[tokio::test]
async fn a_user_is_not_flooded_with_links() {
    let rig = Rig::new().await;
    for _ in 0..MAX_PENDING_FLOWS {
        rig.begin(&["mail"]).await.unwrap();
    }
    assert!(matches!(rig.begin(&["mail"]).await, Err(BrokerError::ResourceExhausted { .. })));
    rig.clock.advance(FLOW_LIFETIME);
    rig.begin(&["mail"]).await.unwrap();
}

#[tokio::test]
async fn return_urls_come_from_the_allow_list() {
    let rig = Rig::new().await;
    let begin = |return_url: &str| {
        let input = BeginInput {
            provider: ProviderId::new("acme").unwrap(),
            user: UserId::new("alice").unwrap(),
            services: [ServiceId::new("mail").unwrap()].into(),
            account: Account::default(),
            scopes: ScopeSet::default(),
            options: ConsentInput { return_url: Some(return_url.to_owned()), ..ConsentInput::default() },
        };
        rig.broker.begin_oauth(&rig.caller, input)
    };
    let refused = begin("https://evil.example/").await;
    assert!(matches!(refused, Err(BrokerError::InvalidArgument(v)) if v[0].field == "options.return_url"));
    let flow = begin("https://app.example/chat/7").await.unwrap();
    let CallbackOutcome::Connected { return_url, .. } = rig.come_back(&flow).await else { panic!() };
    assert_eq!(return_url.unwrap().as_str(), "https://app.example/chat/7");
}

#[tokio::test]
async fn an_interrupted_exchange_is_told() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    let (_open, gate) = watch::channel(false);
    rig.provider.next_exchange(Script::Hold(gate));
    let exchange = rig.come_back(&flow);
    let crash = async {
        while status(&rig, flow.id).await != FlowStatus::Exchanging {
            tokio::task::yield_now().await;
        }
        rig.clock.advance(EXCHANGE_LIMIT + Duration::from_secs(60));
        rig.broker.sweep().await;
        assert_eq!(status(&rig, flow.id).await, FlowStatus::Failed(FlowFailure::Interrupted));
    };
    tokio::select! {
        _ = exchange => panic!("answered without the provider"),
        () = crash => {}
    }
}

#[tokio::test]
async fn a_flow_of_somebody_elses_is_as_unknown_as_none() {
    let rig = Rig::new().await;
    let flow = rig.begin(&["mail"]).await.unwrap();
    let mut stranger = caller("stranger");
    rights(&mut stranger).tenant = token_broker::domain::key::TenantId::new("tenant-b").unwrap();
    let mut colleague = caller("colleague");
    rule(&mut colleague).users = Allowed::Only([UserRule::Exact(UserId::new("bob").unwrap())].into());
    for other in [&stranger, &colleague] {
        for id in [flow.id, FlowId::from_random([9; 16])] {
            let got = rig.broker.get_flow(other, id).await;
            assert!(matches!(got, Err(BrokerError::NotFound(NotFound::Flow))), "{got:?}");
            let cancelled = rig.broker.cancel_flow(other, id).await;
            assert!(matches!(cancelled, Err(BrokerError::NotFound(NotFound::Flow))));
        }
    }
    assert_eq!(status(&rig, flow.id).await, FlowStatus::Pending);
}
