//! Tokens of issuers and of workloads as a caller's identity: exactly right, or nobody's.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use token_broker::app::Overrides;

use super::{AUDIENCE, Outcome, SUBJECT, TestIssuer, ask_as, ask_fully, now, subject_of, trusting};
use crate::support::broker::{BrokerBuilder, TestBroker};
use crate::support::hostile::Reply;
use crate::support::jwt::{Signer, hs256, jwks, message};

/// A broker that trusts the issuer for callers.
async fn broker(issuer: &TestIssuer) -> TestBroker {
    trusting(BrokerBuilder::new(), "cluster", issuer, &["callers"])
        .set("callers.agent.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
        .start_in_process(Overrides::default())
        .await
}

#[tokio::test]
async fn every_allowed_algorithm_is_good() {
    let issuer = TestIssuer::start("k0").await;
    let names = ["ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"];
    let signers: Vec<Signer> = names.iter().map(|name| Signer::new(name, name)).collect();
    issuer.publish(&signers.iter().map(Signer::jwk).collect::<Vec<_>>());
    let broker = broker(&issuer).await;
    for (name, signer) in names.iter().zip(&signers) {
        let token = signer.token(&issuer.claims(SUBJECT));
        assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::Answered, "{name}");
        let forged = format!("{}AAAA", &token[..token.len() - 4]);
        assert_eq!(ask_as(broker.channel().await, &forged).await, Outcome::nobody(), "{name}");
    }
}

#[tokio::test]
async fn times_types_and_audiences_may_be_written_in_several_ways() {
    let issuer = TestIssuer::start("k1").await;
    let broker = broker(&issuer).await;
    let now = now();
    let with = |changes: Value| {
        let mut claims = issuer.claims(SUBJECT);
        merge(&mut claims, &changes);
        claims
    };
    let good = [
        with(json!({ "aud": ["another", AUDIENCE] })),
        with(json!({ "exp": f64::from(u32::try_from(now).unwrap()) + 60.5 })),
        with(json!({ "exp": now - 20 })),
        with(json!({ "nbf": now + 20, "iat": now + 20 })),
        with(json!({ "iat": null })),
        with(json!({ "kubernetes.io": { "namespace": "agents" }, "azp": "x", "jti": "1" })),
    ];
    for claims in good {
        let token = issuer.signer.token(&claims);
        assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::Answered, "{claims}");
    }
    for header in [
        json!({ "alg": "ES256", "kid": "k1" }),
        json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }),
        json!({ "alg": "ES256", "kid": "k1", "typ": "application/at+JWT" }),
        // There is one key that fits.
        json!({ "alg": "ES256" }),
    ] {
        let token = issuer.signer.sign(&header.to_string(), &issuer.claims(SUBJECT).to_string());
        assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::Answered, "{header}");
    }
}

fn merge(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        into[name] = value.clone();
    }
}

