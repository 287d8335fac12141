//! A vault over a key service: at the start, and when the service goes away later.

use std::sync::Arc;

use serde_json::json;
use token_broker::domain::cipher::{Cipher as _, CipherError, Field};
use token_broker::domain::secret::SecretString;
use token_broker::infra::crypto::services::{Transit, TransitAuth, TransitSettings};
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, VaultError};

use super::stand_in::{Mischief, StandIn};
use super::world::{kek, open, seal, vault};
use crate::contract::samples::{grant_id, key, key_of, tenant};
use crate::contract::{self, Stores};
use crate::support::clock::ManualClock;

/// A transit engine that gives back what it was given, without looking.
async fn service() -> StandIn {
    StandIn::start(|seen| {
        let body = seen.json();
        let (plain, sealed) = (&body["plaintext"], &body["ciphertext"]);
        let bound = body["associated_data"].as_str().unwrap();
        match (plain.as_str(), sealed.as_str()) {
            (Some(plain), _) => {
                (200, json!({ "data": { "ciphertext": format!("vault:v1:{plain}:{bound}") } }).to_string())
            }
            (_, Some(sealed)) => {
                let mut parts = sealed.split(':').skip(2);
                let (plain, of) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                if of == bound {
                    (200, json!({ "data": { "plaintext": plain } }).to_string())
                } else {
                    (400, json!({ "errors": ["cipher: message authentication failed"] }).to_string())
                }
            }
            _ => (400, String::new()),
        }
    })
    .await
}

fn keyring(service: &StandIn, folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Keyring {
    let token = folder.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let settings = TransitSettings {
        address: service.url(),
        mount: "transit".to_owned(),
        key: "k".to_owned(),
        namespace: None,
        derived: false,
        authorities: None,
        auth: TransitAuth::TokenFile(token),
    };
    let transit = Arc::new(Transit::new(settings, clock.clone()).unwrap());
    Keyring::new(vec![kek("file", 1), KeyEncryptionKey::remote("cloud", transit).unwrap()], "cloud").unwrap()
}

async fn populated(
    stores: &Stores,
    ring: Keyring,
    clock: &Arc<ManualClock>,
) -> token_broker::domain::credential::Sealed {
    seal(&vault(stores, ring, clock), &key("alice"), grant_id(1), Field::Profile, "profile").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_service_that_cannot_be_used_is_told_of_at_the_start() {
    let (stores, service, folder) = (contract::sqlite().await, service().await, tempfile::tempdir().unwrap());
    let clock = Arc::new(ManualClock::new());
    let fresh = || vault(&stores, keyring(&service, &folder, &clock), &clock);
    fresh().check().await.unwrap();
    assert_eq!(service.seen().len(), 2, "an empty database: the active key is tried");
    for (answer, expected) in [
        (Mischief::Answer(403, json!({ "errors": ["permission denied"] }).to_string()), "refuses"),
        (Mischief::Answer(503, json!({ "errors": ["sealed"] }).to_string()), "does not answer"),
    ] {
        service.fail_a_call(&answer);
        let error = fresh().check().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, VaultError::KeyService { .. }), "{text}");
        assert!(text.contains("\"cloud\"") && text.contains(expected), "{text}");
        while !service.is_done() {
            let _ = fresh().check().await;
        }
    }
    populated(&stores, keyring(&service, &folder, &clock), &clock).await;
    // It answers, with another key: that is a wrong key, not an outage.
    let wrong = json!({ "errors": ["cipher: message authentication failed"] }).to_string();
    service.misbehave(Mischief::Answer(400, wrong));
    let error = fresh().check().await.unwrap_err();
    assert!(matches!(&error, VaultError::Keys { wrong, .. } if wrong.contains("cloud")), "{error}");
    // A service that holds a key in use and is away.
    service.fail_a_call(&Mischief::Answer(503, String::new()));
    assert!(matches!(fresh().check().await, Err(VaultError::KeyService { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_service_is_away_what_is_in_memory_goes_on_and_the_rest_is_unavailable() {
    let (stores, service, folder) = (contract::sqlite().await, service().await, tempfile::tempdir().unwrap());
    let clock = Arc::new(ManualClock::new());
    let sealed = populated(&stores, keyring(&service, &folder, &clock), &clock).await;
    let warm = vault(&stores, keyring(&service, &folder, &clock), &clock);
    let alice = key("alice");
    let read = async |vault| open(vault, &alice, grant_id(1), Field::Profile, &sealed).await;
    assert_eq!(read(&warm).await.unwrap(), "profile");
    seal(&warm, &alice, grant_id(1), Field::Profile, "warm").await;
    let calls = service.seen().len();
    let cold = vault(&stores, keyring(&service, &folder, &clock), &clock);
    service.fail_a_call(&Mischief::Answer(503, String::new()));
    let failed = read(&cold).await;
    assert!(matches!(failed, Err(CipherError::KeyService(_))), "never \"not connected\": {failed:?}");
    assert_eq!(service.seen().len(), calls + 3);
    assert_eq!(read(&warm).await.unwrap(), "profile", "without a call");
    seal(&warm, &alice, grant_id(1), Field::Profile, "warm").await;
    assert_eq!(service.seen().len(), calls + 3);
    service.fail_a_call(&Mischief::Answer(503, String::new()));
    let first = cold.fingerprint(&tenant("acme"), &SecretString::from("t")).await;
    assert!(matches!(first, Err(CipherError::KeyService(_))), "{first:?}");
    assert_eq!(read(&cold).await.unwrap(), "profile", "it is back");
    // Many that wait for one data key are one call.
    let other = key_of("other", "google", "bob", "mail", "default");
    seal(&warm, &other, grant_id(1), Field::Profile, "x").await;
    let cold = Arc::new(vault(&stores, keyring(&service, &folder, &clock), &clock));
    let before = service.seen().len();
    let reads = (0..20).map(|_| {
        let cold = cold.clone();
        let (alice, sealed) = (alice.clone(), sealed.clone());
        tokio::spawn(async move { open(&cold, &alice, grant_id(1), Field::Profile, &sealed).await.unwrap() })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap();
    }
    assert_eq!(service.seen().len(), before + 1);
}
