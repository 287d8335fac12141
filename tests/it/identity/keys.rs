//! The keys of an issuer: rotation under load, made-up key ids, an issuer that is down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use token_broker::app::Overrides;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{Outcome, SUBJECT, TestIssuer, ask, ask_as, subject_of, trusting};
use crate::support::broker::{BrokerBuilder, TestBroker};
use crate::support::clock::ManualClock;
use crate::support::hostile::{Gate, Reply};
use crate::support::jwt::{Signer, jwks};

/// That a token can't be verified now.
pub(super) fn outage() -> Outcome {
    Outcome::Refused(Code::Unavailable, "IDENTITY_UNAVAILABLE".to_owned())
}

fn builder(issuer: &TestIssuer) -> BrokerBuilder {
    trusting(BrokerBuilder::new(), "cluster", issuer, &["callers"])
        .set("callers.agent.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
}

/// By a clock that the test moves.
async fn broker(issuer: &TestIssuer) -> (TestBroker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let overrides = Overrides { clock: Some(clock.clone()), ..Overrides::default() };
    (builder(issuer).start_in_process(overrides).await, clock)
}

/// Good by the manual clock for as long as a token may be.
fn long_token(issuer: &TestIssuer, signer: &Signer, age: i64) -> String {
    let begin = 1_800_000_000 + age;
    let mut claims = issuer.claims(SUBJECT);
    claims["iat"] = json!(begin);
    claims["exp"] = json!(begin + 86_400);
    signer.token(&claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_under_load_without_a_failed_call() {
    let issuer = TestIssuer::start("k0").await;
    let (broker, clock) = broker(&issuer).await;
    let stop = CancellationToken::new();
    let calls = Arc::new(watch::Sender::new(0_usize));
    let current = Arc::new(Mutex::new(long_token(&issuer, &issuer.signer, 0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (channel, stop) = (broker.channel().await, stop.clone());
        let (current, calls) = (Arc::clone(&current), Arc::clone(&calls));
        load.spawn(async move {
            while !stop.is_cancelled() {
                let token = current.lock().unwrap().clone();
                assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered);
                calls.send_modify(|calls| *calls += 1);
            }
        });
    }
    let more_calls = async |more: usize| {
        let mut calls = calls.subscribe();
        let enough = *calls.borrow() + more;
        calls.wait_for(|calls| *calls >= enough).await.unwrap();
    };
    more_calls(20).await;
    let mut old = issuer.signer.jwk();
    for turn in 1..=10 {
        // As issuers do it: the new key is published beside the old one, then used, then the old one goes.
        let next = Signer::new("ES256", &format!("k{turn}"));
        issuer.publish(&[old, next.jwk()]);
        clock.advance(Duration::from_secs(10));
        let requests = issuer.server.requests().len();
        *current.lock().unwrap() = long_token(&issuer, &next, 0);
        issuer.server.wait_for_requests(requests + 2).await;
        more_calls(20).await;
        old = next.jwk();
        issuer.publish(&[next.jwk()]);
    }
    stop.cancel();
    while let Some(done) = load.join_next().await {
        done.unwrap();
    }
    assert_eq!(issuer.fetches(), 11, "one for each new key, whatever the load");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_key_ids_are_no_flood() {
    let issuer = TestIssuer::start("k1").await;
    let (broker, clock) = broker(&issuer).await;
    let channel = broker.channel().await;
    assert_eq!(ask_as(channel.clone(), &long_token(&issuer, &issuer.signer, 0)).await, Outcome::Answered);
    assert_eq!(issuer.fetches(), 1);
    let flood = async || {
        let stranger = Signer::new("ES256", "stranger");
        let calls = (0..100).map(|n| {
            let header = json!({ "alg": "ES256", "kid": format!("made-up-{n}") }).to_string();
            let mut claims = issuer.claims(SUBJECT);
            claims["exp"] = json!(1_800_000_000 + 600);
            claims["iat"] = json!(1_800_000_000);
            let token = stranger.sign(&header, &claims.to_string());
            let channel = channel.clone();
            async move { assert_eq!(ask_as(channel, &token).await, Outcome::nobody()) }
        });
        futures_util::future::join_all(calls).await;
    };
    // The first fetch was just now.
    flood().await;
    assert_eq!(issuer.fetches(), 1, "within the pause");
    for fetches in 2..=4 {
        clock.advance(Duration::from_secs(10));
        flood().await;
        assert_eq!(issuer.fetches(), fetches, "one in a pause");
    }
    assert_eq!(ask_as(channel, &long_token(&issuer, &issuer.signer, 0)).await, Outcome::Answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_need_the_keys_at_once_fetch_them_once() {
    let issuer = TestIssuer::start("k1").await;
    let gate = Gate::default();
    issuer.server.always("/jwks", Reply::json(200, &jwks(&[issuer.signer.jwk()])).held_by(&gate));
    let (broker, _) = broker(&issuer).await;
    let token = long_token(&issuer, &issuer.signer, 0);
    let channel = broker.channel().await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (channel, token) = (channel.clone(), token.clone());
            tokio::spawn(async move { ask_as(channel, &token).await })
        })
        .collect();
    issuer.server.wait_for_requests(2).await;
    // One that hangs up takes the fetch with it for nobody.
    calls[0].abort();
    gate.release();
    for call in calls.into_iter().skip(1) {
        assert_eq!(call.await.unwrap(), Outcome::Answered);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_was_never_there_is_an_outage_and_not_the_callers_fault() {
    let issuer = TestIssuer::start("k1").await;
    for (what, reply) in [
        ("an error", Reply::status(503)),
        ("nothing", Reply::status(404)),
        ("a redirect", Reply::status(302)),
        ("no set", Reply::json(200, &json!({ "keys": 1 }))),
        ("a page", Reply::body(200, "text/html", "<html>")),
    ] {
        issuer.server.always("/jwks", reply);
        let (broker, clock) = broker(&issuer).await;
        let channel = broker.channel().await;
        let token = long_token(&issuer, &issuer.signer, 0);
        assert_eq!(ask_as(channel.clone(), &token).await, outage(), "{what}");
        // Who has a good key is not concerned, and what is no token of this issuer's is still nobody's.
        let key = format!("Bearer {}", broker.api_key("agent"));
        assert_eq!(ask(channel.clone(), &[("authorization", &key)]).await, Outcome::Answered);
        assert_eq!(ask_as(channel.clone(), "a.b.c").await, Outcome::nobody());
        // It is not asked for each call.
        let fetches = issuer.fetches();
        for _ in 0..20 {
            assert_eq!(ask_as(channel.clone(), &token).await, outage());
        }
        assert_eq!(issuer.fetches(), fetches, "{what}");
        issuer.publish(&[issuer.signer.jwk()]);
        clock.advance(Duration::from_secs(2));
        assert_eq!(ask_as(channel, &token).await, Outcome::Answered, "{what}: and then it is back");
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_is_believed_for_a_day_and_no_longer() {
    let issuer = TestIssuer::start("k1").await;
    let (broker, clock) = broker(&issuer).await;
    let channel = broker.channel().await;
    let token = long_token(&issuer, &issuer.signer, 0);
    assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered);
    issuer.server.always("/jwks", Reply::status(503));
    clock.advance(Duration::from_secs(86_399));
    assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered, "the keys of yesterday");
    // A key that came since is not known, and that is not the issuer's outage: it can as well be made up.
    let unknown = Signer::new("ES256", "k2");
    assert_eq!(ask_as(channel.clone(), &long_token(&issuer, &unknown, 86_000)).await, Outcome::nobody());
    clock.advance(Duration::from_secs(10));
    // Also what has been verified before: its key may have been withdrawn long ago.
    let fresh = long_token(&issuer, &issuer.signer, 86_000);
    assert_eq!(ask_as(channel.clone(), &fresh).await, outage());
    issuer.publish(&[issuer.signer.jwk()]);
    clock.advance(Duration::from_secs(30));
    assert_eq!(ask_as(channel.clone(), &fresh).await, Outcome::Answered);
    assert_eq!(ask_as(channel, &token).await, Outcome::nobody(), "expired meanwhile");
}

#[tokio::test]
async fn a_key_that_is_withdrawn_is_good_no_more_also_for_tokens_that_were_verified() {
    let issuer = TestIssuer::start("k1").await;
    let (broker, clock) = broker(&issuer).await;
    let channel = broker.channel().await;
    let token = long_token(&issuer, &issuer.signer, 0);
    for _ in 0..3 {
        assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered);
    }
    issuer.publish(&[Signer::new("ES256", "k2").jwk()]);
    let requests = issuer.server.requests().len();
    clock.advance(Duration::from_secs(15 * 60));
    // This one sets off the renewal, and is still answered by the keys there are.
    assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered);
    issuer.server.wait_for_requests(requests + 2).await;
    let mut refused = false;
    for _ in 0..1_000 {
        refused = ask_as(channel.clone(), &token).await == Outcome::nobody();
        if refused {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(refused, "the withdrawn key still counts");
}

#[tokio::test]
async fn a_verified_token_expires_while_it_is_remembered() {
    let issuer = TestIssuer::start("k1").await;
    let (broker, clock) = broker(&issuer).await;
    let channel = broker.channel().await;
    let mut claims = issuer.claims(SUBJECT);
    claims["iat"] = json!(1_800_000_000);
    claims["exp"] = json!(1_800_000_000 + 60);
    let token = issuer.signer.token(&claims);
    assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered);
    clock.advance(Duration::from_secs(89));
    assert_eq!(ask_as(channel.clone(), &token).await, Outcome::Answered, "within the leeway");
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask_as(channel, &token).await, Outcome::nobody());
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_when_they_change() {
    let issuer = TestIssuer::start("k1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let write = |signer: &Signer| super::replace(&file, &jwks(&[signer.jwk()]).to_string());
    write(&issuer.signer);
    let clock = Arc::new(ManualClock::new());
    let broker = builder(&issuer)
        .set("issuers.cluster.jwks_file", file.to_str().unwrap())
        .start_in_process(Overrides { clock: Some(clock.clone()), ..Overrides::default() })
        .await;
    let channel = broker.channel().await;
    assert_eq!(ask_as(channel.clone(), &long_token(&issuer, &issuer.signer, 0)).await, Outcome::Answered);
    let next = Signer::new("EdDSA", "k2");
    write(&next);
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask_as(channel.clone(), &long_token(&issuer, &next, 0)).await, Outcome::Answered);
    assert_eq!(ask_as(channel, &long_token(&issuer, &issuer.signer, 0)).await, Outcome::nobody());
    assert!(issuer.server.requests().is_empty());
}

#[tokio::test]
async fn a_flood_of_forged_tokens_is_not_verified() {
    let issuer = TestIssuer::start("k1").await;
    let clock = Arc::new(ManualClock::new());
    let broker = builder(&issuer)
        .set("limits.strangers", 1)
        .set("limits.burst", "3s")
        .start_in_process(Overrides { clock: Some(clock.clone()), ..Overrides::default() })
        .await;
    let channel = broker.channel().await;
    let remembered = long_token(&issuer, &issuer.signer, 0);
    assert_eq!(ask_as(channel.clone(), &remembered).await, Outcome::Answered);
    let fetches = issuer.fetches();
    let too_many = Outcome::Refused(Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    // Each by a key that the issuer does not have: whoever verifies it asks the issuer for its keys.
    let forged: Vec<_> =
        (0..20).map(|n| long_token(&issuer, &Signer::new("ES256", &format!("forged-{n}")), 0)).collect();
    for (n, token) in forged.iter().enumerate() {
        let expected = if n < 3 { Outcome::nobody() } else { too_many.clone() };
        assert_eq!(ask_as(channel.clone(), token).await, expected, "{n}");
    }
    let tried = issuer.fetches();
    assert!(tried <= fetches + 3);
    // A good one that nobody has seen waits with the strangers of its address; one that is remembered does not.
    let fresh = long_token(&issuer, &issuer.signer, -10);
    assert_eq!(ask_as(channel.clone(), &fresh).await, too_many);
    assert_eq!(ask_as(channel.clone(), &remembered).await, Outcome::Answered);
    let key = format!("Bearer {}", broker.api_key("agent"));
    assert_eq!(super::ask(channel.clone(), &[("authorization", &key)]).await, Outcome::Answered);
    assert_eq!(issuer.fetches(), tried);
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask_as(channel, &fresh).await, Outcome::Answered);
}

/// The callers' own limit is what they count against: not the room of the strangers at the same address.
#[tokio::test]
async fn a_flood_of_forged_users_tokens_is_limited_before_it_is_verified() {
    let issuer = TestIssuer::start("k1").await;
    let users = TestIssuer::start("u1").await;
    let clock = Arc::new(ManualClock::new());
    let broker = trusting(builder(&issuer), "people", &users, &["users"])
        .set("limits.strangers", 1)
        .set("limits.caller", 2)
        .set("limits.burst", "1s")
        .start_in_process(Overrides { clock: Some(clock.clone()), ..Overrides::default() })
        .await;
    let channel = broker.channel().await;
    let key = format!("Bearer {}", broker.api_key("agent"));
    let invalid = Outcome::Refused(Code::Unauthenticated, "USER_TOKEN_INVALID".to_owned());
    let too_many = Outcome::Refused(Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    let wrong_key = Signer::new("ES256", "u1");
    for n in 0..40 {
        let forged = long_token(&users, &wrong_key, n);
        let entries = [("authorization", key.as_str()), ("tokenbroker-user-token", forged.as_str())];
        let expected = if n < 2 { &invalid } else { &too_many };
        assert_eq!(ask(channel.clone(), &entries).await, *expected, "{n}");
    }
    // Who comes from the same address for the first time is heard: a new token of a caller's, and a stranger.
    let fresh = long_token(&issuer, &issuer.signer, -10);
    let outcome = ask_as(channel.clone(), &fresh).await;
    assert_eq!(outcome, too_many, "the caller is the same");
    assert_eq!(ask_as(channel.clone(), "canary.no.token").await, Outcome::nobody());
    clock.advance(Duration::from_secs(1));
    assert_eq!(ask_as(channel.clone(), &fresh).await, Outcome::Answered);
    assert_eq!(ask(channel, &[("authorization", key.as_str())]).await, Outcome::Answered);
}
