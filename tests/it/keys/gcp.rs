//! Google Cloud KMS, at a stand-in that checks token, checksums and additional data.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use token_broker::infra::crypto::KekError;
use token_broker::infra::crypto::services::{GcpCredentials, GcpKms, GcpKmsSettings};

use super::stand_in::{Bound, Mischief, StandIn, common, plain, unwrap, wrap};

const KEY: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";

/// CRC32C bit by bit (RFC 3720 section 12.1), apart from the library's.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn checked(body: &Value, field: &str) -> Option<Vec<u8>> {
    let bytes = BASE64_STANDARD.decode(body[field].as_str()?).ok()?;
    let told = body[format!("{field}Crc32c")].as_str()?;
    (told.parse() == Ok(crc32c(&bytes))).then_some(bytes)
}

/// Plaintext and additional data of each ciphertext.
type Made = HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

async fn service() -> StandIn {
    let made: Mutex<Made> = Mutex::default();
    StandIn::start(move |seen| {
        let fail = |status: u16, name: &str| {
            (status, json!({ "error": { "code": status, "status": name, "message": "canary" } }).to_string())
        };
        if seen.header("authorization") != "Bearer metadata-token" {
            return fail(401, "UNAUTHENTICATED");
        }
        let body = seen.json();
        let Some(aad) = checked(&body, "additionalAuthenticatedData") else {
            return fail(400, "INVALID_ARGUMENT");
        };
        let mut made = made.lock().unwrap();
        if seen.path == format!("/v1/{KEY}:encrypt") {
            let Some(plaintext) = checked(&body, "plaintext") else { return fail(400, "INVALID_ARGUMENT") };
            let ciphertext = format!("ciphertext of the service {}", made.len()).into_bytes();
            made.insert(ciphertext.clone(), (plaintext, aad));
            let answer = json!({
                "name": format!("{KEY}/cryptoKeyVersions/1"),
                "ciphertext": BASE64_STANDARD.encode(&ciphertext),
                "ciphertextCrc32c": crc32c(&ciphertext).to_string(),
                "verifiedPlaintextCrc32c": true,
                "verifiedAdditionalAuthenticatedDataCrc32c": true,
            });
            (200, answer.to_string())
        } else if seen.path == format!("/v1/{KEY}:decrypt") {
            let Some(ciphertext) = checked(&body, "ciphertext") else { return fail(400, "INVALID_ARGUMENT") };
            match made.get(&ciphertext) {
                Some((plaintext, bound)) if *bound == aad => {
                    let answer = json!({
                        "plaintext": BASE64_STANDARD.encode(plaintext),
                        "plaintextCrc32c": crc32c(plaintext).to_string(),
                    });
                    (200, answer.to_string())
                }
                _ => fail(400, "INVALID_ARGUMENT"),
            }
        } else {
            fail(404, "NOT_FOUND")
        }
    })
    .await
}

/// The machine's metadata service.
async fn machine() -> StandIn {
    StandIn::start(|seen| {
        if seen.header("metadata-flavor") != "Google" {
            return (403, String::new());
        }
        if seen.path.starts_with("/computeMetadata/v1/instance/service-accounts/default/token") {
            let token =
                json!({ "access_token": "metadata-token", "expires_in": 3600, "token_type": "Bearer" });
            return (200, token.to_string());
        }
        (404, String::new())
    })
    .await
}

fn kms(service: &StandIn, credentials: GcpCredentials) -> GcpKms {
    let settings = GcpKmsSettings { key: KEY.to_owned(), endpoint: Some(service.url()), credentials };
    GcpKms::new(settings).unwrap()
}

async fn with_machine() -> (StandIn, GcpKms) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (service, machine) = (service().await, machine().await);
    let endpoint = Some(machine.url().to_string().trim_end_matches('/').to_owned());
    let kms = kms(&service, GcpCredentials::Metadata { endpoint });
    (service, kms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_google_carry_checksums_and_are_bound_and_failures_are_told_by_kind() {
    let (service, kms) = with_machine().await;
    common(&kms, &service).await;
    let bound = Bound::usual();
    let wrapped = wrap(&kms, &bound).await.unwrap();
    for (status, name, expected) in [
        (403, "PERMISSION_DENIED", "refuses"),
        (404, "NOT_FOUND", "refuses"),
        (401, "UNAUTHENTICATED", "refuses"),
        (400, "INVALID_ARGUMENT", "does not open"),
        (429, "RESOURCE_EXHAUSTED", "limits the rate"),
        (503, "UNAVAILABLE", "does not answer"),
    ] {
        let text = json!({ "error": { "status": name, "message": "canary" } }).to_string();
        service.fail_a_call(&Mischief::Answer(status, text));
        let error = unwrap(&kms, &bound, &wrapped).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("canary"), "{name}: {error}");
        while !service.is_done() {
            let _ = unwrap(&kms, &bound, &wrapped).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_damaged_on_the_way_is_not_taken() {
    let (service, kms) = with_machine().await;
    let bound = Bound::usual();
    let wrapped = wrap(&kms, &bound).await.unwrap();
    let ciphertext = b"another ciphertext";
    let encrypted = |name: &str, crc: u32, verified: bool| {
        let answer = json!({
            "name": name,
            "ciphertext": BASE64_STANDARD.encode(ciphertext),
            "ciphertextCrc32c": crc.to_string(),
            "verifiedPlaintextCrc32c": verified,
            "verifiedAdditionalAuthenticatedDataCrc32c": true,
        });
        Mischief::Answer(200, answer.to_string())
    };
    let right = crc32c(ciphertext);
    for damaged in [encrypted(KEY, right ^ 1, true), encrypted(KEY, right, false)] {
        service.fail_a_call(&damaged);
        assert!(matches!(wrap(&kms, &bound).await, Err(KekError::Unavailable(_))));
        assert!(service.is_done(), "it was tried again");
    }
    service.misbehave(encrypted("projects/p/locations/global/keyRings/r/cryptoKeys/other", right, true));
    assert!(matches!(wrap(&kms, &bound).await, Err(KekError::Refused(_))), "another key");
    let plaintext = json!({ "plaintext": BASE64_STANDARD.encode([1; 32]), "plaintextCrc32c": "1" });
    service.fail_a_call(&Mischief::Answer(200, plaintext.to_string()));
    assert!(matches!(unwrap(&kms, &bound, &wrapped).await, Err(KekError::Unavailable(_))));
    let short = json!({ "plaintext": BASE64_STANDARD.encode([1; 31]), "plaintextCrc32c": crc32c(&[1; 31]).to_string() });
    service.misbehave(Mischief::Answer(200, short.to_string()));
    assert_eq!(unwrap(&kms, &bound, &wrapped).await, Err(KekError::DoesNotOpen), "no data key");
    // One damaged answer is asked for again.
    service.misbehave(encrypted(KEY, right ^ 1, true));
    wrap(&kms, &bound).await.unwrap();
    assert_eq!(unwrap(&kms, &bound, &wrapped).await.unwrap(), plain().to_vec());
}

#[test]
fn credentials_that_are_none_are_said_to_be_none() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"type":"canary"}"#,
        r#"{"type":"service_account"}"#,
        r#"{"type":"external_account"}"#,
    ] {
        let settings = GcpKmsSettings {
            key: KEY.to_owned(),
            endpoint: None,
            credentials: GcpCredentials::Json(bad.into()),
        };
        let error = GcpKms::new(settings).unwrap_err().to_string();
        assert!(error.contains("Google Cloud") && !error.contains("canary"), "{bad}: {error}");
    }
}
