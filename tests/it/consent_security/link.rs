//! The broker's own link: opening it spends nothing, and nobody but its page sends its form.

use std::time::Duration;

use token_broker::r#gen::v1::{ConsentBinding, FlowStatus, StartedFlow};

use super::{assert_ended, begin, come_back, nothing_came_of_it};
use crate::support::doors::Doors;
use crate::support::hostile::Reply;

fn path(flow: &StartedFlow) -> String {
    let link: url::Url = flow.authorization_url.parse().unwrap();
    assert!(link.as_str().starts_with("https://broker.example/connect/"), "{link}");
    link.path().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_link_spends_nothing_however_often_and_by_whatever_program() {
    let doors = Doors::open().await;
    for binding in [ConsentBinding::Confirm, ConsentBinding::Login] {
        let flow = begin(&doors, "login|alice", binding).await;
        let before = doors.rows().await;
        for _ in 0..3 {
            assert_eq!(doors.browse(&path(&flow)).await.status, 200);
            doors.forget_cookies();
        }
        for method in ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let page = doors.browse_with(method.parse().unwrap(), &path(&flow)).await;
            assert_eq!(
                (page.status, &page.headers["allow"]),
                (405, &"GET, POST".parse().unwrap()),
                "{method}"
            );
        }
        assert_eq!(doors.rows().await, before);
    }
    assert_eq!(doors.provider.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_no_state_and_a_state_is_no_link() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let state = doors.confirm(&flow).await;
    let (_, handle) = flow.authorization_url.rsplit_once('/').unwrap();
    assert_ne!(handle, state);
    assert_eq!(doors.browse(&format!("/connect/{state}")).await.name(), "invalid");
    assert_eq!(come_back(&doors, handle).await.name(), "invalid");
    assert_ended(&doors, &flow, FlowStatus::Pending, "").await;
    let rows = doors.rows().await;
    assert!(
        !rows.contains(handle) && !rows.contains(&hex::encode_upper(handle)),
        "the database has its hash"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_flipped_or_late_link_is_none() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let good = path(&flow);
    let flipped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    for bad in [
        "/connect/".to_owned(),
        "/connect/x".to_owned(),
        format!("/connect/{}", "A".repeat(43)),
        flipped,
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        format!("{good}/"),
        format!("{good}%00"),
        format!("/connect/{}", flow.flow_id),
    ] {
        let page = doors.browse(&bad).await;
        assert_eq!((page.name(), page.status), ("invalid", 400), "{bad}");
        assert!(page.headers.get("set-cookie").is_none());
        assert_eq!(doors.submit(&bad, "token").await.name(), "invalid", "{bad}");
    }
    doors.clock.advance(Duration::from_secs(600));
    assert_eq!(doors.browse(&good).await.name(), "expired");
    assert_eq!(doors.submit(&good, "token").await.name(), "expired");
    nothing_came_of_it(&doors, "alice").await;
}

/// Another site can have the victim's browser open the link, and send any form; it can neither read the page nor have the
/// cookie sent along.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_the_page_did_not_make_lets_nobody_in() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let link = path(&flow);
    // The attacker's own page and cookie.
    let attackers = doors.browse(&link).await.form_token();
    doors.forget_cookies();
    let before = doors.rows().await;
    for (name, token, opens) in [
        ("without the cookie", attackers.clone(), false),
        ("with the cookie of another page", attackers, true),
        ("a guess", "A".repeat(43), true),
        ("nothing", String::new(), true),
    ] {
        doors.forget_cookies();
        if opens {
            doors.browse(&link).await;
        }
        let page = doors.submit(&link, &token).await;
        assert_eq!((page.name(), page.status), ("no-cookie", 400), "{name}");
    }
    let good = doors.browse(&link).await.form_token();
    let send = async |kind: Option<&str>, body: String| {
        let url = format!("http://{}{link}", doors.public);
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().post(url).body(body);
        for (name, value) in &*doors.cookies() {
            request = request.header("cookie", format!("{name}={value}"));
        }
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(send(None, format!("token={good}")).await, 400);
    assert_eq!(send(Some("text/plain"), format!("token={good}")).await, 400);
    assert_eq!(send(form, format!("token={good}&token={good}")).await, 400);
    assert_eq!(send(form, format!("token={good}&x={}", "x".repeat(2_000))).await, 400);
    assert_eq!(send(form, String::new()).await, 400);
    assert_eq!(doors.rows().await, before, "nobody was let in");
    assert_eq!(doors.submit(&link, &good).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_of_this_host_alone_and_of_no_script() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let page = doors.browse(&path(&flow)).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    let (name, key) = pair.split_once('=').unwrap();
    assert_eq!((name, key.len()), (&*format!("__Host-tb-{}", flow.flow_id), 43));
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=600; Secure");
    assert!(!page.html.contains(key), "the page does not show it");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let targets = format!("; form-action 'self' https: {}; ", doors.provider.base());
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains(&targets), "{policy}");
    assert!(policy.ends_with("frame-ancestors 'none'"));
    // Opened again, the same browser keeps its key: two tabs do not shut each other out.
    doors.browse(&path(&flow)).await;
    assert_eq!(doors.cookies()[name], key);
    // On this machine without https there is no such prefix.
    let doors = Doors::open_with("http://127.0.0.1:8080", Duration::from_secs(60)).await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let link: url::Url = flow.authorization_url.parse().unwrap();
    let page = doors.browse(link.path()).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with(&format!("tb-{}=", flow.flow_id)) && !cookie.contains("Secure"), "{cookie}");
}

/// Makes cookies of the name and the value of the right one.
type Forge = fn(&str, &str) -> Vec<(String, String)>;

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_cookie_ends_the_consent_without_a_token_request() {
    let doors = Doors::open().await;
    let (other, _) = doors.begin(super::AGENT, "hostile", "bob").await;
    let others_key = doors.cookies()[&format!("__Host-tb-{other}")].clone();
    let table: &[(&str, Forge)] = &[
        ("none", |_, _| vec![]),
        ("flipped", |name, key| {
            vec![(name.into(), format!("{}{}", &key[..42], if key.ends_with('A') { 'B' } else { 'A' }))]
        }),
        ("truncated", |name, key| vec![(name.into(), key[..42].into())]),
        ("empty", |name, _| vec![(name.into(), String::new())]),
        ("longer", |name, key| vec![(name.into(), format!("{key}A"))]),
        ("quoted", |name, key| vec![(name.into(), format!("\"{key}\""))]),
        ("without the prefix", |name, key| vec![(name.replace("__Host-", ""), key.into())]),
        ("in another case", |name, key| vec![(name.replace("__Host-", "__host-"), key.into())]),
        ("of no flow", |_, key| vec![("__Host-tb-".into(), key.into())]),
    ];
    for (case, forge) in table {
        let (flow, state) = doors.begin(super::AGENT, "hostile", "alice").await;
        let name = format!("__Host-tb-{flow}");
        let key = doors.cookies().remove(&name).unwrap();
        doors.cookies().extend(forge(&name, &key));
        let page = come_back(&doors, &state).await;
        assert_eq!((page.name(), page.status), ("other-browser", 403), "{case}");
        let (status, failure) = doors.flow(&flow).await;
        assert!(status == FlowStatus::Failed && failure == "BROWSER_MISMATCH", "{case}: {failure}");
        doors.cookies().retain(|name, _| name.ends_with(&other));
    }
    let (flow, state) = doors.begin(super::AGENT, "hostile", "alice").await;
    doors.cookies().insert(format!("__Host-tb-{flow}"), others_key);
    assert_eq!(come_back(&doors, &state).await.name(), "other-browser", "another flow's key");
    nothing_came_of_it(&doors, "alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_another_browser_is_no_answer_of_the_users() {
    let doors = Doors::open().await;
    let (flow, state) = doors.begin(super::AGENT, "hostile", "alice").await;
    doors.forget_cookies();
    let page = doors.browse(&format!("/oauth/callback/hostile?error=access_denied&state={state}")).await;
    assert_eq!(page.name(), "other-browser");
    let (status, failure) = doors.flow(&flow).await;
    assert!(status == FlowStatus::Failed && failure == "BROWSER_MISMATCH", "not DENIED: {failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_followed_to_its_end_is_used() {
    let doors = Doors::open().await;
    let flow = begin(&doors, "alice", ConsentBinding::Confirm).await;
    let state = doors.confirm(&flow).await;
    // Back and again: the same browser goes on as often as it likes while the consent is pending.
    assert_eq!(doors.confirm(&flow).await, state);
    doors.provider.push(Reply::tokens("at-1", "rt-1"));
    doors.provider.push_at("/userinfo", Reply::status(500));
    assert_eq!(come_back(&doors, &state).await.name(), "connected");
    assert_eq!(doors.browse(&path(&flow)).await.name(), "already-used");
    assert_eq!(doors.submit(&path(&flow), "token").await.name(), "already-used");
    assert_eq!(doors.provider.requests_at("/token").len(), 1);
}
