//! What is read from a success.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::domain::provider::{AccountPointers, Provider};
use token_broker::domain::token_set::{MAX_LIFETIME, TokenResponse};

use super::refresh_against;
use crate::support::hostile::Reply;
use crate::support::provider::scopes;

async fn read(body: &Value, change: impl FnOnce(&mut Provider)) -> TokenResponse {
    refresh_against(Reply::json(200, body), change).await.unwrap()
}

fn with(name: &str, value: Value) -> Value {
    let mut body = json!({ "access_token": "at-1" });
    body[name] = value;
    body
}

#[tokio::test]
async fn an_ordinary_success() {
    let body = json!({
        "access_token": "at-1",
        "refresh_token": "rt-1",
        "token_type": "bearer",
        "expires_in": 3599,
        "scope": "read write",
        "id_token": "a.b.c",
        "unknown": { "things": [1, 2] },
    });
    let response = read(&body, |_| {}).await;
    assert_eq!(response.access_token.expose_secret(), "at-1");
    assert_eq!(response.refresh_token.unwrap().expose_secret(), "rt-1");
    assert_eq!(response.token_type, "Bearer");
    assert_eq!(response.expires_in, Some(Duration::from_secs(3599)));
    assert_eq!(response.scopes, Some(scopes("read write")));
    assert_eq!(response.id_token.unwrap().expose_secret(), "a.b.c");
    assert!(response.extra.is_empty());
}

#[tokio::test]
async fn the_least_that_is_a_success() {
    let response = read(&json!({ "access_token": "at-1" }), |_| {}).await;
    assert!(response.refresh_token.is_none() && response.id_token.is_none());
    assert_eq!(response.token_type, "Bearer");
    assert_eq!((response.expires_in, response.scopes), (None, None));
    let nulls = json!({
        "access_token": "at-1", "refresh_token": null, "token_type": null, "expires_in": null, "scope": null,
        "id_token": null, "error": null,
    });
    let response = read(&nulls, |_| {}).await;
    assert!(response.refresh_token.is_none() && response.id_token.is_none());
    assert_eq!((response.expires_in, response.scopes), (None, None));
}

#[tokio::test]
async fn an_empty_refresh_token_is_none() {
    assert!(read(&with("refresh_token", json!("")), |_| {}).await.refresh_token.is_none());
    assert!(read(&with("refresh_token", json!(7)), |_| {}).await.refresh_token.is_none());
}

#[tokio::test]
async fn a_success_beside_an_error_is_kept() {
    let response = read(&with("error", json!("partial")), |_| {}).await;
    assert_eq!(response.access_token.expose_secret(), "at-1");
}

#[tokio::test]
async fn token_types() {
    for (given, expected) in [
        (json!("BEARER"), "Bearer"),
        (json!("bot"), "bot"),
        (json!("DPoP"), "DPoP"),
        (json!(""), "Bearer"),
        (json!(1), "Bearer"),
        (json!("a\r\nb"), "Bearer"),
        (json!("x".repeat(65)), "Bearer"),
    ] {
        assert_eq!(read(&with("token_type", given.clone()), |_| {}).await.token_type, expected, "{given}");
    }
}

#[tokio::test]
async fn lifetimes() {
    let default = Some(Duration::from_secs(900));
    for (given, unit, expected) in [
        (json!("3600"), 1_000, Some(Duration::from_hours(1))),
        (json!(3_600_000), 1, Some(Duration::from_hours(1))),
        (json!(0), 1_000, Some(Duration::ZERO)),
        (json!(-5), 1_000, Some(Duration::ZERO)),
        (json!(i64::MAX), 1_000, Some(MAX_LIFETIME)),
        (json!("never"), 1_000, default),
        (Value::Null, 1_000, default),
    ] {
        let body = with("expires_in", given.clone());
        let response = read(&body, |p| {
            p.response.expires_in_unit_ms = unit;
            p.response.default_lifetime = default;
        });
        assert_eq!(response.await.expires_in, expected, "{given}");
    }
}

#[tokio::test]
async fn granted_scopes() {
    let none = Some(scopes(""));
    for (given, separators, expected) in [
        (json!("read write"), " ", Some(scopes("read write"))),
        (json!("read,write"), ",", Some(scopes("read write"))),
        (json!("read, write read"), ", ", Some(scopes("read write"))),
        (json!("read,write"), " ", Some(scopes("read,write"))),
        (json!("  read  "), " ", Some(scopes("read"))),
        (json!("*"), " ", Some(scopes("*"))),
        (json!(["read", "write"]), " ", Some(scopes("read write"))),
        (json!(["read", 5, null, "write"]), " ", Some(scopes("read write"))),
        (json!("read wr\"ite \u{e9}"), " ", Some(scopes("read"))),
        (json!(""), " ", none.clone()),
        (json!([]), " ", none),
        (Value::Null, " ", None),
        (json!(5), " ", None),
        (json!({ "read": true }), " ", None),
    ] {
        let change = |p: &mut Provider| separators.clone_into(&mut p.response.scope_separators);
        assert_eq!(
            read(&with("scope", given.clone()), change).await.scopes,
            expected,
            "{given} by {separators:?}"
        );
    }
}

