//! AWS KMS, at a stand-in that recomputes every signature, compares the encryption context, and hands out credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use token_broker::infra::crypto::KekError;
use token_broker::infra::crypto::services::{AwsEnvironment, AwsKms, AwsKmsSettings};

use super::stand_in::{Bound, Mischief, Seen, StandIn, common, plain, unwrap, wrap};
use crate::support::clock::ManualClock;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
/// Keys of the usual examples, of nobody.
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The signature by the letter of AWS's description, apart from the library's.
fn is_signed(seen: &Seen, id: &str, secret: &str) -> bool {
    let authorization = seen.header("authorization");
    let field = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        Some(rest.split(',').next()?.trim().to_owned())
    };
    let (Some(credential), Some(headers), Some(signature)) =
        (field("Credential"), field("SignedHeaders"), field("Signature"))
    else {
        return false;
    };
    let date = seen.header("x-amz-date");
    let day = &date[..8];
    let scope = format!("{day}/eu-central-1/kms/aws4_request");
    let required = ["host", "x-amz-date", "x-amz-target"];
    let signed: Vec<&str> = headers.split(';').collect();
    if credential != format!("{id}/{scope}") || !required.iter().all(|name| signed.contains(name)) {
        return false;
    }
    let line = |name: &&str| [*name, ":", seen.header(name).trim(), "\n"].concat();
    let canonical = signed.iter().map(line).collect::<Vec<_>>().concat();
    let body = hex::encode(Sha256::digest(&seen.body));
    let request = format!("{}\n{}\n\n{canonical}\n{headers}\n{body}", seen.method, seen.path);
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(request.as_bytes())));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, "eu-central-1", "kms", "aws4_request"] {
        key = mac(&key, part);
    }
    hex::encode(mac(&key, &to_sign)) == signature
}

/// Which credentials the stand-in takes: secret and session token by id.
type Known = Arc<Mutex<HashMap<String, (String, Option<String>)>>>;

async fn service(known: Known) -> StandIn {
    let blobs: Mutex<HashMap<String, (Value, Value)>> = Mutex::default();
    StandIn::start(move |seen| {
        let fail = |code: &str| (400, json!({ "__type": code, "message": "canary message" }).to_string());
        let id = seen.header("authorization").split("Credential=").nth(1).unwrap_or_default();
        let id = id.split('/').next().unwrap_or_default();
        let Some((secret, token)) = known.lock().unwrap().get(id).cloned() else {
            return fail("UnrecognizedClientException");
        };
        if seen.header("x-amz-security-token") != token.unwrap_or_default() {
            return fail("ExpiredTokenException");
        }
        if !is_signed(seen, id, &secret) {
            return fail("InvalidSignatureException");
        }
        let body = seen.json();
        if body["KeyId"] != KEY || seen.header("content-type") != "application/x-amz-json-1.1" {
            return fail("NotFoundException");
        }
        let context = body["EncryptionContext"].clone();
        let mut blobs = blobs.lock().unwrap();
        match seen.header("x-amz-target") {
            "TrentService.Encrypt" => {
                let blob = BASE64_STANDARD.encode(format!("blob of the service {}", blobs.len()));
                blobs.insert(blob.clone(), (body["Plaintext"].clone(), context));
                (200, json!({ "CiphertextBlob": blob, "KeyId": KEY }).to_string())
            }
            "TrentService.Decrypt" => match blobs.get(body["CiphertextBlob"].as_str().unwrap()) {
                Some((plaintext, bound)) if *bound == context => {
                    (200, json!({ "Plaintext": plaintext, "KeyId": KEY }).to_string())
                }
                _ => fail("com.amazonaws.kms#InvalidCiphertextException"),
            },
            _ => fail("UnknownOperationException"),
        }
    })
    .await
}

fn known(id: &str, secret: &str, token: Option<&str>) -> Known {
    Arc::new(Mutex::new([(id.to_owned(), (secret.to_owned(), token.map(str::to_owned)))].into()))
}

fn from_variables(secret: &str) -> AwsEnvironment {
    AwsEnvironment {
        access_key_id: Some(ID.to_owned()),
        secret_access_key: Some(secret.into()),
        ..AwsEnvironment::default()
    }
}

