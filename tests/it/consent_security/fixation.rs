//! Session fixation: A begins a consent and has B consent. Whatever the binding: no token request, nothing stored.

use token_broker::r#gen::v1::{ConsentBinding, FlowStatus};

use super::login::{Person, sign_in_url};
use super::{assert_ended, begin, brought, come_back, complete, completion, flow_of, nothing_came_of_it};
use crate::support::broker::reason;
use crate::support::doors::{Doors, state_in};

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_by_the_providers_link_is_refused_with_confirm() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "mallory", ConsentBinding::Confirm).await;
    // Mallory confirms in a browser of their own, and sends the provider's link on.
    let state = doors.confirm(&flow).await;
    doors.forget_cookies();
    let page = come_back(&doors, &state).await;
    assert_eq!((page.name(), page.status), ("other-browser", 403));
    assert_ended(&doors, &flow, FlowStatus::Failed, "BROWSER_MISMATCH").await;
    nothing_came_of_it(&doors, "mallory").await;
    // Nor does it help Mallory to come with the code that the victim's browser shows.
    let page = come_back(&doors, &state).await;
    assert_eq!(page.name(), "already-used");
    nothing_came_of_it(&doors, "mallory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_is_refused_when_another_browser_was_let_in_last() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "mallory", ConsentBinding::Confirm).await;
    let state = doors.confirm(&flow).await;
    let first = doors.cookies().clone();
    doors.forget_cookies();
    assert_eq!(doors.confirm(&flow).await, state, "one state for one consent");
    *doors.cookies() = first;
    assert_eq!(come_back(&doors, &state).await.name(), "other-browser");
    nothing_came_of_it(&doors, "mallory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_is_refused_with_app() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "mallory", ConsentBinding::App).await;
    // The victim opens the link that Mallory sent, consents, and comes back to the application.
    doors.forget_cookies();
    let page = come_back(&doors, &state_in(&flow.authorization_url)).await;
    let (_, victims_half) = brought(&page);
    nothing_came_of_it(&doors, "mallory").await;
    // Mallory has one half, and guesses the other.
    for guess in ["guess", &flow.flow_secret, &"A".repeat(43)] {
        let refused = complete(&doors, completion(&flow, guess, "mallory")).await.err().unwrap();
        assert_eq!(reason(&refused), "COMPLETION_REFUSED");
    }
    // The application finds the victim's session, and says so.
    let ended = flow_of(complete(&doors, completion(&flow, &victims_half, "victim")).await);
    assert!(ended.status() == FlowStatus::Failed && ended.failure == "USER_MISMATCH", "{}", ended.failure);
    nothing_came_of_it(&doors, "mallory").await;
    nothing_came_of_it(&doors, "victim").await;
    // The two halves together are of no use any more.
    let again = flow_of(complete(&doors, completion(&flow, &victims_half, "mallory")).await);
    assert!(again.status() == FlowStatus::Failed && again.failure == "USER_MISMATCH");
    nothing_came_of_it(&doors, "mallory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_by_the_brokers_own_link_is_refused_with_login() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|mallory", ConsentBinding::Login).await;
    // The victim opens Mallory's link and signs in, as the victim.
    let victim = Person::of("victim");
    let page = victim.opens_and_signs_in(&doors, &flow).await;
    assert_eq!((page.name(), page.status), ("other-user", 403));
    assert_ended(&doors, &flow, FlowStatus::Failed, "USER_MISMATCH").await;
    nothing_came_of_it(&doors, "login|mallory").await;
    nothing_came_of_it(&doors, "login|victim").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_by_somebody_elses_sign_in_is_refused() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|mallory", ConsentBinding::Login).await;
    // Mallory signs in, stops in front of the way back, and sends that to the victim.
    let mallory = Person::of("mallory");
    let way_back = mallory.way_back(&doors, &sign_in_url(&doors, &flow).await);
    doors.forget_cookies();
    let page = doors.browse(&way_back).await;
    assert_eq!((page.name(), page.status), ("no-cookie", 400));
    // The same when the victim has opened Mallory's link, and so has a key of their own for this very consent.
    sign_in_url(&doors, &flow).await;
    assert_eq!(doors.browse(&way_back).await.name(), "no-cookie");
    assert_eq!(doors.provider.requests().len(), 0, "nor was the sign-in's code exchanged");
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    nothing_came_of_it(&doors, "login|mallory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_fixation_by_the_providers_link_is_refused_with_login() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "login|mallory", ConsentBinding::Login).await;
    // Mallory signs in as Mallory, who may, and sends the provider's link on.
    let page = Person::of("mallory").opens_and_signs_in(&doors, &flow).await;
    assert_eq!(page.status, 303, "{}", page.html);
    let state = state_in(page.headers["location"].to_str().unwrap());
    doors.forget_cookies();
    assert_eq!(come_back(&doors, &state).await.name(), "other-browser");
    assert_ended(&doors, &flow, FlowStatus::Failed, "BROWSER_MISMATCH").await;
    nothing_came_of_it(&doors, "login|mallory").await;
}

/// With *confirm*, a person who reads is protected: the page says whom the account is for, who asks, of which tenant, and what to
/// do with a link that somebody else sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_the_account_the_tenant_the_caller_and_the_danger() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "mallory@evil.example", ConsentBinding::Confirm).await;
    let link: url::Url = flow.authorization_url.parse().unwrap();
    let page = doors.browse(link.path()).await;
    assert_eq!((page.name(), page.status), ("confirm", 200));
    for part in [
        "<bdi>mallory@evil.example</bdi>",
        "<bdi>tenant-a</bdi>",
        "<bdi>agent</bdi>",
        "Hostile",
        "Files",
        "somebody else send you this link",
    ] {
        assert!(page.html.contains(part), "{part}: {}", page.html);
    }
    nothing_came_of_it(&doors, "mallory@evil.example").await;
}
