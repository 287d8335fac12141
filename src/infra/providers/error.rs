//! What can be wrong with a definition or a registration.

use std::fmt;

use crate::domain::key::ProviderId;

/// One mistake in a definition file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {}{message}", DisplayPath(path))]
pub struct DefinitionError {
    /// The file as it was named; `built-in:<name>` for one of the catalogue's.
    pub file: String,
    /// From 1. A mistake of the whole file is at 1:1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The field, such as `services.gmail.scopes[0]`; empty for the whole file.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

struct DisplayPath<'a>(&'a str);

impl fmt::Display for DisplayPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

/// One mistake in the registration of a client. Never contains the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("providers.{provider}: {mistake}")]
pub struct RegistrationError {
    /// Which registration.
    pub provider: ProviderId,
    /// What is wrong.
    pub mistake: RegistrationMistake,
}

/// See [`RegistrationError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationMistake {
    /// Two registrations have this id.
    #[error("this id is used twice; give each registration its own")]
    DuplicateId,
    /// No such definition.
    #[error("there is no definition {definition:?}; there are: {}", known.join(", "))]
    UnknownDefinition {
        /// What was asked for.
        definition: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No client id, or one that can't be sent.
    #[error("client_id must be 1 to 512 printable ASCII characters")]
    BadClientId,
    /// A confidential client without a secret, or with an empty one.
    #[error("client_secret is missing: {definition:?} describes a confidential client")]
    MissingSecret {
        /// The definition.
        definition: String,
    },
    /// A public client with a secret.
    #[error("client_secret must not be given: {definition:?} describes a public client")]
    UnexpectedSecret {
        /// The definition.
        definition: String,
    },
    /// The client is to authenticate in a way for which something is missing.
    #[error("{key} is missing: the client authenticates by {method}")]
    MissingClientKey {
        /// What is missing.
        key: &'static str,
        /// How the client authenticates.
        method: &'static str,
    },
    /// Something that the way in which the client authenticates has no use for. A client authenticates in one way only (RFC 6749
    /// section 2.3).
    #[error("{key} is not used: the client authenticates by {method}; drop it, or choose by client_auth")]
    UnusedClientKey {
        /// What is not used.
        key: &'static str,
        /// How the client authenticates.
        method: &'static str,
    },
    /// Assertions are for the issuer, and there is none.
    #[error(
        "client assertions name the issuer, and {definition:?} has none: give the definition an issuer, or assertion_audience = \"token_endpoint\""
    )]
    NoIssuer {
        /// The definition.
        definition: String,
    },
    /// The key can't sign.
    #[error(
        "the private key can't sign: it must be an RSA (2048 bits or more), P-256 or Ed25519 key as PKCS#8 in PEM, not encrypted, and private_key_algorithm of its kind"
    )]
    BadPrivateKey,
    /// The certificate can't be used.
    #[error(
        "the certificate and key do not make a TLS client: both in PEM, the key not encrypted, and of the certificate"
    )]
    BadCertificate,
    /// A variable without a default was not given.
    #[error("variables.{name} is missing: {description}")]
    MissingVariable {
        /// Its name.
        name: String,
        /// What it is.
        description: String,
    },
    /// The definition has no such variable.
    #[error("variables.{name} is not a variable of {definition:?}{}", list_of(known))]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The definition.
        definition: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The value is not of the variable's kind.
    #[error("variables.{name} {problem}")]
    BadVariable {
        /// Its name.
        name: String,
        /// What is wrong and what to write instead.
        problem: &'static str,
    },
    /// With these variables a URL is not a good one.
    #[error("{field} with these variables {problem}")]
    BadUrl {
        /// The field of the definition.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
}

fn list_of(known: &[String]) -> String {
    if known.is_empty() { "; it has none".to_owned() } else { format!("; it has: {}", known.join(", ")) }
}

impl RegistrationMistake {
    /// The key of the registration that has to be changed, such as `client_id` or `variables.tenant`; `None`: the
    /// registration's own id.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match self {
            Self::DuplicateId => None,
            Self::UnknownDefinition { .. } => Some("definition".to_owned()),
            Self::BadClientId => Some("client_id".to_owned()),
            Self::MissingSecret { .. } | Self::UnexpectedSecret { .. } => Some("client_secret".to_owned()),
            Self::MissingClientKey { key, .. } | Self::UnusedClientKey { key, .. } => Some((*key).to_owned()),
            Self::NoIssuer { .. } => Some("client_auth".to_owned()),
            Self::BadPrivateKey => Some("private_key_file".to_owned()),
            Self::BadCertificate => Some("tls_certificate_file".to_owned()),
            Self::MissingVariable { name, .. }
            | Self::UnknownVariable { name, .. }
            | Self::BadVariable { name, .. } => Some(format!("variables.{name}")),
            Self::BadUrl { .. } => Some("variables".to_owned()),
        }
    }
}
