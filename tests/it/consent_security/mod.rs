//! The rows of "Consent" in docs/SECURITY.md, against a hostile authorization server, hostile browsers and hostile callers. The
//! server's own log says what reached it: zero token requests where zero is due.

mod app;
mod break_glass;
mod browsers;
mod fixation;
mod link;
mod login;
mod races;

use token_broker::r#gen::v1::{
    CompleteOAuthRequest, CompleteOAuthResponse, ConsentBinding, ConsentOptions, Flow, FlowStatus,
    GetCredentialRequest, StartedFlow, get_credential_response::Result as GetResult,
};
use tonic::Status;

use crate::support::doors::{AGENT, Doors, Page, files, state_in};

/// Where the application wants its users back.
const RETURN_URL: &str = "https://app.example/chat/42?a=1&b=2";

/// Options with this binding.
fn bound(binding: ConsentBinding) -> ConsentOptions {
    let return_url = if binding == ConsentBinding::App { RETURN_URL.to_owned() } else { String::new() };
    ConsentOptions { binding: binding.into(), return_url, ..ConsentOptions::default() }
}

/// Begins a consent of a user with this binding.
async fn begin(doors: &Doors, user: &str, binding: ConsentBinding) -> StartedFlow {
    doors.begin_with(AGENT, "hostile", user, bound(binding)).await
}

/// A browser comes back from the provider.
async fn come_back(doors: &Doors, state: &str) -> Page {
    doors.browse(&format!("/oauth/callback/hostile?code=victims-code&state={state}")).await
}

/// What the browser of an *app* consent brings to the application: the flow's id and the completion code.
fn brought(page: &Page) -> (String, String) {
    assert_eq!(page.status, 303, "{}", page.html);
    let url: url::Url = page.headers["location"].to_str().unwrap().parse().unwrap();
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    (value("flow_id"), value("completion_code"))
}

/// An *app* consent whose browser is back: the flow as it was begun, and the completion code.
async fn returned(doors: &Doors, user: &str) -> (StartedFlow, String) {
    let flow = begin(doors, user, ConsentBinding::App).await;
    let page = come_back(doors, &state_in(&flow.authorization_url)).await;
    let (id, code) = brought(&page);
    assert_eq!(id, flow.flow_id);
    (flow, code)
}

fn completion(flow: &StartedFlow, code: &str, user: &str) -> CompleteOAuthRequest {
    CompleteOAuthRequest {
        flow_id: flow.flow_id.clone(),
        flow_secret: flow.flow_secret.clone(),
        completion_code: code.to_owned(),
        user_id: user.to_owned(),
    }
}

async fn complete(doors: &Doors, request: CompleteOAuthRequest) -> Result<CompleteOAuthResponse, Status> {
    doors.client(AGENT).await.complete_o_auth(request).await.map(tonic::Response::into_inner)
}

/// The flow of an answer.
fn flow_of(answer: Result<CompleteOAuthResponse, Status>) -> Flow {
    answer.unwrap().flow.unwrap()
}

/// The access token that agents get for a user; `None`: there is none.
async fn token(doors: &Doors, user: &str) -> Option<String> {
    let request = GetCredentialRequest { key: Some(files("hostile", user)), ..Default::default() };
    match doors.client(AGENT).await.get_credential(request).await.unwrap().into_inner().result.unwrap() {
        GetResult::Credential(credential) => Some(credential.access_token),
        GetResult::AuthorizationRequired(_) => None,
    }
}

/// No token request has reached the provider, and the user has no token.
async fn nothing_came_of_it(doors: &Doors, user: &str) {
    doors.settle().await;
    assert_eq!(doors.provider.requests_at("/token").len(), 0, "a token request reached the provider");
    assert_eq!(token(doors, user).await, None, "something was stored");
}

/// How the flow ended.
async fn assert_ended(doors: &Doors, flow: &StartedFlow, status: FlowStatus, failure: &str) {
    let (is, why) = doors.flow(&flow.flow_id).await;
    assert!(is == status && why == failure, "{} {why}", is.as_str_name());
}