fn kms(service: &StandIn, environment: AwsEnvironment, clock: &Arc<ManualClock>) -> AwsKms {
    let settings = AwsKmsSettings {
        key: KEY.to_owned(),
        region: "eu-central-1".to_owned(),
        endpoint: Some(service.url()),
        environment,
    };
    AwsKms::new(settings, clock.clone()).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new())
}

#[tokio::test]
async fn calls_to_aws_are_signed_and_bound_and_failures_are_told_by_kind() {
    let service = service(known(ID, SECRET, None)).await;
    let kms = kms(&service, from_variables(SECRET), &clock());
    common(&kms, &service).await;
    let context = service.seen()[0].json()["EncryptionContext"].clone();
    assert_eq!(
        context,
        json!({
            "token-broker:data-key": "07070707070707070707070707070707",
            "token-broker:tenant": "acme",
            "token-broker:purpose": "encryption",
            "token-broker:kek": "cloud",
        })
    );
    let bound = Bound::usual();
    let wrapped = wrap(&kms, &bound).await.unwrap();
    for (code, expected) in [
        ("AccessDeniedException", "refuses"),
        ("DisabledException", "refuses"),
        ("NotFoundException", "refuses"),
        ("KMSInvalidStateException", "refuses"),
        ("IncorrectKeyException", "does not open"),
        ("InvalidCiphertextException", "does not open"),
        ("ThrottlingException", "limits the rate"),
        ("KMSInternalException", "does not answer"),
        ("DependencyTimeoutException", "does not answer"),
        ("ExpiredTokenException", "does not answer"),
    ] {
        let answer = Mischief::Answer(400, json!({ "__type": code, "message": "canary" }).to_string());
        service.fail_a_call(&answer);
        let error = unwrap(&kms, &bound, &wrapped).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("canary"), "{code}: {error}");
        while !service.is_done() {
            let _ = unwrap(&kms, &bound, &wrapped).await;
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_key_is_refused_and_no_key_is_said_to_be_missing() {
    let service = service(known(ID, SECRET, None)).await;
    let wrong = kms(&service, from_variables("another"), &clock());
    let error = wrap(&wrong, &Bound::usual()).await.unwrap_err();
    assert!(
        matches!(&error, KekError::Refused(code) if code.contains("InvalidSignatureException")),
        "{error}"
    );
    let none = kms(&service, AwsEnvironment::default(), &clock());
    let error = wrap(&none, &Bound::usual()).await.unwrap_err();
    assert!(matches!(&error, KekError::NoCredentials(text) if text.contains("AWS_ACCESS_KEY_ID")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_aws_is_unavailable_in_time() {
    let service = service(known(ID, SECRET, None)).await;
    let kms = kms(&service, from_variables(SECRET), &clock());
    service.fail_a_call(&Mischief::Silence);
    let error = wrap(&kms, &Bound::usual()).await.unwrap_err();
    assert_eq!(error, KekError::Unavailable("no answer in time".to_owned()));
    let nobody = StandIn { address: ([127, 0, 0, 1], 1).into(), ..service.clone() };
    let error = wrap(&super::aws::kms(&nobody, from_variables(SECRET), &clock()), &Bound::usual()).await;
    assert_eq!(error.unwrap_err(), KekError::Unavailable("no connection".to_owned()));
}

/// An answer of the metadata service and of the container's endpoint.
fn issued(id: &str, expiration: &str) -> String {
    json!({ "Code": "Success", "AccessKeyId": id, "SecretAccessKey": SECRET, "Token": "session", "Expiration": expiration })
        .to_string()
}

#[tokio::test]
async fn the_machines_role_gives_credentials_which_are_kept_until_shortly_before_their_end() {
    // The tests' clock begins at 2027-01-15T08:00:00Z.
    let machine = StandIn::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("PUT", "/latest/api/token") if seen.header("x-aws-ec2-metadata-token-ttl-seconds") == "60" => {
            (200, "metadata-token".to_owned())
        }
        ("GET", _) if seen.header("x-aws-ec2-metadata-token") != "metadata-token" => (401, String::new()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "broker-role\n".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/broker-role") => {
            (200, issued("ASIAMACHINE", "2027-01-15T09:00:00Z"))
        }
        _ => (404, String::new()),
    })
    .await;
    let service = service(known("ASIAMACHINE", SECRET, Some("session"))).await;
    let clock = clock();
    let environment = AwsEnvironment { metadata: Some(machine.url()), ..AwsEnvironment::default() };
    let kms = kms(&service, environment, &clock);
    for _ in 0..3 {
        wrap(&kms, &Bound::usual()).await.unwrap();
    }
    assert_eq!(machine.seen().len(), 3, "asked once: a token, the role, its credentials");
    clock.advance(std::time::Duration::from_mins(54));
    wrap(&kms, &Bound::usual()).await.unwrap();
    assert_eq!(machine.seen().len(), 3);
    clock.advance(std::time::Duration::from_mins(2));
    machine.misbehave(Mischief::Answer(500, String::new()));
    wrap(&kms, &Bound::usual()).await.expect("those that have not ended are better than none");
    clock.advance(std::time::Duration::from_mins(5));
    for _ in 0..3 {
        machine.misbehave(Mischief::Answer(500, String::new()));
    }
    assert!(matches!(wrap(&kms, &Bound::usual()).await, Err(KekError::Unavailable(_))));
}

#[tokio::test]
async fn a_containers_endpoint_is_asked_with_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "pod-token\n").unwrap();
    let endpoint = StandIn::start(|seen| match seen.header("authorization") {
        "pod-token" if seen.path == "/v1/credentials" => (200, issued("ASIAPOD", "2027-01-15T09:00:00Z")),
        _ => (401, String::new()),
    })
    .await;
    let service = service(known("ASIAPOD", SECRET, Some("session"))).await;
    let environment = AwsEnvironment {
        container_uri: Some(endpoint.url().join("v1/credentials").unwrap()),
        container_token_file: Some(file.clone()),
        ..AwsEnvironment::default()
    };
    let ready = kms(&service, environment.clone(), &clock());
    let wrapped = wrap(&ready, &Bound::usual()).await.unwrap();
    assert_eq!(unwrap(&ready, &Bound::usual(), &wrapped).await.unwrap(), plain().to_vec());
    std::fs::write(&file, "another").unwrap();
    let error = wrap(&kms(&service, environment, &clock()), &Bound::usual()).await.unwrap_err();
    assert!(matches!(error, KekError::NoCredentials(_)), "{error}");
}

#[tokio::test]
async fn a_web_identity_is_exchanged_and_a_refused_one_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "service.account.jwt").unwrap();
    let sts = StandIn::start(|seen| {
        let form: HashMap<String, String> = url::form_urlencoded::parse(&seen.body).into_owned().collect();
        let expected = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", "arn:aws:iam::111122223333:role/broker"),
            ("RoleSessionName", "token-broker"),
            ("WebIdentityToken", "service.account.jwt"),
        ];
        if expected.iter().any(|(name, value)| form.get(*name).map(String::as_str) != Some(value)) {
            return (400, "<ErrorResponse/>".to_owned());
        }
        let text = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
               <SessionToken>session</SessionToken><SecretAccessKey>{SECRET}</SecretAccessKey>
               <Expiration>2027-01-15T09:00:00Z</Expiration><AccessKeyId>ASIAWEB</AccessKeyId>
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        (200, text)
    })
    .await;
    let taken = known("ASIAWEB", SECRET, Some("session"));
    let service = service(taken.clone()).await;
    let environment = AwsEnvironment {
        web_identity_token_file: Some(file),
        role_arn: Some("arn:aws:iam::111122223333:role/broker".to_owned()),
        sts_endpoint: Some(sts.url()),
        ..AwsEnvironment::default()
    };
    let kms = kms(&service, environment, &clock());
    wrap(&kms, &Bound::usual()).await.unwrap();
    assert_eq!(sts.seen().len(), 1);
    // Credentials that AWS takes no more are not used again.
    let expired = json!({ "__type": "ExpiredTokenException" }).to_string();
    service.misbehave(Mischief::Answer(400, expired));
    wrap(&kms, &Bound::usual()).await.unwrap();
    assert_eq!(sts.seen().len(), 2);
}
