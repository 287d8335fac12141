//! A definition: everything about a provider but the broker's client there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::template::UrlTemplate;
use crate::domain::key::{ProviderId, ServiceId};
use crate::domain::provider::{
    AssertionAudience, AuthorizationRules, ClientAuth, Identity, RefreshRules, ResponseRules, RevocationCall,
    RevokedToken, Service, TokenRules,
};

/// One valid entry of the catalogue.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What registrations call it.
    pub id: ProviderId,
    /// For people.
    pub display_name: String,
    /// Where the provider's operator tells how to register a client.
    pub documentation: Option<String>,
    /// Where the definition is from.
    pub source: Source,
    /// What a registration has to or may fill in, by name.
    pub variables: BTreeMap<String, Variable>,
    /// How the client authenticates.
    pub auth: ClientAuth,
    /// Whether a registration has a client secret.
    pub secret: SecretRule,
    /// Whom a client assertion is for, where a registration signs one.
    pub audience: AssertionAudience,
    /// Where the provider is.
    pub endpoints: EndpointTemplates,
    /// See [`AuthorizationRules`].
    pub authorization: AuthorizationRules,
    /// See [`TokenRules`].
    pub token: TokenRules,
    /// See [`ResponseRules`].
    pub response: ResponseRules,
    /// See [`RefreshRules`].
    pub refresh: RefreshRules,
    /// See [`crate::domain::provider::Revocation`].
    pub revocation: RevocationTemplate,
    /// See [`Identity`]; a userinfo endpoint that is written down stands in the endpoints.
    pub identity: Identity,
    /// What users connect to, never empty.
    pub services: BTreeMap<ServiceId, Service>,
}

/// Where a definition is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The embedded catalogue.
    BuiltIn,
    /// A file of the operator.
    File(PathBuf),
}

/// Something that a registration fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// For people.
    pub description: String,
    /// What its value may be.
    pub kind: VariableKind,
    /// The value if the registration has none; `None`: it must have one.
    pub default: Option<String>,
}

/// What a variable's value may be. It can't leave its place in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableKind {
    /// Part of a host name or of a path: letters, digits, `-`, `_`, single `.`.
    Label,
    /// A host name, with a port if need be.
    Host,
    /// A whole URL without query, https except to loopback.
    Url,
}

/// Whether a registration has a client secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretRule {
    /// A confidential client.
    Required,
    /// Either; without a secret it is a public client.
    Optional,
    /// A public client.
    Forbidden,
}

/// [`crate::domain::provider::EndpointSource`] before its variables are filled in.
#[derive(Debug, Clone)]
pub enum EndpointTemplates {
    /// Written down.
    Literal {
        /// The issuer, if it has one.
        issuer: Option<UrlTemplate>,
        /// Whether `iss` is promised (RFC 9207).
        iss_required: bool,
        /// The authorization endpoint.
        authorization: UrlTemplate,
        /// The token endpoint.
        token: UrlTemplate,
        /// The revocation endpoint (RFC 7009), if it has one.
        revocation: Option<UrlTemplate>,
        /// Where the account is asked for, if anywhere.
        userinfo: Option<UrlTemplate>,
    },
    /// From the issuer's metadata.
    Discovered {
        /// The issuer.
        issuer: UrlTemplate,
    },
}

/// [`crate::domain::provider::Revocation`] before its variables are filled in.
#[derive(Debug, Clone)]
pub enum RevocationTemplate {
    /// RFC 7009.
    Rfc7009 {
        /// Which token is presented.
        token: RevokedToken,
    },
    /// A call of the provider's own.
    Call {
        /// The call; its `url` is not filled in.
        call: RevocationCall,
        /// Its URL.
        url: UrlTemplate,
    },
    /// There is none.
    NotSupported,
}
