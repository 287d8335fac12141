//! New certificates and bundles without a restart and without a failed call; broken ones change nothing.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Pki, ask, channel};
use crate::support::broker::{BrokerBuilder, TestBroker};
use crate::support::pki::Authority;

const AGENT: &str = "spiffe://example.org/agent";
const RELOADED: &str = "new TLS files are in force";
const REFUSED: &str = "new TLS files cannot be used";

async fn broker(pki: &Pki) -> TestBroker {
    pki.mtls(BrokerBuilder::new()).set("grpc.tls_reload", "1s").spawn_process().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_bundle_change_under_load_without_a_failed_call() {
    let mut pki = Pki::new();
    let broker = broker(&pki).await;
    let address = broker.grpc_address();
    let stop = CancellationToken::new();
    let calls = watch::Sender::new(0);
    let mut load = tokio::task::JoinSet::new();

    // Three keep their connection; one makes a new one for each call, trusting both servers' authorities.
    let next_server = Authority::new("next server");
    let both = format!("{}{}", pki.server.pem(), next_server.pem());
    for fresh in [false, false, false, true] {
        let (leaf, stop, calls) = (pki.ours.svid(AGENT), stop.clone(), calls.clone());
        let (address, both) = (address.clone(), both.clone());
        load.spawn(async move {
            let kept = channel(&address, &both, Some(&leaf));
            while !stop.is_cancelled() {
                let connection = if fresh { channel(&address, &both, Some(&leaf)) } else { kept.clone() };
                assert_eq!(ask(connection, &[]).await, Outcome::Answered, "fresh: {fresh}");
                calls.send_modify(|calls| *calls += 1);
            }
        });
    }
    // Between two changes there are calls, however slow the machine is; more than 100 in all.
    let served = async || {
        let mut seen = calls.subscribe();
        let enough = *seen.borrow() + 40;
        let enough = seen.wait_for(|calls| *calls >= enough);
        tokio::time::timeout(Duration::from_mins(1), enough).await.expect("calls are answered").unwrap();
    };
    served().await;
    let next_ours = Authority::new("example.org, next");
    let next_leaf = next_ours.svid(AGENT);
    assert_eq!(ask(channel(&address, &both, Some(&next_leaf)), &[]).await, Outcome::NoConnection);

    // The server's certificate, from another authority. Two files: between the two writes they do not fit.
    pki.server = next_server;
    pki.write_server(&pki.server.server());
    broker.wait_for_log_times(RELOADED, 1).await;
    let only_next = channel(&address, pki.server.pem(), Some(&pki.ours.svid(AGENT)));
    assert_eq!(ask(only_next, &[]).await, Outcome::Answered, "the new certificate is in force");
    served().await;

    // The bundle: the next authority beside the old one.
    let before = broker.logs().matches(RELOADED).count();
    pki.write("ours.pem", &format!("{}{}", pki.ours.pem(), next_ours.pem()));
    broker.wait_for_log_times(RELOADED, before + 1).await;
    assert_eq!(ask(channel(&address, &both, Some(&next_leaf)), &[]).await, Outcome::Answered);
    assert_eq!(ask(channel(&address, &both, Some(&pki.ours.svid(AGENT))), &[]).await, Outcome::Answered);

    served().await;
    stop.cancel();
    while let Some(done) = load.join_next().await {
        done.unwrap();
    }

    // The old authority goes: nobody comes in by it any more.
    pki.write("ours.pem", next_ours.pem());
    broker.wait_for_log_times(RELOADED, before + 2).await;
    assert_eq!(ask(channel(&address, &both, Some(&pki.ours.svid(AGENT))), &[]).await, Outcome::NoConnection);
    assert_eq!(ask(channel(&address, &both, Some(&next_leaf)), &[]).await, Outcome::Answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_can_not_be_used_change_nothing_and_are_reported() {
    let pki = Pki::new();
    let broker = broker(&pki).await;
    let address = broker.grpc_address();
    let leaf = pki.ours.svid(AGENT);
    assert_eq!(broker.metric("token_broker_tls_files_valid").await, "1");
    let server = std::fs::read_to_string(pki.path("server.crt")).unwrap();
    let mut errors = 0;
    for (what, file, content) in [
        ("no PEM", "server.crt", "certificate"),
        ("empty", "server.crt", ""),
        ("a certificate that is not the key's", "server.crt", &pki.server.server().chain),
        ("an empty bundle", "ours.pem", ""),
        ("half a bundle", "ours.pem", &pki.ours.pem()[..200]),
    ] {
        pki.write(file, content);
        errors += 1;
        broker.wait_for_log_times(REFUSED, errors).await;
        assert_eq!(ask(pki.channel(&address, Some(&leaf)), &[]).await, Outcome::Answered, "{what}");
        assert_eq!(broker.metric("token_broker_tls_files_valid").await, "0", "{what}");
        pki.write("server.crt", &server);
        pki.write("ours.pem", pki.ours.pem());
        broker.wait_for_log_times(RELOADED, errors).await;
        assert_eq!(broker.metric("token_broker_tls_files_valid").await, "1", "{what}");
    }
    std::fs::remove_file(pki.path("server.key")).unwrap();
    broker.wait_for_log_times(REFUSED, errors + 1).await;
    assert_eq!(ask(pki.channel(&address, Some(&leaf)), &[]).await, Outcome::Answered);
    assert_eq!(broker.metric("token_broker_tls_reload_errors_total").await, (errors + 1).to_string());
    assert!(!broker.logs().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_looks_at_the_files_at_once() {
    let mut pki = Pki::new();
    let broker = pki.mtls(BrokerBuilder::new()).set("grpc.tls_reload", "1h").spawn_process().await;
    pki.server = Authority::new("next server");
    pki.write_server(&pki.server.server());
    broker.signal("HUP").await;
    broker.wait_for_log(RELOADED).await;
    let leaf = pki.ours.svid(AGENT);
    assert_eq!(ask(pki.channel(&broker.grpc_address(), Some(&leaf)), &[]).await, Outcome::Answered);
}
