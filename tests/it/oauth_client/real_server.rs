//! The whole life of a grant at a real, strict OpenID provider.

use std::sync::Arc;

use token_broker::domain::flow::FlowSecrets;
use token_broker::domain::ports::{
    AuthorizationRequest, OAuthClient as _, ProviderFailure, RevocationOutcome,
};
use token_broker::infra::oauth::HttpOAuthClient;
use token_broker::infra::outbound::HttpSettings;
use token_broker::infra::system::{SystemClock, SystemEntropy};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use url::Url;

use super::{AMPLE, secret};
use crate::support::browser::{Answer, Browser};
use crate::support::oidc::{CLIENT_ID, CLIENT_SECRET, OidcOptions, OidcServer};
use crate::support::provider::{discovered, scopes};

/// Answers one request as the callback would; the URL that was asked for.
async fn called_back(listener: TcpListener) -> Url {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    Url::parse("http://broker").unwrap().join(line.split(' ').nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn discovery_consent_refresh_and_revocation() {
    let server = OidcServer::start(OidcOptions::default()).await;
    let mut provider = discovered(server.issuer());
    provider.client.id = CLIENT_ID.to_owned();
    provider.client.secret = Some(secret(CLIENT_SECRET));
    provider.authorization.params.insert("prompt".to_owned(), "consent".to_owned());
    provider.response.scopes_never_listed = scopes("offline_access");
    // The server's tokens are of today.
    let client =
        HttpOAuthClient::new(HttpSettings::default(), Arc::new(SystemClock), Arc::new(SystemEntropy))
            .unwrap();

    let endpoints = client.endpoints(&provider).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let callback = format!("http://{}/oauth/callback/oidc", listener.local_addr().unwrap());
    let redirect_uri = callback.parse().unwrap();
    let secrets = FlowSecrets {
        state: secret("state-1"),
        code_verifier: secret("a-verifier-of-more-than-forty-three-characters"),
        nonce: secret("nonce-1"),
        link: None,
        flow_secret: None,
    };
    let request = AuthorizationRequest {
        endpoints: &endpoints,
        redirect_uri: &redirect_uri,
        secrets: &secrets,
        scopes: &scopes("openid email offline_access"),
        login_hint: None,
    };
    let link = client.authorization_url(&provider, request).unwrap();
    let browser = async { Browser::new().consent(link.expose_secret(), "alice", Answer::Allow).await };
    let (returned, _) = tokio::join!(called_back(listener), browser);
    let parameter = |name: &str| returned.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert_eq!(parameter("state"), "state-1");

    let code = secret(&parameter("code"));
    let exchange =
        || client.exchange_code(&provider, &endpoints, &redirect_uri, &code, &secrets.code_verifier);
    let first = exchange().await.unwrap();
    let account = client.identify(&provider, &endpoints, &first, &secrets.nonce).await.unwrap();
    assert_eq!(account.subject.as_deref(), Some("alice-0001"));
    client.identify(&provider, &endpoints, &first, &secret("nonce-2")).await.unwrap_err();

    let first_refresh = first.refresh_token.unwrap();
    let asked = scopes("openid email offline_access");
    let second = client.refresh(&provider, &first_refresh, &asked, AMPLE).await.unwrap();
    let second_refresh = second.refresh_token.unwrap();
    assert_ne!(first_refresh.expose_secret(), second_refresh.expose_secret());
    assert_eq!(server.userinfo(second.access_token.expose_secret()).await.as_deref(), Some("alice-0001"));

    let revoked = client.revoke(&provider, &second.access_token, Some(&second_refresh)).await;
    assert_eq!(revoked, Ok(RevocationOutcome::Revoked));
    assert_eq!(server.userinfo(second.access_token.expose_secret()).await, None);
    let dead = client.refresh(&provider, &second_refresh, &asked, AMPLE).await;
    assert_eq!(dead.unwrap_err(), ProviderFailure::InvalidGrant);
    assert_eq!(exchange().await.unwrap_err(), ProviderFailure::InvalidGrant);

    provider.client.secret = Some(secret("wrong"));
    let refused = client.refresh(&provider, &second_refresh, &asked, AMPLE).await;
    assert_eq!(refused.unwrap_err(), ProviderFailure::ClientRejected);
    let outcomes: Vec<String> = server.refreshes().await.into_iter().map(|refresh| refresh.outcome).collect();
    assert_eq!(outcomes, ["ok", "invalid_grant", "invalid_client"]);
}
