//! A user's own token beside the caller's identity: the call is for that user and for no other.

use std::time::Duration;

use serde_json::json;
use token_broker::app::Overrides;
use token_broker::r#gen::v1::get_credential_response::Result as Answer;
use token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use token_broker::r#gen::v1::{
    BeginOAuthRequest, CancelFlowRequest, CredentialKey, GetCredentialRequest, GetFlowRequest,
    ImportCredentialRequest, ListCredentialsRequest, ListProvidersRequest, RevokeRequest,
    WatchCredentialsRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Outcome, SUBJECT, TestIssuer, ask, ask_fully, now, trusting, with};
use crate::support::broker::{BrokerBuilder, TestBroker};
use crate::support::hostile::HostileServer;
use crate::support::jwt::Signer;

const USER_TOKEN: &str = "tokenbroker-user-token";

struct Users {
    one: TestIssuer,
    two: TestIssuer,
    broker: TestBroker,
    key: String,
    channel: Channel,
    _provider: HostileServer,
}

impl Users {
    async fn open() -> Self {
        let (one, two) = (TestIssuer::start("k1").await, TestIssuer::start("k1").await);
        let provider = HostileServer::start().await;
        let builder = trusting(BrokerBuilder::new().hostile(&provider), "one", &one, &["users"]);
        let broker = trusting(builder, "two", &two, &["users"]).start_in_process(Overrides::default()).await;
        let (key, channel) = (format!("Bearer {}", broker.api_key("agent")), broker.channel().await);
        Self { one, two, broker, key, channel, _provider: provider }
    }

    fn client(&self) -> TokenBrokerServiceClient<Channel> {
        TokenBrokerServiceClient::new(self.channel.clone())
    }

    /// A request of the caller, with a user's token.
    fn request<T>(&self, message: T, token: &str) -> tonic::Request<T> {
        with(message, &[("authorization", self.key.as_str()), (USER_TOKEN, token)])
    }

    async fn import(&self, token: &str, user: &str, access_token: &str) -> Result<String, Status> {
        let message = ImportCredentialRequest {
            key: Some(key(user)),
            access_token: access_token.to_owned(),
            ..Default::default()
        };
        let answer = self.client().import_credential(self.request(message, token)).await?;
        Ok(answer.into_inner().credential.unwrap().user_id)
    }

    async fn get(&self, token: &str, user: &str) -> Result<Option<String>, Status> {
        let message = GetCredentialRequest { key: Some(key(user)), ..Default::default() };
        let answer = self.client().get_credential(self.request(message, token)).await?;
        Ok(match answer.into_inner().result {
            Some(Answer::Credential(credential)) => Some(credential.access_token),
            _ => None,
        })
    }
}

fn key(user: &str) -> CredentialKey {
    CredentialKey {
        provider: "hostile".to_owned(),
        user_id: user.to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    }
}

fn outcome<T>(answer: Result<T, Status>) -> Outcome {
    answer.map_or_else(|status| Outcome::of(&status), |_| Outcome::Answered)
}

fn denied() -> Outcome {
    Outcome::Refused(Code::PermissionDenied, "PERMISSION_DENIED".to_owned())
}

#[tokio::test]
async fn two_issuers_with_one_subject_are_two_users() {
    let users = Users::open().await;
    let (one, two) = (users.one.token("alice"), users.two.token("alice"));
    assert_eq!(users.import(&one, "", "at-one").await.unwrap(), "one|alice");
    assert_eq!(users.get(&two, "").await.unwrap(), None);
    assert_eq!(users.import(&two, "", "at-two").await.unwrap(), "two|alice");
    assert_eq!(users.get(&one, "").await.unwrap().as_deref(), Some("at-one"));
    assert_eq!(users.get(&two, "").await.unwrap().as_deref(), Some("at-two"));
    // A subject that looks like another issuer's user is this issuer's all the same.
    let disguised = users.one.token("two|alice");
    assert_eq!(users.get(&disguised, "").await.unwrap(), None);
    assert_eq!(users.import(&disguised, "", "at-x").await.unwrap(), "one|two|alice");
    assert_eq!(users.get(&two, "two|alice").await.unwrap().as_deref(), Some("at-two"));
}

