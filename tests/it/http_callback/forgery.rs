//! Forged, altered, replayed, foreign, late and parallel returns. The provider's token endpoint hears of none of them.

use std::collections::BTreeSet;
use std::time::Duration;

use token_broker::r#gen::v1::FlowStatus;
use token_broker::r#gen::v1::{CancelFlowRequest, RevokeRequest};

use crate::support::doors::{AGENT, Doors, Page, files};
use crate::support::hostile::{Gate, Reply};

/// No token request, nothing changed.
async fn assert_untouched(doors: &Doors, before: &str, case: &str) {
    assert_eq!(doors.provider.requests().len(), 0, "{case}: the provider was asked");
    assert_eq!(doors.rows().await, before, "{case}: something was stored");
}

/// The same state with one character changed.
fn flipped(state: &str, at: usize) -> String {
    let other = if state.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &state[..at], &state[at + 1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_exactly_the_link_is_invalid() {
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    let before = doors.rows().await;
    let long = "x".repeat(9_000);
    let queries = [
        String::new(),
        "code=c".to_owned(),
        format!("state={state}"),
        format!("state={state}&code="),
        "state=&code=c".to_owned(),
        "state=guess&code=c".to_owned(),
        format!("state={}&code=c", "A".repeat(43)),
        format!("state={}&code=c", flipped(&state, 0)),
        format!("state={}&code=c", flipped(&state, 20)),
        format!("state={}&code=c", &state[..state.len() - 1]),
        format!("state={state}A&code=c"),
        format!("state={state}%20&code=c"),
        format!("state={state}%00&code=c"),
        format!("state={state}=&code=c"),
        format!("state={}&code=c", state.to_uppercase()),
        format!("STATE={state}&code=c"),
        format!("state={state}&state={state}&code=c"),
        format!("state={state}&code=c&code=d"),
        format!("state={state}&code=%00"),
        format!("state={state}&code=%ff"),
        format!("state={state}&code={long}"),
        format!("error=access_denied&state={}", flipped(&state, 1)),
        "error=access_denied".to_owned(),
    ];
    for query in queries {
        let page = doors.browse(&format!("/oauth/callback/hostile?{query}")).await;
        let case = query.get(..80).unwrap_or(&query);
        assert_eq!((page.name(), page.status), ("invalid", 400), "{case}");
        assert_untouched(&doors, &before, case).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_providers_address_does_not_spend_the_link() {
    let doors = Doors::open().await;
    let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
    let before = doors.rows().await;
    for provider in ["other", "issuer", "no-such", "HOSTILE", "hostile%20", "..%2fhostile", "%3Cscript%3E"] {
        let page = doors.browse(&format!("/oauth/callback/{provider}?code=c&state={state}")).await;
        assert_eq!(page.name(), "invalid", "{provider}");
        assert_untouched(&doors, &before, provider).await;
    }
    assert!(doors.flow(&flow).await.0 == FlowStatus::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_once() {
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.always("/userinfo", Reply::status(500));
    let link = format!("/oauth/callback/hostile?code=c&state={state}");
    assert_eq!(doors.browse(&link).await.name(), "connected");
    let before = doors.rows().await;
    for replay in [&link, &format!("/oauth/callback/hostile?error=access_denied&state={state}")] {
        let page = doors.browse(replay).await;
        assert_eq!((page.name(), page.status), ("already-used", 410));
    }
    assert_eq!(doors.rows().await, before);
    assert_eq!(doors.provider.requests_at("/token").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_for_ten_minutes() {
    let doors = Doors::open().await;
    let (flow, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.clock.advance(Duration::from_secs(600));
    let before = doors.rows().await;
    let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
    assert_eq!((page.name(), page.status), ("expired", 410));
    assert_untouched(&doors, &before, "expired").await;
    assert!(doors.flow(&flow).await.0 == FlowStatus::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_link_works_no_more() {
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let (cancelled, first) = doors.begin(AGENT, "hostile", "alice").await;
    client.cancel_flow(CancelFlowRequest { flow_id: cancelled }).await.unwrap();
    let (_, second) = doors.begin(AGENT, "hostile", "alice").await;
    client
        .revoke(RevokeRequest { key: Some(files("hostile", "alice")), ..Default::default() })
        .await
        .unwrap();
    let before = doors.rows().await;
    for state in [first, second] {
        let page = doors.browse(&format!("/oauth/callback/hostile?code=c&state={state}")).await;
        assert_eq!(page.name(), "already-used");
    }
    assert_untouched(&doors, &before, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_browsers_at_once_one_wins() {
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    let gate = Gate::default();
    doors.provider.push(Reply::tokens("at-1", "rt-1").held_by(&gate));
    doors.provider.always("/userinfo", Reply::status(500));
    let link = format!("/oauth/callback/hostile?code=c&state={state}");
    let browsers = futures_util::future::join_all((0..50).map(|_| doors.browse(&link)));
    let release = async {
        doors.provider.wait_for_requests(1).await;
        gate.release();
    };
    let (pages, ()) = tokio::join!(browsers, release);
    let names: Vec<_> = pages.iter().map(Page::name).collect();
    assert_eq!(names.iter().filter(|name| **name == "connected").count(), 1, "{names:?}");
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(["already-used", "connected"]));
    assert_eq!(doors.provider.requests_at("/token").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_spends_a_link() {
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    let before = doors.rows().await;
    let link = format!("/oauth/callback/hostile?code=c&state={state}");
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let page = doors.browse_with(method.clone(), &link).await;
        assert_eq!(page.status, 405, "{method}");
        assert_eq!(page.headers["allow"], "GET");
        assert_untouched(&doors, &before, method.as_str()).await;
    }
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.always("/userinfo", Reply::status(500));
    assert_eq!(doors.browse(&link).await.name(), "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_every_parameter_goes_nowhere() {
    let doors = Doors::open().await;
    let markup = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E%27%7B%7B7*7%7D%7D";
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    let queries = [
        format!("state={markup}&code={markup}&iss={markup}&scope={markup}"),
        format!("error={markup}&error_description={markup}&error_uri={markup}&state={state}"),
        format!("{markup}={markup}&state={markup}"),
    ];
    for query in queries {
        let page = doors.browse(&format!("/oauth/callback/hostile?{query}")).await;
        for trace in ["<script>alert", "alert(1)", "{{7*7}}", "49", "%22%3E", &state] {
            assert!(!page.html.contains(trace), "{trace} in the page of {query}");
        }
        assert!(!format!("{:?}", page.headers).contains("alert"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_holds_neither_code_nor_state_nor_token() {
    let doors = Doors::open().await;
    let (_, state) = doors.begin(AGENT, "hostile", "alice").await;
    doors.provider.push(Reply::tokens("canary-at", "canary-rt"));
    let email = serde_json::json!({ "sub": "1", "email": "<b>alice</b>@example.com" });
    doors.provider.push_at("/userinfo", Reply::json(200, &email));
    let link = format!("/oauth/callback/hostile?code=canary-code&state={state}");
    for expected in ["connected", "already-used"] {
        let page = doors.browse(&link).await;
        assert_eq!(page.name(), expected);
        for secret in ["canary", &state] {
            assert!(!page.html.contains(secret), "{expected}");
            assert!(!format!("{:?}", page.headers).contains(secret), "{expected}");
        }
        assert!(!page.html.contains("<b>alice"), "what the provider says is text");
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        assert_eq!(page.headers["cache-control"], "no-store");
    }
}
