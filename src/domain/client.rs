//! Who the broker is at a provider, and by what it shows that.

use super::secret::SecretString;

/// The broker's registration at the provider.
#[derive(Debug, Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`; `None` for a public client.
    pub secret: Option<SecretString>,
    /// How the client authenticates at the token endpoint (RFC 6749 section 2.3.1).
    pub auth: ClientAuth,
    /// What signs for [`ClientAuth::PrivateKeyJwt`]; there if and only if that is how the client authenticates.
    pub assertion: Option<AssertionKey>,
    /// The broker's own certificate for TLS (RFC 8705); there at least for [`ClientAuth::TlsCertificate`].
    pub certificate: Option<ClientCertificate>,
}

/// How a client shows that it is the one that was registered. Named as in the registry of token endpoint authentication
/// methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret_basic` (RFC 6749 section 2.3.1).
    Basic,
    /// `client_secret_post`.
    Post,
    /// `private_key_jwt` (RFC 7523 section 2.2, OpenID Connect Core section 9).
    PrivateKeyJwt,
    /// `tls_client_auth` and, for the client the same, `self_signed_tls_client_auth` (RFC 8705 section 2).
    TlsCertificate,
    /// A public client.
    None,
}

impl ClientAuth {
    /// As in the registry of token endpoint authentication methods.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsCertificate => "tls_client_auth",
            Self::None => "none",
        }
    }

    /// From its name, or what to write instead.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        match name {
            "client_secret_basic" => Ok(Self::Basic),
            "client_secret_post" => Ok(Self::Post),
            "private_key_jwt" => Ok(Self::PrivateKeyJwt),
            "tls_client_auth" | "self_signed_tls_client_auth" => Ok(Self::TlsCertificate),
            "none" => Ok(Self::None),
            _ => Err(
                "must be \"private_key_jwt\", \"tls_client_auth\", \"client_secret_basic\", \"client_secret_post\" or \"none\"",
            ),
        }
    }
}

/// What signs client assertions.
#[derive(Debug, Clone)]
pub struct AssertionKey {
    /// The private key: PKCS#8 in PEM.
    pub private_key: SecretString,
    /// `kid`, if the provider knows several keys.
    pub key_id: Option<String>,
    /// `None`: what fits the key.
    pub algorithm: Option<AssertionAlgorithm>,
    /// `aud`.
    pub audience: AssertionAudience,
}

/// RFC 7518 section 3.1, RFC 8037 section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionAlgorithm {
    /// ECDSA with P-256.
    Es256,
    /// RSA, PKCS#1 v1.5.
    Rs256,
    /// RSA, PSS.
    Ps256,
    /// Ed25519.
    EdDsa,
}

impl AssertionAlgorithm {
    /// As in a JWT's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// From its name, or what to write instead.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        match name {
            "ES256" => Ok(Self::Es256),
            "RS256" => Ok(Self::Rs256),
            "PS256" => Ok(Self::Ps256),
            "EdDSA" => Ok(Self::EdDsa),
            _ => Err("must be \"ES256\", \"RS256\", \"PS256\" or \"EdDSA\""),
        }
    }
}

/// Whom an assertion is for. Always one, as a text: one that several servers take could be replayed by any of them at the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer (draft-ietf-oauth-rfc7523bis section 4).
    Issuer,
    /// The token endpoint, for providers that take nothing else.
    TokenEndpoint,
}

/// A certificate of the broker's own.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate and what leads to its authority: PEM.
    pub chain: String,
    /// Its private key: PEM.
    pub key: SecretString,
}