#[tokio::test]
async fn a_call_with_a_users_token_is_for_no_other_user() {
    let users = Users::open().await;
    let (alice, bob) = (users.one.token("alice"), users.one.token("bob"));
    users.import(&alice, "one|alice", "at-alice").await.unwrap();
    users.import(&bob, "", "at-bob").await.unwrap();
    for other in ["one|alice", "alice", "bob", "two|bob", "one|bo", "one|bob2", "ONE|bob"] {
        assert_eq!(outcome(users.get(&bob, other).await), denied(), "{other}");
        assert_eq!(outcome(users.import(&bob, other, "at-x").await), denied(), "{other}");
    }
    let mut client = users.client();

    // By an id, too.
    let begin = BeginOAuthRequest {
        provider: "hostile".to_owned(),
        services: vec!["files".to_owned()],
        ..Default::default()
    };
    let named = BeginOAuthRequest { user_id: "one|alice".to_owned(), ..begin.clone() };
    assert_eq!(outcome(client.begin_o_auth(users.request(named, &bob)).await), denied());
    let flow = client.begin_o_auth(users.request(begin, &alice)).await.unwrap().into_inner().flow.unwrap();
    let get = || GetFlowRequest { flow_id: flow.flow_id.clone() };
    let cancel = || CancelFlowRequest { flow_id: flow.flow_id.clone() };
    let unknown = Outcome::Refused(Code::NotFound, "FLOW_NOT_FOUND".to_owned());
    assert_eq!(outcome(client.get_flow(users.request(get(), &bob)).await), unknown);
    assert_eq!(outcome(client.cancel_flow(users.request(cancel(), &bob)).await), unknown);
    assert_eq!(outcome(client.get_flow(users.request(get(), &alice)).await), Outcome::Answered);

    // A list is the user's own.
    let listed =
        client.list_credentials(users.request(ListCredentialsRequest::default(), &bob)).await.unwrap();
    let listed: Vec<_> = listed.into_inner().credentials.into_iter().map(|one| one.user_id).collect();
    assert_eq!(listed, ["one|bob"]);
    let others = ListCredentialsRequest { user_id: "one|alice".to_owned(), ..Default::default() };
    assert_eq!(outcome(client.list_credentials(users.request(others, &bob)).await), denied());
    let others = WatchCredentialsRequest { user_id: "one|alice".to_owned(), ..Default::default() };
    assert_eq!(outcome(client.watch_credentials(users.request(others, &bob)).await), denied());

    let revoke = RevokeRequest { key: Some(key("one|alice")), force: false };
    assert_eq!(outcome(client.revoke(users.request(revoke, &bob)).await), denied());
    assert_eq!(users.get(&alice, "").await.unwrap().as_deref(), Some("at-alice"));
}

#[tokio::test]
async fn a_token_that_is_no_users_is_refused_and_never_ignored() {
    let users = Users::open().await;
    let good = users.one.token("alice");
    assert_eq!(outcome(users.get(&good, "").await), Outcome::Answered);
    let claims = |changes: serde_json::Value| {
        let mut claims = users.one.claims("alice");
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        users.one.signer.token(&claims)
    };
    let invalid = Outcome::Refused(Code::Unauthenticated, "USER_TOKEN_INVALID".to_owned());
    let mut words = std::collections::BTreeSet::new();
    for (what, token) in [
        ("empty", String::new()),
        ("no token", "alice".to_owned()),
        ("with a scheme", format!("Bearer {good}")),
        ("an API key", users.key["Bearer ".len()..].to_owned()),
        ("expired", claims(json!({ "exp": now() - 60 }))),
        ("not yet valid", claims(json!({ "nbf": now() + 60 }))),
        ("for another audience", claims(json!({ "aud": "another" }))),
        ("of another issuer", claims(json!({ "iss": users.two.url() }))),
        ("of an unknown issuer", claims(json!({ "iss": "https://issuer.example" }))),
        ("without subject", claims(json!({ "sub": null }))),
        ("with an empty subject", claims(json!({ "sub": "" }))),
        ("with a subject that ends in white space", claims(json!({ "sub": "alice " }))),
        ("with a subject that is too long", claims(json!({ "sub": "a".repeat(253) }))),
        ("with a line break in the subject", claims(json!({ "sub": "a\nb" }))),
        ("by another key", Signer::new("ES256", "k1").token(&users.one.claims("alice"))),
        ("by a workload", claims(json!({ "iss": null, "sub": "spiffe://example.org/agent" }))),
        ("two at once", format!("{good},{good}")),
    ] {
        let (outcome, bytes) =
            ask_fully(users.channel.clone(), &[("authorization", &users.key), (USER_TOKEN, &token)]).await;
        assert_eq!(outcome, invalid, "{what}");
        words.insert(bytes);
    }
    let twice = [("authorization", users.key.as_str()), (USER_TOKEN, &good), (USER_TOKEN, &good)];
    let (outcome, bytes) = ask_fully(users.channel.clone(), &twice).await;
    assert_eq!(outcome, invalid);
    words.insert(bytes);
    assert_eq!(words.len(), 1, "{words:?}");
    // Not a way in, and nobody who is not known learns whether it is good.
    for token in [good.as_str(), "x"] {
        assert_eq!(ask(users.channel.clone(), &[(USER_TOKEN, token)]).await, Outcome::nobody());
        let bearer = format!("Bearer {token}");
        assert_eq!(ask(users.channel.clone(), &[("authorization", &bearer)]).await, Outcome::nobody());
    }
}

