//! RFC 9207: the issuer of an authorization response, on success and on errors.

use token_broker::r#gen::v1::FlowStatus;

use crate::support::doors::{AGENT, Doors, ISSUER};
use crate::support::hostile::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_compared_exactly_where_it_is_promised_or_present() {
    let doors = Doors::open().await;
    doors.provider.always("/userinfo", Reply::status(500));
    let foreign = "https://evil.example";
    let slash = format!("{ISSUER}/");
    let case = ISSUER.to_uppercase();
    let table: &[(&str, Option<&str>, &str)] = &[
        ("issuer", Some(ISSUER), "connected"),
        ("issuer", None, "connected"),
        ("issuer", Some(foreign), "failed"),
        ("issuer", Some(&slash), "failed"),
        ("issuer", Some(&case), "failed"),
        ("promises", Some(ISSUER), "connected"),
        ("promises", None, "failed"),
        ("promises", Some(foreign), "failed"),
        // Empty counts as absent (RFC 6749 section 3.1).
        ("promises", Some(""), "failed"),
    ];
    for (provider, iss, expected) in table {
        let asked_before = doors.provider.requests_at("/token").len();
        let (flow, state) = doors.begin(AGENT, provider, "alice").await;
        if *expected == "connected" {
            doors.provider.push(Reply::tokens("at", "rt"));
        }
        let iss = iss.map(|iss| format!("&iss={iss}")).unwrap_or_default();
        let page = doors.browse(&format!("/oauth/callback/{provider}?code=c&state={state}{iss}")).await;
        assert_eq!(page.name(), *expected, "{provider} {iss}");
        let asked = doors.provider.requests_at("/token").len() - asked_before;
        assert_eq!(asked, usize::from(*expected == "connected"), "{provider} {iss}");
        if *expected == "failed" {
            let (status, failure) = doors.flow(&flow).await;
            assert!(status == FlowStatus::Failed && failure == "ID_TOKEN_INVALID", "{failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_compared_on_errors_too() {
    let doors = Doors::open().await;
    for (iss, expected) in [(ISSUER, FlowStatus::Denied), ("https://evil.example", FlowStatus::Failed)] {
        let (flow, state) = doors.begin(AGENT, "promises", "alice").await;
        let link = format!("/oauth/callback/promises?error=access_denied&state={state}&iss={iss}");
        doors.browse(&link).await;
        assert!(doors.flow(&flow).await.0 == expected, "{iss}");
    }
    assert_eq!(doors.provider.requests().len(), 0);
}