#[tokio::test]
async fn values_stand_where_the_definition_says() {
    let pointers = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
    let slack = |p: &mut Provider| {
        p.response.success_flag = Some("/ok".to_owned());
        p.response.access_token = pointers(&["/authed_user/access_token", "/access_token"]);
        p.response.refresh_token = pointers(&["/authed_user/refresh_token", "/refresh_token"]);
        p.response.expires_in = pointers(&["/authed_user/expires_in", "/expires_in"]);
        p.response.scope = pointers(&["/authed_user/scope", "/scope"]);
        p.response.scope_separators = ",".to_owned();
        p.response.extra = BTreeMap::from([
            ("team".to_owned(), "/team/id".to_owned()),
            ("bot".to_owned(), "/bot".to_owned()),
        ]);
        p.identity.token_response = Some(AccountPointers {
            subject: "/authed_user/id".to_owned(),
            label: pointers(&["/x", "/team/name"]),
        });
    };
    let exchange = json!({
        "ok": true,
        "access_token": "at-bot",
        "scope": "bot",
        "team": { "id": "T1", "name": "Team" },
        "authed_user": {
            "id": 17, "access_token": "at-1", "refresh_token": "rt-1", "expires_in": 43_200, "scope": "a,b",
        },
    });
    let response = read(&exchange, slack).await;
    assert_eq!(response.access_token.expose_secret(), "at-1");
    assert_eq!(response.refresh_token.unwrap().expose_secret(), "rt-1");
    assert_eq!(response.expires_in, Some(Duration::from_hours(12)));
    assert_eq!(response.scopes, Some(scopes("a b")));
    assert_eq!(response.extra, BTreeMap::from([("team".to_owned(), "T1".to_owned())]));
    assert_eq!(response.account.subject.as_deref(), Some("17"));
    assert_eq!(response.account.label.as_deref(), Some("Team"));

    let at_the_top = json!({ "ok": true, "access_token": "at-2", "refresh_token": "rt-2" });
    let response = read(&at_the_top, slack).await;
    assert_eq!(response.access_token.expose_secret(), "at-2");
    assert_eq!(response.refresh_token.unwrap().expose_secret(), "rt-2");
    assert_eq!(response.account.subject, None);
}

#[tokio::test]
async fn extra_values_are_texts() {
    let body =
        json!({ "access_token": "at-1", "a": "text", "b": 5, "c": true, "d": null, "e": [1], "f/g": "h" });
    let names = ["a", "b", "c", "d", "e", "missing"];
    let response = read(&body, |p| {
        p.response.extra = names.map(|name| (name.to_owned(), format!("/{name}"))).into();
        p.response.extra.insert("escaped".to_owned(), "/f~1g".to_owned());
    });
    let expected = [("a", "text"), ("b", "5"), ("c", "true"), ("escaped", "h")];
    assert_eq!(response.await.extra, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn forms_and_wrong_content_types() {
    let form = "access_token=at%2B1&refresh_token=&scope=repo%2Cgist&token_type=bearer&expires_in=28800";
    let reply = Reply::body(200, "application/x-www-form-urlencoded; charset=utf-8", form);
    let response = refresh_against(reply, |p| p.response.scope_separators = ",".to_owned()).await.unwrap();
    assert_eq!(response.access_token.expose_secret(), "at+1");
    assert!(response.refresh_token.is_none());
    assert_eq!(response.scopes, Some(scopes("repo gist")));
    assert_eq!(response.expires_in, Some(Duration::from_hours(8)));
    for kind in ["text/html; charset=UTF-8", "text/plain", "application/octet-stream", "", "\u{1}"] {
        let reply = Reply::body(200, kind, "{\"access_token\":\"at-1\"}");
        // A header that is not HTTP is not an answer at all.
        let read = refresh_against(reply, |_| {}).await.is_ok();
        assert_eq!(read, kind != "\u{1}", "{kind:?}");
    }
}

#[tokio::test]
async fn any_2xx_with_tokens_is_a_success() {
    for status in [200, 201, 202] {
        let reply = Reply::json(status, &json!({ "access_token": "at-1" }));
        assert!(refresh_against(reply, |_| {}).await.is_ok(), "{status}");
    }
}