/// Every token that is wrong in one thing.
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong(issuer: &TestIssuer, other: &TestIssuer) -> Vec<(String, String)> {
    let now = now();
    let signer = &issuer.signer;
    let mut table = Vec::new();
    let mut add = |what: &str, token: String| table.push((what.to_owned(), token));

    for (what, changes) in [
        ("expired", json!({ "exp": now - 31 })),
        ("expired long ago", json!({ "exp": 1 })),
        ("without end", json!({ "exp": null })),
        ("an end that is a text", json!({ "exp": (now + 60).to_string() })),
        ("an end below zero", json!({ "exp": -1 })),
        ("an end that is no time", json!({ "exp": {} })),
        ("an end in a thousand years", json!({ "exp": now + 31_536_000_000_i64 })),
        ("good for longer than a day", json!({ "exp": now + 86_500 })),
        (
            "good for longer than a day, and does not say since when",
            json!({ "exp": now + 86_500, "iat": null }),
        ),
        ("good for longer than a day, from yesterday", json!({ "iat": now - 86_000, "exp": now + 600 })),
        ("not yet valid", json!({ "nbf": now + 40 })),
        ("issued in the future", json!({ "iat": now + 40 })),
        ("a beginning that is a text", json!({ "nbf": "0" })),
        ("another issuer", json!({ "iss": other.url() })),
        ("an unknown issuer", json!({ "iss": "https://issuer.example" })),
        ("an issuer with a slash more", json!({ "iss": format!("{}/", issuer.url()) })),
        ("an issuer in capitals", json!({ "iss": issuer.url().to_uppercase() })),
        ("an issuer with white space", json!({ "iss": format!(" {}", issuer.url()) })),
        ("no issuer", json!({ "iss": null })),
        ("a list of issuers", json!({ "iss": [issuer.url()] })),
        ("another audience", json!({ "aud": "another" })),
        ("other audiences", json!({ "aud": ["another", "token-broker2"] })),
        ("an audience in capitals", json!({ "aud": AUDIENCE.to_uppercase() })),
        ("a part of the audience", json!({ "aud": "token" })),
        ("no audience", json!({ "aud": null })),
        ("an empty audience", json!({ "aud": "" })),
        ("an empty list of audiences", json!({ "aud": [] })),
        ("an audience that is no text", json!({ "aud": [AUDIENCE, 1] })),
        ("another subject", json!({ "sub": "system:serviceaccount:agents:other" })),
        ("a longer subject", json!({ "sub": format!("{SUBJECT}x") })),
        ("a subject in capitals", json!({ "sub": SUBJECT.to_uppercase() })),
        ("a subject with white space", json!({ "sub": format!("{SUBJECT} ") })),
        ("a subject with NUL", json!({ "sub": format!("{SUBJECT}\0") })),
        ("a subject that is too long", json!({ "sub": "x".repeat(256) })),
        ("an empty subject", json!({ "sub": "" })),
        ("no subject", json!({ "sub": null })),
        ("a subject that is no text", json!({ "sub": [SUBJECT] })),
    ] {
        let mut claims = issuer.claims(SUBJECT);
        merge(&mut claims, &changes);
        add(what, signer.token(&claims));
    }

    let claims = issuer.claims(SUBJECT).to_string();
    for (what, changes) in [
        ("an unknown key", json!({ "kid": "k2" })),
        ("an empty key id", json!({ "kid": "" })),
        ("a key id that is no text", json!({ "kid": 1 })),
        ("a key id that is a path", json!({ "kid": "../../../../dev/null" })),
        ("a key id that is too long", json!({ "kid": "k".repeat(600) })),
        ("another algorithm of the same family", json!({ "alg": "ES384" })),
        ("another family", json!({ "alg": "RS256" })),
        ("an algorithm in small letters", json!({ "alg": "es256" })),
        ("an algorithm with white space", json!({ "alg": "ES256 " })),
        ("an unknown algorithm", json!({ "alg": "ES256K" })),
        ("no algorithm", json!({ "alg": null })),
        ("a list of algorithms", json!({ "alg": ["ES256"] })),
        ("critical extensions", json!({ "crit": ["exp"], "exp": 1 })),
        ("critical extensions that are none", json!({ "crit": [] })),
        ("critical extensions that are null", json!({ "crit": null })),
        ("an unencoded payload", json!({ "crit": ["b64"], "b64": false })),
        ("the type of a logout", json!({ "typ": "logout+jwt" })),
        ("the type of an event", json!({ "typ": "secevent+jwt" })),
        ("the type of a proof", json!({ "typ": "dpop+jwt" })),
    ] {
        let mut header = signer.header();
        merge(&mut header, &changes);
        add(what, signer.sign(&header.to_string(), &claims));
    }

    // Keys that the token brings along: the header's own word is no authority.
    let own = Signer::new("ES256", "own");
    for (what, changes) in [
        ("a key in the token", json!({ "jwk": own.jwk() })),
        ("a key in the token, under the issuer's id", json!({ "jwk": own.jwk(), "kid": "k1" })),
        ("a place for keys in the token", json!({ "jku": format!("{}/jwks", other.url()), "kid": "o1" })),
        ("a place for certificates in the token", json!({ "x5u": format!("{}/jwks", other.url()) })),
        ("a certificate in the token", json!({ "x5c": ["AAAA"], "kid": "k1" })),
    ] {
        let mut header = own.header();
        merge(&mut header, &changes);
        add(what, own.sign(&header.to_string(), &claims));
    }
    add("another key under the issuer's id", Signer::new("ES256", "k1").token(&issuer.claims(SUBJECT)));
    add("another issuer's key", other.signer.token(&issuer.claims(SUBJECT)));

    // The public key as a shared secret.
    let jwk = signer.material();
    let hmac = json!({ "alg": "HS256", "kid": "k1" }).to_string();
    add("the public key as an HMAC secret", hs256(&hmac, &claims, jwk.to_string().as_bytes()));
    add("its coordinate as an HMAC secret", hs256(&hmac, &claims, jwk["x"].as_str().unwrap().as_bytes()));
    add("an empty HMAC secret", hs256(&hmac, &claims, b""));
    let disguised = json!({ "alg": "ES256", "kid": "k1" }).to_string();
    add("an HMAC that is called ES256", hs256(&disguised, &claims, jwk.to_string().as_bytes()));

    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({ "alg": alg, "kid": "k1" }).to_string();
        add(&format!("alg {alg:?} without signature"), format!("{}.", message(&header, &claims)));
        add(&format!("alg {alg:?} with signature"), signer.sign(&header, &claims));
    }

    let good = issuer.token(SUBJECT);
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { unreachable!() };
    let richer = issuer.claims("system:serviceaccount:kube-system:admin").to_string();
    let forged = message(&signer.header().to_string(), &richer);
    for (what, token) in [
        ("other claims under the signature", format!("{forged}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("one part and a dot", format!("{head}.")),
        ("dots alone", "..".to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as an encrypted token", format!("{head}.{body}.{signature}.{head}.{body}")),
        ("half a signature", format!("{head}.{body}.{}", &signature[..signature.len() / 2])),
        ("a signature of zeros", format!("{head}.{body}.{}", "A".repeat(86))),
        ("padding", format!("{good}==")),
        ("the other alphabet", format!("{head}.{body}.+{}", &signature[1..])),
        ("a line break", format!("{head}.{body} .{signature}")),
        ("something behind it", format!("{good}\u{20}x")),
        ("a second token", format!("{good},{good}")),
        ("a header that is no JSON", format!("AAAA.{body}.{signature}")),
        ("claims that are no JSON", signer.sign(&signer.header().to_string(), "claims")),
        ("claims that are a list", signer.sign(&signer.header().to_string(), &format!("[{claims}]"))),
        (
            "claims with something behind",
            signer.sign(&signer.header().to_string(), &format!("{claims}{claims}")),
        ),
        (
            "a claim twice",
            signer.sign(&signer.header().to_string(), &format!("{{\"sub\":\"x\",{}", &claims[1..])),
        ),
        ("an algorithm twice", signer.sign("{\"alg\":\"none\",\"alg\":\"ES256\",\"kid\":\"k1\"}", &claims)),
        (
            "more than any token",
            signer.sign(
                &signer.header().to_string(),
                &format!("{{\"x\":\"{}\",{}", "x".repeat(8_192), &claims[1..]),
            ),
        ),
    ] {
        add(what, token);
    }
    table
}

#[tokio::test]
async fn every_other_token_is_nobodys_and_every_refusal_is_the_same() {
    let issuer = TestIssuer::start("k1").await;
    let other = TestIssuer::start("o1").await;
    let broker = broker(&issuer).await;
    let channel = broker.channel().await;
    assert_eq!(ask_as(channel.clone(), &issuer.token(SUBJECT)).await, Outcome::Answered);
    let mut words = BTreeSet::new();
    let table = wrong(&issuer, &other);
    for (what, token) in &table {
        let value = format!("Bearer {token}");
        let (outcome, bytes) = ask_fully(channel.clone(), &[("authorization", &value)]).await;
        assert_eq!(outcome, Outcome::nobody(), "{what}: {token}");
        words.insert(bytes);
    }
    words.insert(ask_fully(channel.clone(), &[]).await.1);
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(table.len() >= 90, "{}", table.len());
    assert!(other.server.requests().is_empty(), "nobody asks where a token points to");
    assert_eq!(ask_as(channel.clone(), &issuer.token(SUBJECT)).await, Outcome::Answered);
    let good = format!("Bearer {}", issuer.token(SUBJECT));
    let twice = [("authorization", good.as_str()), ("authorization", good.as_str())];
    assert_eq!(ask_fully(channel, &twice).await.0, Outcome::nobody());
}

#[tokio::test]
async fn keys_that_are_not_for_it_are_not_used() {
    let issuer = TestIssuer::start("unused").await;
    let broker = broker(&issuer).await;
    let signer = Signer::new("ES256", "k");
    let short = json!({ "kty": "RSA", "kid": "k", "n": "sXchDaQ", "e": "AQAB" });
    let secret = json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256" });
    for (what, changes) in [
        ("for encryption", json!({ "use": "enc" })),
        ("for workloads' tokens alone", json!({ "use": "jwt-svid" })),
        ("for other operations", json!({ "key_ops": ["sign"] })),
        ("for another algorithm", json!({ "alg": "ES384" })),
        ("for an algorithm of another family", json!({ "alg": "RS256" })),
        ("on another curve", json!({ "crv": "P-384" })),
        ("on an unknown curve", json!({ "crv": "secp256k1" })),
        ("of another type", json!({ "kty": "RSA" })),
        ("without a coordinate", json!({ "y": null })),
        ("with a short coordinate", json!({ "x": "AAAA" })),
        ("of another name", json!({ "kid": "other" })),
    ] {
        let mut jwk = signer.jwk();
        merge(&mut jwk, &changes);
        issuer.publish(&[jwk, short.clone(), secret.clone(), json!("nonsense"), json!({})]);
        // Each broker has its own keys.
        let broker = self::broker(&issuer).await;
        let token = signer.token(&issuer.claims(SUBJECT));
        assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::nobody(), "{what}");
        let header = json!({ "alg": "HS256", "kid": "k" }).to_string();
        let token = hs256(&header, &issuer.claims(SUBJECT).to_string(), b"secret");
        assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::nobody(), "{what}");
    }
    drop(broker);
    issuer.publish(&[short, secret, json!("nonsense"), signer.jwk()]);
    let broker = self::broker(&issuer).await;
    let token = signer.token(&issuer.claims(SUBJECT));
    assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::Answered, "the good one among them is");
}

