//! The transit engine, at a stand-in that checks token, namespace and associated data.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use token_broker::infra::crypto::KekError;
use token_broker::infra::crypto::services::{Transit, TransitAuth, TransitSettings};

use super::stand_in::{Bound, Mischief, StandIn, common, plain, unwrap, wrap};
use crate::support::clock::ManualClock;

/// The tokens that the stand-in takes.
type Tokens = Arc<Mutex<Vec<String>>>;

async fn service(tokens: Tokens) -> StandIn {
    let made: Mutex<HashMap<String, (Value, Value, Value)>> = Mutex::default();
    StandIn::start(move |seen| {
        let fail = |status: u16, text: &str| (status, json!({ "errors": [text] }).to_string());
        let body = seen.json();
        let login = |token: &str| {
            tokens.lock().unwrap().push(token.to_owned());
            (200, json!({ "auth": { "client_token": token, "lease_duration": 100 } }).to_string())
        };
        match seen.path.as_str() {
            "/v1/auth/kubernetes/login" if body == json!({ "role": "broker", "jwt": "pod-jwt" }) => {
                return login(&format!("kubernetes-{}", tokens.lock().unwrap().len()));
            }
            "/v1/auth/apps/broker/login" if body == json!({ "role_id": "r", "secret_id": "s" }) => {
                return login("approle");
            }
            path if path.starts_with("/v1/auth/") => return fail(400, "canary: invalid login"),
            _ => {}
        }
        if !tokens.lock().unwrap().iter().any(|token| token == seen.header("x-vault-token"))
            || seen.header("x-vault-namespace") != "team-a"
        {
            return fail(403, "permission denied");
        }
        let (aad, context) = (body["associated_data"].clone(), body["context"].clone());
        let mut made = made.lock().unwrap();
        match seen.path.as_str() {
            "/v1/team/transit/encrypt/broker" => {
                let ciphertext = format!("vault:v1:ciphertext{}", made.len());
                made.insert(ciphertext.clone(), (body["plaintext"].clone(), aad, context));
                (200, json!({ "data": { "ciphertext": ciphertext, "key_version": 1 } }).to_string())
            }
            "/v1/team/transit/decrypt/broker" => match made.get(body["ciphertext"].as_str().unwrap()) {
                None => fail(400, "invalid ciphertext: no prefix"),
                Some((_, bound, _)) if *bound != aad => fail(400, "cipher: message authentication failed"),
                Some((_, _, derived)) if *derived != context => {
                    fail(400, "cipher: message authentication failed")
                }
                Some((plaintext, ..)) => (200, json!({ "data": { "plaintext": plaintext } }).to_string()),
            },
            _ => fail(404, "no handler for route"),
        }
    })
    .await
}

fn transit(service: &StandIn, auth: TransitAuth, derived: bool, clock: &Arc<ManualClock>) -> Transit {
    let settings = TransitSettings {
        address: service.url(),
        mount: "team/transit".to_owned(),
        key: "broker".to_owned(),
        namespace: Some("team-a".to_owned()),
        derived,
        authorities: None,
        auth,
    };
    Transit::new(settings, clock.clone()).unwrap()
}

fn file(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn calls_to_transit_are_bound_and_failures_are_told_by_kind() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(folder.path(), "token", "agent-token\n");
    let service = service(Arc::new(Mutex::new(vec!["agent-token".to_owned()]))).await;
    let clock = Arc::new(ManualClock::new());
    let kek = transit(&service, TransitAuth::TokenFile(token.clone()), false, &clock);
    common(&kek, &service).await;
    let first = service.seen()[0].json();
    assert!(first.get("context").is_none() && first["associated_data"].is_string());
    let derived = transit(&service, TransitAuth::TokenFile(token.clone()), true, &clock);
    let wrapped = wrap(&derived, &Bound::usual()).await.unwrap();
    assert_eq!(unwrap(&derived, &Bound::usual(), &wrapped).await.unwrap(), plain().to_vec());
    assert_eq!(unwrap(&kek, &Bound::usual(), &wrapped).await, Err(KekError::DoesNotOpen), "no context");
    // A sealed service, a key of a kind that takes no associated data, a role without the right.
    for (status, text, expected) in [
        (503, "Vault is sealed", "does not answer"),
        (400, "associated_data not supported", "refuses"),
        (403, "permission denied", "refuses"),
        (404, "no handler for route", "refuses"),
    ] {
        service.fail_a_call(&Mischief::Answer(status, json!({ "errors": [text] }).to_string()));
        let error = wrap(&kek, &Bound::usual()).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains(text), "{text}: {error}");
        while !service.is_done() {
            let _ = wrap(&kek, &Bound::usual()).await;
        }
    }
    // The file is read for each call: an agent replaces the token.
    std::fs::write(&token, "another").unwrap();
    assert!(matches!(wrap(&kek, &Bound::usual()).await, Err(KekError::Refused(_))));
    std::fs::remove_file(&token).unwrap();
    assert!(matches!(wrap(&kek, &Bound::usual()).await, Err(KekError::NoCredentials(_))));
}

#[tokio::test]
async fn a_kubernetes_login_is_kept_renewed_and_repeated_when_its_token_was_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let jwt = file(folder.path(), "jwt", "pod-jwt");
    let tokens: Tokens = Arc::default();
    let service = service(tokens.clone()).await;
    let clock = Arc::new(ManualClock::new());
    let auth = |role: &str| TransitAuth::Kubernetes {
        mount: "kubernetes".to_owned(),
        role: role.to_owned(),
        token_file: jwt.clone(),
    };
    let kek = transit(&service, auth("broker"), false, &clock);
    let logins = || service.seen().iter().filter(|seen| seen.path.ends_with("/login")).count();
    for _ in 0..3 {
        wrap(&kek, &Bound::usual()).await.unwrap();
    }
    assert_eq!(logins(), 1);
    clock.advance(Duration::from_secs(81));
    wrap(&kek, &Bound::usual()).await.unwrap();
    assert_eq!(logins(), 2, "before its lease of 100 s ends");
    tokens.lock().unwrap().clear();
    wrap(&kek, &Bound::usual()).await.unwrap();
    assert_eq!(logins(), 3, "once more");
    let other = transit(&service, auth("other"), false, &clock);
    let error = wrap(&other, &Bound::usual()).await.unwrap_err();
    assert!(matches!(&error, KekError::NoCredentials(text) if !text.contains("canary")), "{error}");
}

#[tokio::test]
async fn an_approle_logs_in_with_the_secret_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = file(folder.path(), "secret", "s\n");
    let service = service(Arc::default()).await;
    let auth = TransitAuth::AppRole {
        mount: "apps/broker".to_owned(),
        role_id: "r".to_owned(),
        secret_id_file: secret,
    };
    let kek = transit(&service, auth, false, &Arc::new(ManualClock::new()));
    let wrapped = wrap(&kek, &Bound::usual()).await.unwrap();
    assert_eq!(unwrap(&kek, &Bound::usual(), &wrapped).await.unwrap(), plain().to_vec());
}

#[test]
fn authorities_that_are_none_are_said_to_be_none() {
    for bad in
        [&b""[..], b"not a certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let settings = TransitSettings {
            address: url::Url::parse("https://vault.example/").unwrap(),
            mount: "transit".to_owned(),
            key: "k".to_owned(),
            namespace: None,
            derived: false,
            authorities: Some(bad.to_vec()),
            auth: TransitAuth::TokenFile("/nowhere".into()),
        };
        assert!(Transit::new(settings, Arc::new(ManualClock::new())).is_err());
    }
}
