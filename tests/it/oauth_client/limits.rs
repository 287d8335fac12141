//! How much of an answer is kept, whatever a provider sends. At an exchange what is beyond it is told, so that the grant can be
//! given back; at a refresh the pair is worth more than what came with it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use token_broker::domain::ports::{OAuthClient as _, ProviderFailure};
use token_broker::domain::provider::Provider;
use token_broker::domain::scope::{Scope, ScopeSet};
use token_broker::domain::token_set::{
    Excess, MAX_EXTRA_VALUE_BYTES, MAX_GRANTED_SCOPE_BYTES, MAX_GRANTED_SCOPES, MAX_TOKEN_BYTES,
    TokenResponse,
};

use super::{client, refresh_against, secret};
use crate::support::hostile::{HostileServer, Reply};
use crate::support::provider::{endpoints, provider_at};

/// Two further values.
fn two_values(provider: &mut Provider) {
    provider.response.extra =
        ["team", "url"].map(|name| (name.to_owned(), format!("/{name}"))).into_iter().collect();
}

async fn exchanged(body: &Value) -> TokenResponse {
    let server = HostileServer::start().await;
    server.push(Reply::json(200, body));
    let mut provider = provider_at(&server.base());
    two_values(&mut provider);
    let redirect_uri = "https://broker.example/oauth/callback".parse().unwrap();
    let (written, code, verifier) = (endpoints(&provider), secret("code-1"), secret(&"v".repeat(43)));
    client().exchange_code(&provider, &written, &redirect_uri, &code, &verifier).await.unwrap()
}

async fn refreshed(body: &Value) -> Result<TokenResponse, ProviderFailure> {
    refresh_against(Reply::json(200, body), two_values).await
}

/// A pair with something beside it.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut body = json!({ "access_token": "canary-at", "refresh_token": "canary-rt" });
    body[name] = value.into();
    body
}

fn pair(response: &TokenResponse) -> (&str, &str) {
    let refresh = response.refresh_token.as_ref().map_or("", |token| token.expose_secret());
    (response.access_token.expose_secret(), refresh)
}

#[tokio::test]
async fn a_token_that_is_too_long_is_given_back_or_not_read() {
    for name in ["access_token", "refresh_token"] {
        let longest = with(name, "t".repeat(MAX_TOKEN_BYTES));
        assert_eq!(exchanged(&longest).await.excess, None, "{name}");
        assert_eq!(refreshed(&longest).await.unwrap().excess, None, "{name}");

        let mut beyond = with(name, "t".repeat(MAX_TOKEN_BYTES + 1));
        let response = exchanged(&beyond).await;
        assert_eq!(response.excess, Some(Excess::Token), "{name}");
        let whole = [pair(&response).0.len(), pair(&response).1.len()];
        assert!(whole.contains(&(MAX_TOKEN_BYTES + 1)), "a cut token ends no grant");
        assert_eq!(refreshed(&beyond).await.unwrap_err(), ProviderFailure::Ambiguous, "{name}");
        // It may have spent the token that was presented, whatever else the answer says.
        beyond["error"] = json!("invalid_grant");
        assert_eq!(refreshed(&beyond).await.unwrap_err(), ProviderFailure::Ambiguous, "{name}");
    }
    // It is read and not kept.
    let long = with("id_token", "t".repeat(MAX_TOKEN_BYTES + 1));
    assert_eq!(refreshed(&long).await.unwrap().excess, None);
}

#[tokio::test]
async fn of_too_many_scopes_the_first_in_order_stay() {
    let numbered = |count: usize| (0..count).map(|n| format!("{n:03}")).collect::<Vec<_>>();
    let long = |count: usize| (0..count).map(|n| format!("{n:0>256}")).collect::<Vec<_>>();
    let fit = MAX_GRANTED_SCOPE_BYTES / 256;
    for (given, kept) in [
        (numbered(MAX_GRANTED_SCOPES), MAX_GRANTED_SCOPES),
        (numbered(MAX_GRANTED_SCOPES + 1), MAX_GRANTED_SCOPES),
        (long(fit), fit),
        (long(fit + 1), fit),
    ] {
        let expected: ScopeSet =
            given[..kept].iter().map(|scope| Scope::new(scope.as_str()).unwrap()).collect();
        let excess = (kept < given.len()).then_some(Excess::Values);
        let backwards: Vec<_> = given.iter().rev().cloned().collect();
        for sent in [json!(given.join(" ")), json!(backwards.join(" ")), json!(given), json!(backwards)] {
            for response in [
                exchanged(&with("scope", sent.clone())).await,
                refreshed(&with("scope", sent)).await.unwrap(),
            ] {
                assert_eq!(response.scopes.as_ref(), Some(&expected), "{} scopes", given.len());
                assert_eq!(response.excess, excess, "{} scopes", given.len());
                assert_eq!(pair(&response), ("canary-at", "canary-rt"));
            }
        }
    }
    // Those that the grant has had come first: services are not lost for what came beside them.
    let mut given = numbered(MAX_GRANTED_SCOPES);
    given.push("read".to_owned());
    let response = refreshed(&with("scope", json!(given))).await.unwrap();
    given.remove(MAX_GRANTED_SCOPES - 1);
    assert_eq!((response.scopes.unwrap().to_strings(), response.excess), (given, Some(Excess::Values)));
    // The same one again, and what is no scope, does not count.
    let noise = format!("{}{}", "read ".repeat(1_000), "\u{e9} ".repeat(1_000));
    let response = refreshed(&with("scope", noise)).await.unwrap();
    assert_eq!((response.scopes.unwrap().to_strings(), response.excess), (vec!["read".to_owned()], None));
}

#[tokio::test]
async fn a_further_value_that_is_too_long_is_left_out() {
    let longest = "x".repeat(MAX_EXTRA_VALUE_BYTES);
    for (url, kept) in [(longest.clone(), true), (format!("{longest}x"), false)] {
        let mut body = with("url", url.clone());
        body["team"] = json!("T1");
        let mut expected = BTreeMap::from([("team".to_owned(), "T1".to_owned())]);
        expected.extend(kept.then(|| ("url".to_owned(), url)));
        for response in [exchanged(&body).await, refreshed(&body).await.unwrap()] {
            assert_eq!(response.extra, expected);
            assert_eq!(response.excess, (!kept).then_some(Excess::Values));
            assert_eq!(pair(&response), ("canary-at", "canary-rt"));
        }
    }
}