#[tokio::test]
async fn an_issuer_may_be_limited_to_some_algorithms() {
    let issuer = TestIssuer::start("k1").await;
    let ed = Signer::new("EdDSA", "ed");
    issuer.publish(&[issuer.signer.jwk(), ed.jwk()]);
    let broker = trusting(BrokerBuilder::new(), "cluster", &issuer, &["callers"])
        .set("issuers.cluster.algorithms", vec!["RS256", "EdDSA"])
        .set("callers.agent.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
        .start_in_process(Overrides::default())
        .await;
    assert_eq!(ask_as(broker.channel().await, &issuer.token(SUBJECT)).await, Outcome::nobody());
    let token = ed.token(&issuer.claims(SUBJECT));
    assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::Answered);
}

#[tokio::test]
async fn metadata_can_not_send_the_broker_elsewhere() {
    for (what, metadata) in [
        ("another issuer's", json!({ "issuer": "https://issuer.example", "jwks_uri": "KEYS" })),
        ("without issuer", json!({ "jwks_uri": "KEYS" })),
        ("without keys", json!({ "issuer": "ISSUER" })),
        ("by http", json!({ "issuer": "ISSUER", "jwks_uri": "http://issuer.example/jwks" })),
        ("to a file", json!({ "issuer": "ISSUER", "jwks_uri": "file:///etc/passwd" })),
        ("with a password", json!({ "issuer": "ISSUER", "jwks_uri": "https://u:p@127.0.0.1/jwks" })),
        ("a list", json!(["ISSUER", "KEYS"])),
    ] {
        let issuer = TestIssuer::start("k1").await;
        let text = metadata
            .to_string()
            .replace("ISSUER", &issuer.url())
            .replace("KEYS", &format!("{}/jwks", issuer.url()));
        issuer.server.always("/.well-known/openid-configuration", Reply::body(200, "application/json", text));
        let broker = broker(&issuer).await;
        let outcome = ask_as(broker.channel().await, &issuer.token(SUBJECT)).await;
        assert_eq!(outcome, super::keys::outage(), "{what}");
        assert_eq!(issuer.fetches(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_cluster_shows_its_keys_to_a_token_and_the_token_goes_nowhere_else() {
    let issuer = TestIssuer::start("k1").await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "projected-token\n").unwrap();
    // Its metadata is on one server, its keys on another.
    let keys = TestIssuer::start("k1").await;
    keys.publish(&[issuer.signer.jwk()]);
    issuer.server.always(
        "/.well-known/openid-configuration",
        Reply::json(200, &json!({ "issuer": issuer.url(), "jwks_uri": format!("{}/jwks", keys.url()) })),
    );
    let broker = trusting(BrokerBuilder::new(), "cluster", &issuer, &["callers"])
        .set("issuers.cluster.bearer_token_file", token_file.to_str().unwrap())
        .set("callers.agent.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
        .start_in_process(Overrides::default())
        .await;
    assert_eq!(ask_as(broker.channel().await, &issuer.token(SUBJECT)).await, Outcome::Answered);
    let asked = issuer.server.requests_at("/.well-known/openid-configuration");
    assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer projected-token")));
    assert!(keys.server.requests_at("/jwks").iter().all(|request| request.header("authorization").is_none()));
    assert!(!asked.is_empty() && keys.fetches() > 0);
}

/// A bundle of a trust domain: keys for tokens and for certificates.
fn bundle(signer: &Signer) -> Value {
    let mut token = signer.jwk();
    token["use"] = json!("jwt-svid");
    jwks(&[json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AAAA"] }), token])
}

#[tokio::test]
async fn a_workloads_token_is_its_caller() {
    let signer = Signer::new("ES256", "svid-1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.json");
    std::fs::write(&file, bundle(&signer).to_string()).unwrap();
    let table: toml::Table = [
        ("jwt_bundle_file".to_owned(), file.to_str().unwrap().into()),
        ("jwt_audiences".to_owned(), vec![AUDIENCE].into()),
    ]
    .into_iter()
    .collect();
    let other = Signer::new("ES256", "svid-1");
    let other_file = folder.path().join("other.json");
    std::fs::write(&other_file, bundle(&other).to_string()).unwrap();
    let mut other_table = table.clone();
    other_table.insert("jwt_bundle_file".to_owned(), other_file.to_str().unwrap().into());
    let broker = BrokerBuilder::new()
        .set_table(&["spiffe", "trust_domains", "example.org"], table)
        .set_table(&["spiffe", "trust_domains", "other.example"], other_table)
        .set("callers.agent.spiffe_ids", vec!["spiffe://example.org/agent"])
        .start_in_process(Overrides::default())
        .await;
    let channel = broker.channel().await;
    let claims = |changes: Value| {
        let mut claims =
            json!({ "sub": "spiffe://example.org/agent", "aud": [AUDIENCE], "exp": now() + 300 });
        merge(&mut claims, &changes);
        claims
    };
    for good in [json!({}), json!({ "iat": now() }), json!({ "iss": "https://oidc.example.org" })] {
        assert_eq!(ask_as(channel.clone(), &signer.token(&claims(good))).await, Outcome::Answered);
    }
    let wrong = [
        ("another's keys", other.token(&claims(json!({})))),
        ("its keys for another", signer.token(&claims(json!({ "sub": "spiffe://other.example/agent" })))),
        ("an unknown trust domain", signer.token(&claims(json!({ "sub": "spiffe://third.example/agent" })))),
        ("another workload", signer.token(&claims(json!({ "sub": "spiffe://example.org/other" })))),
        ("the trust domain", signer.token(&claims(json!({ "sub": "spiffe://example.org" })))),
        ("an id with dots", signer.token(&claims(json!({ "sub": "spiffe://example.org/x/../agent" })))),
        ("no id", signer.token(&claims(json!({ "sub": "agent" })))),
        ("no audience", signer.token(&claims(json!({ "aud": null })))),
        ("another audience", signer.token(&claims(json!({ "aud": "spiffe://example.org/db" })))),
        ("no end", signer.token(&claims(json!({ "exp": null })))),
        ("expired", signer.token(&claims(json!({ "exp": now() - 60 })))),
        (
            "the type of an access token",
            signer.sign(
                &json!({ "alg": "ES256", "kid": "svid-1", "typ": "at+jwt" }).to_string(),
                &claims(json!({})).to_string(),
            ),
        ),
        (
            "an unknown key",
            signer.sign(
                &json!({ "alg": "ES256", "kid": "svid-2" }).to_string(),
                &claims(json!({})).to_string(),
            ),
        ),
    ];
    for (what, token) in &wrong {
        assert_eq!(ask_as(channel.clone(), token).await, Outcome::nobody(), "{what}");
    }
}

#[tokio::test]
async fn an_issuer_can_not_speak_for_a_workload() {
    let issuer = TestIssuer::start("k1").await;
    let broker = trusting(BrokerBuilder::new(), "cluster", &issuer, &["callers"])
        .set_table(&["spiffe", "trust_domains", "example.org"], svid_table())
        .set("callers.agent.spiffe_ids", vec!["spiffe://example.org/agent"])
        .start_in_process(Overrides::default())
        .await;
    let token = issuer.token("spiffe://example.org/agent");
    assert_eq!(ask_as(broker.channel().await, &token).await, Outcome::nobody());
}

/// A trust domain whose keys are nowhere.
fn svid_table() -> toml::Table {
    [
        ("jwt_bundle_url".to_owned(), "http://127.0.0.1:9/bundle".into()),
        ("jwt_audiences".to_owned(), vec![AUDIENCE].into()),
    ]
    .into_iter()
    .collect()
}
