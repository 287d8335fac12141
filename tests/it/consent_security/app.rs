//! The binding *app*: neither half alone completes, and the exchange comes after both.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use token_broker::domain::flow::ConsentBinding as Binding;
use token_broker::r#gen::v1::{
    BeginOAuthRequest, CancelFlowRequest, ConsentBinding, ConsentOptions, CredentialStatus, FlowStatus,
    GetCredentialRequest, get_credential_response::Result as GetResult,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    AGENT, RETURN_URL, assert_ended, begin, bound, brought, come_back, complete, completion, flow_of,
    nothing_came_of_it, returned, token,
};
use crate::support::broker::reason;
use crate::support::doors::{BOBS, Doors, POWERLESS, RIVAL, files, state_in};
use crate::support::hostile::{Gate, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn the_code_is_exchanged_only_after_proof() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::App).await;
    assert!(flow.binding() == ConsentBinding::App && flow.flow_secret.len() == 43);
    assert!(flow.authorization_url.starts_with(&doors.provider.base()), "straight to the provider");
    let page = come_back(&doors, &state_in(&flow.authorization_url)).await;
    let (id, code) = brought(&page);
    assert_eq!((id, code.len()), (flow.flow_id.clone(), 43));
    assert_ended(&doors, &flow, FlowStatus::Returned, "").await;
    nothing_came_of_it(&doors, "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors
        .provider
        .push_at("/userinfo", Reply::json(200, &json!({ "sub": "1", "email": "alice@example.com" })));
    let answer = complete(&doors, completion(&flow, &code, "alice")).await.unwrap();
    let (ended, credential) = (answer.flow.unwrap(), answer.credential.unwrap());
    assert!(ended.status() == FlowStatus::Completed && ended.binding() == ConsentBinding::App);
    assert!(credential.status() == CredentialStatus::Active && credential.user_id == "alice");
    assert_eq!(credential.provider_account.unwrap().label, "alice@example.com");
    let exchange = &doors.provider.requests_at("/token")[0];
    assert_eq!(exchange.param("code").as_deref(), Some("victims-code"));
    assert_eq!(token(&doors, "alice").await.as_deref(), Some("at-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_is_sent_to_the_application_with_a_clean_address() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::App).await;
    let state = state_in(&flow.authorization_url);
    let page = come_back(&doors, &state).await;
    let location = page.headers["location"].to_str().unwrap();
    assert!(
        location.starts_with(&format!("{RETURN_URL}&flow_id={}&completion_code=", flow.flow_id)),
        "{location}"
    );
    for secret in ["victims-code", &state, &flow.flow_secret] {
        assert!(!location.contains(secret) && !page.html.contains(secret));
    }
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(page.headers.get("set-cookie").is_none());
    // The half in the database is a hash.
    let (_, code) = brought(&page);
    let rows = doors.rows().await;
    assert!(
        !rows.contains(&hex::encode_upper(&code)) && !rows.contains(&code) && !rows.contains("victims-code")
    );
    // A second time there is nothing to bring.
    let again = come_back(&doors, &state).await;
    assert_eq!((again.name(), again.status), ("already-used", 410));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_initiator_alone_does_not_complete() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::App).await;
    let before = doors.rows().await;
    for code in ["A", &"A".repeat(43), &flow.flow_secret] {
        let refused = complete(&doors, completion(&flow, code, "alice")).await.err().unwrap();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "BROWSER_NOT_BACK".to_owned())
        );
    }
    assert_eq!(doors.rows().await, before);
    nothing_came_of_it(&doors, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_half_is_refused_without_a_word_which_and_spends_nothing() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    let (other_flow, other_code) = returned(&doors, "bob").await;
    let before = doors.rows().await;
    let flip = |text: &str| format!("{}{}", &text[..42], if text.ends_with('A') { "B" } else { "A" });
    let good = completion(&flow, &code, "alice");
    let cases = [
        ("no code", good.flow_secret.clone(), "x".to_owned()),
        ("flipped code", good.flow_secret.clone(), flip(&code)),
        ("another flow's code", good.flow_secret.clone(), other_code.clone()),
        ("the secret as code", good.flow_secret.clone(), good.flow_secret.clone()),
        ("no secret", "x".to_owned(), code.clone()),
        ("flipped secret", flip(&good.flow_secret), code.clone()),
        ("another flow's secret", other_flow.flow_secret.clone(), code.clone()),
        ("the code as secret", code.clone(), code.clone()),
        ("exchanged", code.clone(), good.flow_secret.clone()),
        ("longer", format!("{}A", good.flow_secret), code.clone()),
        ("both of another flow", other_flow.flow_secret.clone(), other_code),
    ];
    let mut replies = std::collections::BTreeSet::new();
    for (name, flow_secret, completion_code) in cases {
        let request =
            token_broker::r#gen::v1::CompleteOAuthRequest { flow_secret, completion_code, ..good.clone() };
        let refused = complete(&doors, request).await.err().unwrap();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::PermissionDenied, "COMPLETION_REFUSED".to_owned()),
            "{name}"
        );
        replies.insert((refused.message().to_owned(), refused.details().to_vec()));
    }
    assert_eq!(replies.len(), 1, "one answer for all");
    assert_eq!(doors.rows().await, before, "nothing was spent");
    nothing_came_of_it(&doors, "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    assert!(flow_of(complete(&doors, good).await).status() == FlowStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_ends_the_consent_without_a_token_request() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    let ended = flow_of(complete(&doors, completion(&flow, &code, "Alice")).await);
    assert!(ended.status() == FlowStatus::Failed && ended.failure == "USER_MISMATCH");
    assert_ended(&doors, &flow, FlowStatus::Failed, "USER_MISMATCH").await;
    nothing_came_of_it(&doors, "alice").await;
    nothing_came_of_it(&doors, "Alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_again_answers_the_same_and_exchanges_nothing() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let first = complete(&doors, completion(&flow, &code, "alice")).await.unwrap();
    let before = doors.rows().await;
    let second = complete(&doors, completion(&flow, &code, "alice")).await.unwrap();
    assert!(first == second);
    let stranger = complete(&doors, completion(&flow, &code, "bob")).await.err().unwrap();
    assert_eq!(reason(&stranger), "COMPLETION_REFUSED", "no success for another user");
    assert_eq!(doors.rows().await, before);
    assert_eq!(doors.provider.requests_at("/token").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_fails_is_the_answer_and_its_repetition() {
    let doors = Doors::open().await;
    for (reply, failure) in
        [(Reply::error("invalid_grant"), "EXCHANGE_REJECTED"), (Reply::reset(), "EXCHANGE_FAILED")]
    {
        let (flow, code) = returned(&doors, "alice").await;
        doors.provider.push(reply);
        for _ in 0..2 {
            let answer = complete(&doors, completion(&flow, &code, "alice")).await.unwrap();
            let ended = answer.flow.unwrap();
            assert!(
                ended.status() == FlowStatus::Failed
                    && ended.failure == failure
                    && answer.credential.is_none()
            );
        }
    }
    assert_eq!(doors.provider.requests_at("/token").len(), 2);
    assert_eq!(token(&doors, "alice").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_ran_out_or_was_cancelled_is_not_completed() {
    let doors = Doors::open().await;
    let (cancelled, its_code) = returned(&doors, "alice").await;
    let (late, late_code) = returned(&doors, "alice").await;
    let cancel = CancelFlowRequest { flow_id: cancelled.flow_id.clone() };
    doors.client(AGENT).await.cancel_flow(cancel).await.unwrap();
    let ended = flow_of(complete(&doors, completion(&cancelled, &its_code, "alice")).await);
    assert!(ended.status() == FlowStatus::Cancelled);
    doors.clock.advance(Duration::from_secs(600));
    let ended = flow_of(complete(&doors, completion(&late, &late_code, "alice")).await);
    assert!(ended.status() == FlowStatus::Expired);
    nothing_came_of_it(&doors, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_interrupts_nothing() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-1", "rt-1").held_by(&gate));
    doors.provider.push_at("/userinfo", Reply::status(500));
    let mut client = doors.client(AGENT).await;
    let call =
        tokio::spawn(async move { client.complete_o_auth(completion(&flow, &code, "alice")).await.is_ok() });
    doors.provider.wait_for_requests(1).await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
    gate.release();
    doors.settle().await;
    assert_eq!(token(&doors, "alice").await.as_deref(), Some("at-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_is_told_and_the_orphan_is_revoked() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    doors.provider.always("/revoke", Reply::status(200));
    doors.faults.store_grant.store(1, Ordering::SeqCst);
    let ended = flow_of(complete(&doors, completion(&flow, &code, "alice")).await);
    assert!(ended.status() == FlowStatus::Failed && ended.failure == "STORE_FAILED", "{}", ended.failure);
    doors.settle().await;
    assert_eq!(doors.provider.requests_at("/revoke")[0].param("token").as_deref(), Some("rt-1"));
    assert_eq!(token(&doors, "alice").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_comes_before_existence() {
    let doors = Doors::open().await;
    let (flow, code) = returned(&doors, "alice").await;
    let before = doors.rows().await;
    let never_was = "0190f0a8-0000-4000-8000-00000000002a".to_owned();
    for (caller, expected) in
        [(RIVAL, "FLOW_NOT_FOUND"), (BOBS, "FLOW_NOT_FOUND"), (POWERLESS, "PERMISSION_DENIED")]
    {
        let mut client = doors.client(caller).await;
        let theirs = completion(&flow, &code, "alice");
        let nobodys =
            token_broker::r#gen::v1::CompleteOAuthRequest { flow_id: never_was.clone(), ..theirs.clone() };
        let one = client.complete_o_auth(theirs).await.err().unwrap();
        let two = client.complete_o_auth(nobodys).await.err().unwrap();
        assert_eq!(reason(&one), expected);
        assert_eq!((one.code(), one.message(), one.details()), (two.code(), two.message(), two.details()));
    }
    assert_eq!(doors.rows().await, before);
    nothing_came_of_it(&doors, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_of_another_binding_is_not_completed_by_a_caller() {
    let doors = Doors::open().await;
    let mut flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    assert!(flow.flow_secret.is_empty());
    flow.flow_secret = "A".repeat(43);
    let refused = complete(&doors, completion(&flow, "A", "alice")).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "OTHER_BINDING".to_owned()));
    nothing_came_of_it(&doors, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_and_an_error_leave_nothing_to_complete() {
    let doors = Doors::open().await;
    for (error, page, status) in
        [("access_denied", "denied", FlowStatus::Denied), ("server_error", "failed", FlowStatus::Failed)]
    {
        let flow = begin(&doors, "alice", ConsentBinding::App).await;
        let state = state_in(&flow.authorization_url);
        let shown =
            doors.browse(&format!("/oauth/callback/hostile?error={error}&state={state}&code=c")).await;
        assert_eq!(shown.name(), page);
        assert!(shown.html.contains("https://app.example/chat/42?a=1&#38;b=2"), "the way back is offered");
        assert!(doors.flow(&flow.flow_id).await.0 == status);
        let refused = complete(&doors, completion(&flow, "A", "alice")).await.err().unwrap();
        assert_eq!(reason(&refused), "FLOW_ENDED");
    }
    nothing_came_of_it(&doors, "alice").await;
}

/// The default is safe: without a word in the configuration or the request, nothing is exchanged before both halves.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_is_not_allowed_is_refused_with_what_to_change() {
    let doors = Doors::open_bound(&[Binding::App]).await;
    let ask = async |options: ConsentOptions| {
        let request = BeginOAuthRequest {
            provider: "hostile".to_owned(),
            user_id: "alice".to_owned(),
            services: vec!["files".to_owned()],
            options: Some(options),
            ..Default::default()
        };
        doors.client(AGENT).await.begin_o_auth(request).await.map(tonic::Response::into_inner)
    };
    let field = |refused: Result<_, tonic::Status>| {
        let bad = refused.err().unwrap().get_details_bad_request().unwrap();
        (bad.field_violations[0].field.clone(), bad.field_violations[0].description.clone())
    };
    for binding in [ConsentBinding::Confirm, ConsentBinding::Login] {
        let (name, why) = field(ask(bound(binding)).await);
        assert_eq!(name, "options.binding");
        assert!(why.contains("`consent.bindings`") && why.contains("app"), "{why}");
    }
    let nowhere = ConsentOptions::default();
    assert_eq!(field(ask(nowhere.clone()).await).0, "options.return_url", "required by the default, app");
    for taken in ["?flow_id=1", "?a=b&completion_code=1", "?flow%5Fid=1"] {
        let options =
            ConsentOptions { return_url: format!("https://app.example/chat{taken}"), ..nowhere.clone() };
        assert_eq!(field(ask(options).await).0, "options.return_url", "{taken}");
    }
    let flow =
        ask(ConsentOptions { return_url: RETURN_URL.to_owned(), ..nowhere }).await.unwrap().flow.unwrap();
    assert!(flow.binding() == ConsentBinding::App);
    let missing = GetCredentialRequest {
        key: Some(files("hostile", "alice")),
        begin_if_missing: Some(bound(ConsentBinding::Confirm)),
        ..Default::default()
    };
    let refused = doors.client(AGENT).await.get_credential(missing).await.map(tonic::Response::into_inner);
    let bad = refused.err().unwrap().get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "begin_if_missing.binding");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_caller_is_given_its_half_again_and_another_one_is_not() {
    let doors = Doors::open().await;
    let ask = async |caller| {
        let request = GetCredentialRequest {
            key: Some(files("hostile", "bob")),
            begin_if_missing: Some(bound(ConsentBinding::App)),
            ..Default::default()
        };
        match doors.client(caller).await.get_credential(request).await.unwrap().into_inner().result.unwrap() {
            GetResult::AuthorizationRequired(required) => required.flow.unwrap(),
            GetResult::Credential(_) => panic!("there is no token"),
        }
    };
    let (first, second, colleague) = (ask(AGENT).await, ask(AGENT).await, ask(BOBS).await);
    assert!(first == second, "link and secret");
    assert_ne!(first.flow_id, colleague.flow_id);
    assert_ne!(first.flow_secret, colleague.flow_secret);
    let page = come_back(&doors, &state_in(&first.authorization_url)).await;
    let (_, code) = brought(&page);
    // With its own half, a colleague completes nothing of the first one's.
    let mut theirs = completion(&first, &code, "bob");
    theirs.flow_secret = colleague.flow_secret;
    let refused = doors.client(BOBS).await.complete_o_auth(theirs).await.err().unwrap();
    assert_eq!(reason(&refused), "COMPLETION_REFUSED");
    nothing_came_of_it(&doors, "bob").await;
}
