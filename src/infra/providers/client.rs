//! Who the broker is at a provider, and by what it shows that.

use super::definition::{Definition, EndpointTemplates, SecretRule};
use super::error::RegistrationMistake;
use crate::domain::provider::{
    AssertionAlgorithm, AssertionAudience, AssertionKey, Client, ClientAuth, ClientCertificate,
};
use crate::domain::secret::SecretString;

/// The longest client id, in bytes. Google's are of about 75.
const MAX_CLIENT_ID_BYTES: usize = 512;

/// What a registration may have instead of a secret, and which way it chooses.
#[derive(Debug, Clone, Default)]
pub struct ClientKeys {
    /// `None`: the best that there is: a private key, a certificate, the secret.
    pub auth: Option<ClientAuth>,
    /// Signs assertions.
    pub private_key: Option<PrivateKey>,
    /// For TLS.
    pub certificate: Option<ClientCertificate>,
}

/// A key that signs assertions.
#[derive(Debug, Clone)]
pub struct PrivateKey {
    /// PKCS#8 in PEM.
    pub pem: SecretString,
    /// `kid`.
    pub id: Option<String>,
    /// `None`: what fits the key.
    pub algorithm: Option<AssertionAlgorithm>,
}

/// Puts the client together; notes what is missing and what is not used.
pub(super) fn client(
    definition: &Definition,
    id: String,
    secret: Option<SecretString>,
    keys: ClientKeys,
    mistakes: &mut Vec<RegistrationMistake>,
) -> Client {
    // RFC 6749 appendix A.1: visible characters and space. A space at an end is a slip of the clipboard.
    let printable = id.bytes().all(|b| (b' '..=b'~').contains(&b));
    if id.is_empty() || id.len() > MAX_CLIENT_ID_BYTES || !printable || id.trim() != id {
        mistakes.push(RegistrationMistake::BadClientId);
    }
    let given = secret.is_some();
    let secret = secret.filter(|secret| !secret.is_empty());
    let auth = auth(definition, &keys, secret.is_some());
    check(definition, auth, &keys, given, secret.is_some(), mistakes);
    Client {
        id,
        secret: secret.filter(|_| matches!(auth, ClientAuth::Basic | ClientAuth::Post)),
        auth,
        assertion: keys.private_key.filter(|_| auth == ClientAuth::PrivateKeyJwt).map(|key| AssertionKey {
            private_key: key.pem,
            key_id: key.id,
            algorithm: key.algorithm,
            audience: definition.audience,
        }),
        certificate: keys.certificate,
    }
}

/// How the client authenticates: as it says, else by the best that it has. Keys before secrets (RFC 9700 section 2.5): a secret
/// is known to the provider and goes over the wire.
fn auth(definition: &Definition, keys: &ClientKeys, has_secret: bool) -> ClientAuth {
    if let Some(auth) = keys.auth {
        return auth;
    }
    if keys.private_key.is_some() {
        return ClientAuth::PrivateKeyJwt;
    }
    if keys.certificate.is_some() {
        return ClientAuth::TlsCertificate;
    }
    match definition.auth {
        ClientAuth::Basic | ClientAuth::Post if !has_secret => ClientAuth::None,
        auth => auth,
    }
}

fn check(
    definition: &Definition,
    auth: ClientAuth,
    keys: &ClientKeys,
    secret_given: bool,
    has_secret: bool,
    mistakes: &mut Vec<RegistrationMistake>,
) {
    let name = || definition.id.to_string();
    let method = auth.name();
    let by_secret = matches!(auth, ClientAuth::Basic | ClientAuth::Post);
    match definition.secret {
        SecretRule::Forbidden if secret_given => {
            mistakes.push(RegistrationMistake::UnexpectedSecret { definition: name() });
        }
        SecretRule::Required if !has_secret && (by_secret || auth == ClientAuth::None) => {
            mistakes.push(RegistrationMistake::MissingSecret { definition: name() });
        }
        SecretRule::Required | SecretRule::Optional | SecretRule::Forbidden if by_secret && !has_secret => {
            mistakes.push(RegistrationMistake::MissingClientKey { key: "client_secret", method });
        }
        SecretRule::Required | SecretRule::Optional | SecretRule::Forbidden if !by_secret && has_secret => {
            mistakes.push(RegistrationMistake::UnusedClientKey { key: "client_secret", method });
        }
        SecretRule::Required | SecretRule::Optional | SecretRule::Forbidden => {}
    }
    let by_key = auth == ClientAuth::PrivateKeyJwt;
    match &keys.private_key {
        None if by_key => {
            mistakes.push(RegistrationMistake::MissingClientKey { key: "private_key_file", method });
        }
        Some(_) if !by_key => {
            mistakes.push(RegistrationMistake::UnusedClientKey { key: "private_key_file", method });
        }
        None | Some(_) => {}
    }
    if auth == ClientAuth::TlsCertificate && keys.certificate.is_none() {
        mistakes.push(RegistrationMistake::MissingClientKey { key: "tls_certificate_file", method });
    }
    let without_issuer = matches!(definition.endpoints, EndpointTemplates::Literal { issuer: None, .. });
    if by_key && definition.audience == AssertionAudience::Issuer && without_issuer {
        mistakes.push(RegistrationMistake::NoIssuer { definition: name() });
    }
}
