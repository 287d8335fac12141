//! Apps that show who they are by keys of their own, at a place that the tenant has named.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use token_broker::app::Overrides;
use token_broker::r#gen::v1 as pb;

use super::{begin_at, builder, create, ops};
use crate::support::broker::{TestBroker, answered};
use crate::support::consent::key_at;
use crate::support::hostile::{HostileServer, Recorded, Reply};
use crate::support::tls_front::{self, TlsFront, certificate};

const EC: &str = include_str!("../support/keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../support/keys/ec.pub.pem");
const ED: &str = include_str!("../support/keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../support/keys/ed.pub.pem");

/// Its issuer, whom assertions are for, is where the tenant says.
const REALM: &str = r#"
id = "test-realm"
display_name = "Realm"

[variables.host]
kind = "host"
description = "where it is"

[endpoints]
issuer = "https://{host}"
authorization = "https://{host}/authorize"
token = "https://{host}/token"
revocation = "https://{host}/revoke"

[client]
auth = "basic"
secret = "optional"

[refresh]
rotation = "strict"

[services.files]
display_name = "Files"
scopes = ["read"]
"#;

/// The operator lets tenants come to servers on this machine, and trusts the authority of the test's.
async fn start(server: &HostileServer) -> TestBroker {
    builder(server)
        .definition(REALM)
        .set("outbound.allow_private", vec!["localhost"])
        .set("outbound.ca_file", tls_front::file("ca.crt").to_str().unwrap())
        .start_in_process(Overrides::default())
        .await
}

fn realm(
    front: &TlsFront,
    client_id: &str,
    authentication: pb::ClientAuthentication,
) -> pb::CreateProviderConfigurationRequest {
    pb::CreateProviderConfigurationRequest {
        provider: "realm".to_owned(),
        definition: "test-realm".to_owned(),
        client_id: client_id.to_owned(),
        variables: [("host".to_owned(), format!("localhost:{}", front.port()))].into(),
        authentication: Some(authentication),
        ..Default::default()
    }
}

/// The user's consent; whether it came to a good end.
async fn consent(broker: &TestBroker, tenant: &str) -> bool {
    begin_at(broker, tenant, "realm", "alice").await.unwrap().back().await.status.is_success()
}

async fn refresh(broker: &TestBroker, tenant: &str) {
    let request = pb::RefreshRequest { key: Some(key_at("realm", "alice", "files")), expected_generation: 1 };
    let answer = broker.client(&format!("{tenant}-agent")).await.refresh(request).await;
    let result = answered(answer).result.unwrap();
    assert!(matches!(result, pb::refresh_response::Result::Credential(_)));
}

async fn revoke(broker: &TestBroker, tenant: &str) {
    let request = pb::RevokeRequest { key: Some(key_at("realm", "alice", "files")), force: false };
    let told = answered(broker.client(&format!("{tenant}-agent")).await.revoke(request).await);
    assert!(told.provider_revocation() == pb::ProviderRevocation::Revoked);
}

/// The claims of an assertion that this key has signed for this server.
fn asserted(request: &Recorded, algorithm: Algorithm, key: &DecodingKey, audience: &str) -> Value {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    let assertion = request.param("client_assertion").unwrap();
    jsonwebtoken::decode::<Value>(&assertion, key, &validation).unwrap().claims
}

#[tokio::test]
async fn each_app_signs_with_its_own_key_for_the_server_that_its_tenant_has_named() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    server.always("/revoke", Reply::status(200));
    let keys = [
        ("acme", EC, Algorithm::ES256, DecodingKey::from_ec_pem(EC_PUBLIC).unwrap()),
        ("globex", ED, Algorithm::EdDSA, DecodingKey::from_ed_pem(ED_PUBLIC).unwrap()),
    ];
    for (tenant, private_key, algorithm, public_key) in keys {
        let front = TlsFront::start(server.port(), false).await;
        let authentication = pb::ClientAuthentication {
            private_key: private_key.to_owned(),
            private_key_id: format!("{tenant}-kid"),
            ..Default::default()
        };
        let client_id = format!("{tenant}-app");
        create(&broker, tenant, realm(&front, &client_id, authentication)).await;
        let before = server.requests().len();
        server.push(Reply::tokens("at-1", "rt-1"));
        assert!(consent(&broker, tenant).await);
        server.push(Reply::tokens("at-2", "rt-2"));
        refresh(&broker, tenant).await;
        revoke(&broker, tenant).await;

        let requests = server.requests().split_off(before);
        let paths: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(paths, ["/token", "/token", "/revoke"]);
        let mut ids = std::collections::BTreeSet::new();
        for request in &requests {
            assert!(request.header("authorization").is_none() && request.param("client_secret").is_none());
            let issuer = format!("https://localhost:{}", front.port());
            let claims = asserted(request, algorithm, &public_key, &issuer);
            assert_eq!(
                (&claims["iss"], &claims["sub"]),
                (&client_id.clone().into(), &client_id.clone().into())
            );
            let header = jsonwebtoken::decode_header(request.param("client_assertion").unwrap()).unwrap();
            assert_eq!(header.kid, Some(format!("{tenant}-kid")));
            ids.insert(claims["jti"].to_string());
        }
        assert_eq!(ids.len(), 3, "one assertion, one request");
        assert!(front.peers().iter().all(Option::is_none), "no certificate was shown");
    }
}

#[tokio::test]
async fn an_app_shows_its_own_certificate_and_a_new_one_as_soon_as_it_is_changed() {
    let server = HostileServer::start().await;
    let broker = start(&server).await;
    let front = TlsFront::start(server.port(), true).await;
    let identity = |name: &str| pb::ClientAuthentication {
        method: "tls_client_auth".to_owned(),
        tls_certificate: tls_front::pem(&format!("{name}.crt")),
        tls_key: tls_front::pem(&format!("{name}.key")),
        ..Default::default()
    };
    // Another tenant's certificate is the right one, and of no use here.
    create(&broker, "globex", realm(&front, "globex-app", identity("client"))).await;
    create(&broker, "acme", realm(&front, "acme-app", identity("stranger"))).await;
    server.push(Reply::tokens("at-0", "rt-0"));
    assert!(consent(&broker, "globex").await);
    assert!(!consent(&broker, "acme").await, "a certificate of an unknown authority");
    assert_eq!((server.requests().len(), front.peers().len()), (1, 1));

    let update = pb::UpdateProviderConfigurationRequest {
        provider: "realm".to_owned(),
        revision: 1,
        authentication: Some(identity("client")),
        ..Default::default()
    };
    answered(ops(&broker, "acme").await.update_provider_configuration(update).await);
    server.push(Reply::tokens("at-1", "rt-1"));
    assert!(consent(&broker, "acme").await);
    let request = server.requests().pop().unwrap();
    let params = request.params();
    assert_eq!(params.get("client_id").map(String::as_str), Some("acme-app"));
    assert!(!params.contains_key("client_secret") && !params.contains_key("client_assertion"));
    assert_eq!(request.header("authorization"), None);
    let shown = Some(certificate("client.crt"));
    assert_eq!(front.peers(), [shown.clone(), shown]);
}