#[tokio::test]
async fn a_broker_without_issuers_refuses_users_tokens() {
    let broker = BrokerBuilder::new().start_in_process(Overrides::default()).await;
    let key = format!("Bearer {}", broker.api_key("agent"));
    let issuer = TestIssuer::start("k1").await;
    let token = issuer.token("alice");
    let entries = [("authorization", key.as_str()), (USER_TOKEN, token.as_str())];
    let invalid = Outcome::Refused(Code::Unauthenticated, "USER_TOKEN_INVALID".to_owned());
    assert_eq!(ask(broker.channel().await, &entries).await, invalid);
}

#[tokio::test]
async fn what_an_issuer_is_for_it_is_for_alone() {
    let (callers, both) = (TestIssuer::start("k1").await, TestIssuer::start("k1").await);
    let builder = trusting(BrokerBuilder::new(), "callers", &callers, &["callers"]);
    let broker = trusting(builder, "both", &both, &["callers", "users"])
        .set(
            "callers.agent.subjects",
            vec![super::subject_of(&callers.url(), SUBJECT), super::subject_of(&both.url(), SUBJECT)],
        )
        .start_in_process(Overrides::default())
        .await;
    let channel = broker.channel().await;
    let by = |issuer: &TestIssuer| format!("Bearer {}", issuer.token(SUBJECT));
    for issuer in [&callers, &both] {
        assert_eq!(ask(channel.clone(), &[("authorization", &by(issuer))]).await, Outcome::Answered);
    }
    let user = |issuer: &TestIssuer| issuer.token("alice");
    let entries = [("authorization", by(&both)), (USER_TOKEN, user(&both))];
    let entries = entries.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(ask(channel.clone(), &entries).await, Outcome::Answered);
    let entries = [("authorization", by(&both)), (USER_TOKEN, user(&callers))];
    let entries = entries.each_ref().map(|(name, value)| (*name, value.as_str()));
    let invalid = Outcome::Refused(Code::Unauthenticated, "USER_TOKEN_INVALID".to_owned());
    assert_eq!(ask(channel, &entries).await, invalid);
}

#[tokio::test]
async fn a_watch_ends_when_the_users_token_expires() {
    let users = Users::open().await;
    let mut claims = users.one.claims("alice");
    // With the leeway of 30 s it is good for two more seconds.
    claims["exp"] = json!(now() - 28);
    let token = users.one.signer.token(&claims);
    let request = users.request(WatchCredentialsRequest::default(), &token);
    let mut watch = users.client().watch_credentials(request).await.unwrap().into_inner();
    let end = async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(30), end).await.expect("it ends");
    assert_eq!(status.code(), Code::Unauthenticated);
    if let Some(info) = status.get_details_error_info() {
        assert_eq!(info.reason, "IDENTITY_EXPIRED");
    }
    // The caller itself is as good as before.
    let entries = [("authorization", users.key.as_str())];
    assert_eq!(ask(users.channel.clone(), &entries).await, Outcome::Answered);
    let request = with(ListProvidersRequest {}, &entries);
    assert!(
        users.client().list_providers(request).await.is_ok() && !users.broker.api_key("agent").is_empty()
    );
}
