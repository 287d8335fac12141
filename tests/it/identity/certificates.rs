//! X509-SVIDs by mTLS: exactly the workloads of the configured trust domains, each under its own bundle.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use token_broker::app::Overrides;

use super::{Outcome, Pki, ask, ask_fully};
use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker};
use crate::support::clock::ManualClock;
use crate::support::pki::{Authority, Leaf, self_signed, uri};

const AGENT: &str = "spiffe://example.org/agent";

async fn broker(pki: &Pki) -> TestBroker {
    pki.mtls(BrokerBuilder::new()).start_in_process(Overrides::default()).await
}

#[tokio::test]
async fn a_workload_is_the_caller_that_names_its_id() {
    let pki = Pki::new();
    let broker = pki
        .mtls(BrokerBuilder::new())
        .caller("second", CallerRights::all("acme"))
        .set("callers.second.spiffe_ids", vec!["spiffe://other.example/agent", "spiffe://example.org/second"])
        .start_in_process(Overrides::default())
        .await;
    let address = broker.grpc_address();
    let good = [
        ("a leaf", pki.ours.svid(AGENT)),
        ("below an intermediate", pki.ours.svid_below(AGENT, |_| {})),
        ("of another trust domain", pki.others.svid("spiffe://other.example/agent")),
        (
            "with a DNS name beside the id",
            pki.ours.issue(AGENT, |params| {
                params.subject_alt_names.push(SanType::DnsName("mail.example.org".try_into().unwrap()));
            }),
        ),
        (
            "for clients alone",
            pki.ours.issue(AGENT, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
        ("for any use", pki.ours.issue(AGENT, |params| params.extended_key_usages.clear())),
    ];
    for (what, leaf) in &good {
        assert_eq!(ask(pki.channel(&address, Some(leaf)), &[]).await, Outcome::Answered, "{what}");
    }
}

type Change = fn(&mut CertificateParams);

/// What is wrong, and with what it begins. All of them under the authority of `example.org`.
const WRONG: &[(&str, Change)] = &[
    ("two URIs", |params| params.subject_alt_names.push(uri("spiffe://example.org/other"))),
    ("the same URI twice", |params| params.subject_alt_names.push(uri(AGENT))),
    ("a URI that is no SPIFFE id beside it", |params| {
        params.subject_alt_names.push(uri("https://example.org/"));
    }),
    ("no URI", |params| {
        params.subject_alt_names = vec![SanType::DnsName("example.org".try_into().unwrap())];
    }),
    ("no name at all", |params| params.subject_alt_names.clear()),
    ("no SPIFFE id", |params| params.subject_alt_names = vec![uri("https://example.org/agent")]),
    ("the trust domain itself", |params| params.subject_alt_names = vec![uri("spiffe://example.org")]),
    ("an id with a query", |params| params.subject_alt_names = vec![uri("spiffe://example.org/agent?x")]),
    ("an id in capitals", |params| params.subject_alt_names = vec![uri("SPIFFE://example.org/agent")]),
    ("an id with a port", |params| params.subject_alt_names = vec![uri("spiffe://example.org:1/agent")]),
    ("an id with dots", |params| params.subject_alt_names = vec![uri("spiffe://example.org/x/../agent")]),
    ("another trust domain, signed by this one's authority", |params| {
        params.subject_alt_names = vec![uri("spiffe://other.example/agent")];
    }),
    ("a trust domain that nobody configured", |params| {
        params.subject_alt_names = vec![uri("spiffe://third.example/agent")];
    }),
    ("an authority", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }),
    ("a key that signs certificates", |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
    ("a key that signs revocation lists", |params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
    ("a key that does not sign messages", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    }),
    ("a key without usage", |params| params.key_usages.clear()),
    ("for servers alone", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ("expired", |params| params.not_after = date_time_ymd(2024, 1, 1)),
    ("not yet valid", |params| params.not_before = date_time_ymd(2090, 1, 1)),
];

#[tokio::test]
async fn every_other_certificate_is_refused_and_counts_for_nothing() {
    let pki = Pki::new();
    let broker = broker(&pki).await;
    let (address, key) = (broker.grpc_address(), format!("Bearer {}", broker.api_key("agent")));
    let mut wrong: Vec<(&str, Leaf)> =
        WRONG.iter().map(|(what, change)| (*what, pki.ours.issue(AGENT, change))).collect();
    let stranger = Authority::new("example.org");
    wrong.push(("signed by a stranger of the same name", stranger.svid(AGENT)));
    wrong.push(("signed by another trust domain's authority", pki.others.svid(AGENT)));
    wrong.push(("signed by the server's authority", pki.server.svid(AGENT)));
    wrong.push(("signed by itself", self_signed(AGENT)));
    wrong.push((
        "below an intermediate that is no authority",
        pki.ours.svid_below(AGENT, |params| {
            params.is_ca = IsCa::ExplicitNoCa;
        }),
    ));
    wrong.push((
        "below an intermediate that has expired",
        pki.ours.svid_below(AGENT, |params| {
            params.not_after = date_time_ymd(2024, 1, 1);
        }),
    ));
    let mut orphan = pki.ours.svid_below(AGENT, |_| {});
    let end = orphan.chain.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----".len();
    orphan.chain.truncate(end);
    wrong.push(("without its intermediate", orphan));
    assert_eq!(wrong.len(), 28);
    for (what, leaf) in &wrong {
        // Not even with a good key beside it: a certificate that is shown is good, or the connection is none.
        for entries in [&[][..], &[("authorization", key.as_str())]] {
            let outcome = ask(pki.channel(&address, Some(leaf)), entries).await;
            assert_eq!(outcome, Outcome::NoConnection, "{what}");
        }
    }
    assert_eq!(ask(pki.channel(&address, Some(&pki.ours.svid(AGENT))), &[]).await, Outcome::Answered);
}

#[tokio::test]
async fn a_good_certificate_of_no_caller_is_nobodys() {
    let pki = Pki::new();
    let broker = broker(&pki).await;
    let mut words = std::collections::BTreeSet::new();
    for id in ["spiffe://example.org/agent/x", "spiffe://example.org/Agent", "spiffe://other.example/agent"] {
        let authority = if id.contains("other") { &pki.others } else { &pki.ours };
        let channel = pki.channel(&broker.grpc_address(), Some(&authority.svid(id)));
        let (outcome, bytes) = ask_fully(channel, &[]).await;
        assert_eq!(outcome, Outcome::nobody(), "{id}");
        words.insert(bytes);
    }
    words.insert(ask_fully(pki.channel(&broker.grpc_address(), None), &[]).await.1);
    assert_eq!(words.len(), 1, "one answer for all: {words:?}");
}

#[tokio::test]
async fn certificates_are_optional_or_required() {
    let pki = Pki::new();
    let optional = broker(&pki).await;
    let key = format!("Bearer {}", optional.api_key("agent"));
    let entries = [("authorization", key.as_str())];
    assert_eq!(ask(pki.channel(&optional.grpc_address(), None), &entries).await, Outcome::Answered);

    let required = pki
        .mtls(BrokerBuilder::new())
        .set("grpc.tls_client_certificates", "required")
        .start_in_process(Overrides::default())
        .await;
    let key = format!("Bearer {}", required.api_key("agent"));
    let entries = [("authorization", key.as_str())];
    let address = required.grpc_address();
    assert_eq!(ask(pki.channel(&address, None), &entries).await, Outcome::NoConnection);
    // A certificate of nobody is a way in, and no more.
    let other = pki.ours.svid("spiffe://example.org/other");
    assert_eq!(ask(pki.channel(&address, Some(&other)), &entries).await, Outcome::Answered);
    assert_eq!(ask(pki.channel(&address, Some(&other)), &[]).await, Outcome::nobody());
}

#[tokio::test]
async fn a_connection_outlives_its_certificate_and_the_identity_does_not() {
    let pki = Pki::new();
    // The broker's clock says January 2027; TLS goes by the machine's.
    let overrides =
        Overrides { clock: Some(std::sync::Arc::new(ManualClock::new())), ..Overrides::default() };
    let broker = pki.mtls(BrokerBuilder::new()).start_in_process(overrides).await;
    let over = pki.ours.issue(AGENT, |params| params.not_after = date_time_ymd(2027, 1, 15));
    let lasting = pki.ours.issue(AGENT, |params| params.not_after = date_time_ymd(2027, 1, 16));
    let address = broker.grpc_address();
    assert_eq!(ask(pki.channel(&address, Some(&over)), &[]).await, Outcome::nobody());
    assert_eq!(ask(pki.channel(&address, Some(&lasting)), &[]).await, Outcome::Answered);
}

#[tokio::test]
async fn without_tls_the_door_is_open_as_before_and_with_tls_it_speaks_nothing_else() {
    let pki = Pki::new();
    let broker = broker(&pki).await;
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", broker.grpc_address())).unwrap();
    assert_eq!(ask(plain.connect_lazy(), &[]).await, Outcome::NoConnection);
}

/// Three at once, and one a second.
fn for_few_strangers(pki: &Pki) -> BrokerBuilder {
    pki.mtls(BrokerBuilder::new()).set("limits.strangers", 1).set("limits.burst", "3s")
}

#[tokio::test]
async fn a_flood_of_bad_certificates_gets_no_further_handshake() {
    let pki = Pki::new();
    let clock = std::sync::Arc::new(ManualClock::new());
    let overrides = Overrides { clock: Some(clock.clone()), ..Overrides::default() };
    let broker = for_few_strangers(&pki).start_in_process(overrides).await;
    let address = broker.grpc_address();
    let lasting = pki.ours.issue(AGENT, |params| params.not_after = date_time_ymd(2050, 1, 1));
    let standing = pki.channel(&address, Some(&lasting));
    assert_eq!(ask(standing.clone(), &[]).await, Outcome::Answered);
    let forged = Authority::new("example.org").svid(AGENT);
    for _ in 0..6 {
        assert_eq!(ask(pki.channel(&address, Some(&forged)), &[]).await, Outcome::NoConnection);
    }
    assert_eq!(ask(pki.channel(&address, Some(&lasting)), &[]).await, Outcome::NoConnection);
    assert_eq!(ask(standing, &[]).await, Outcome::Answered, "what stands is not touched");
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(ask(pki.channel(&address, Some(&lasting)), &[]).await, Outcome::Answered);
}

/// A balancer that passes connections through: its address is everybody's.
#[tokio::test]
async fn bad_certificates_behind_a_trusted_proxy_lock_nobody_out() {
    let pki = Pki::new();
    let clock = std::sync::Arc::new(ManualClock::new());
    let broker = for_few_strangers(&pki)
        .set("grpc.trusted_proxies", vec!["127.0.0.0/8"])
        .set("grpc.client_address_header", "none")
        .start_in_process(Overrides { clock: Some(clock), ..Overrides::default() })
        .await;
    let address = broker.grpc_address();
    let lasting = pki.ours.issue(AGENT, |params| params.not_after = date_time_ymd(2050, 1, 1));
    let forged = Authority::new("example.org").svid(AGENT);
    for _ in 0..6 {
        assert_eq!(ask(pki.channel(&address, Some(&forged)), &[]).await, Outcome::NoConnection);
    }
    assert_eq!(ask(pki.channel(&address, Some(&lasting)), &[]).await, Outcome::Answered);
}
