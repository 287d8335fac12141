//! Several identities at once: the `authorization` entry counts, and a certificate of somebody else makes it nobody's call.

use token_broker::app::Overrides;

use super::{Outcome, Pki, SUBJECT, TestIssuer, ask, subject_of, trusting};
use crate::support::broker::{BrokerBuilder, CallerRights};

#[tokio::test]
async fn an_entry_and_a_certificate_are_of_one_caller_or_of_none() {
    let pki = Pki::new();
    let issuer = TestIssuer::start("k1").await;
    let broker = trusting(pki.mtls(BrokerBuilder::new()), "cluster", &issuer, &["callers"])
        .caller("second", CallerRights::all("acme"))
        .caller("namesake", CallerRights::all("rival"))
        .set("callers.second.subjects", vec![subject_of(&issuer.url(), SUBJECT)])
        .set("callers.agent.subjects", vec![subject_of(&issuer.url(), "agent")])
        .set("callers.namesake.spiffe_ids", vec!["spiffe://other.example/agent"])
        .start_in_process(Overrides::default())
        .await;
    let address = broker.grpc_address();
    let agents = pki.ours.svid("spiffe://example.org/agent");
    let strangers = pki.ours.svid("spiffe://example.org/stranger");
    let namesakes = pki.others.svid("spiffe://other.example/agent");
    let key = |caller: &str| format!("Bearer {}", broker.api_key(caller));
    let token = |subject: &str| format!("Bearer {}", issuer.token(subject));
    let nobody = Outcome::nobody;
    for (what, certificate, entry, expected) in [
        ("a key and the same caller's certificate", &agents, key("agent"), Outcome::Answered),
        ("a token and the same caller's certificate", &agents, token("agent"), Outcome::Answered),
        ("a key and a certificate of no caller", &strangers, key("second"), Outcome::Answered),
        ("a key and another caller's certificate", &agents, key("second"), nobody()),
        ("a token and another caller's certificate", &agents, token(SUBJECT), nobody()),
        ("a key and a certificate of another tenant's caller", &namesakes, key("agent"), nobody()),
        // What is presented and no good is not passed over.
        ("a key that is none, and a certificate", &agents, "Bearer tb_wrong".to_owned(), nobody()),
        ("an unknown key, and a certificate", &agents, format!("Bearer tb_{}", "A".repeat(43)), nobody()),
        ("a token that is none, and a certificate", &agents, "Bearer a.b.c".to_owned(), nobody()),
        ("a token of no caller, and a certificate", &agents, token("nobody"), nobody()),
        ("another scheme, and a certificate", &agents, "Basic x".to_owned(), nobody()),
        ("an empty entry, and a certificate", &agents, String::new(), nobody()),
    ] {
        let outcome = ask(pki.channel(&address, Some(certificate)), &[("authorization", &entry)]).await;
        assert_eq!(outcome, expected, "{what}");
    }
    let both = [("authorization", key("agent")), ("authorization", token("agent"))];
    let both = both.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(ask(pki.channel(&address, Some(&agents)), &both).await, nobody());
}
