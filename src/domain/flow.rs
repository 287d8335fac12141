//! A consent under way.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::credential::Sealed;
use super::key::{CallerId, CredentialKey, FlowId, GrantId, ServiceId};
use super::scope::ScopeSet;

/// How long a link works.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);
/// A flow that is still being exchanged after this was interrupted by a crash.
pub const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);
/// How many consents of one user at one provider may be pending at a time.
pub const MAX_PENDING_FLOWS: u32 = 20;

/// SHA-256 of a flow's `state` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 32]);

/// The provider's endpoints as they were when the flow began. A changed configuration does not move a flow that is under
/// way to another server (RFC 9700 section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEndpoints {
    /// The issuer, if the provider has one (RFC 9207, OpenID Connect).
    pub issuer: Option<String>,
    /// Whether the issuer promises the `iss` parameter (RFC 9207 section 3), so that its absence is an error.
    pub iss_required: bool,
    /// The authorization endpoint.
    pub authorization: url::Url,
    /// The token endpoint.
    pub token: url::Url,
    /// The revocation endpoint (RFC 7009), if it has one.
    pub revocation: Option<url::Url>,
    /// Where the account is asked for, if anywhere.
    pub userinfo: Option<url::Url>,
}

/// What the vault keeps of a flow as one sealed JSON ([`super::ports::Field::FlowSecrets`]).
///
/// The state is in it so that an agent that asks again while a consent is pending is given the same link; the database
/// looks flows up by hash, and without the key-encryption key neither column gives the state away.
#[derive(Debug, Clone)]
pub struct FlowSecrets {
    /// The `state` parameter: 256 random bits, base64url.
    pub state: super::secret::SecretString,
    /// The PKCE code verifier (RFC 7636 section 4.1).
    pub code_verifier: super::secret::SecretString,
    /// The `nonce` of the ID token (OpenID Connect Core section 3.1.2.1).
    pub nonce: super::secret::SecretString,
}

/// Why a flow failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowFailure {
    /// The provider came back with an error other than `access_denied`.
    ProviderError,
    /// The provider refused the code.
    ExchangeRejected,
    /// The exchange failed on the way; whether a grant exists at the provider is unknown.
    ExchangeFailed,
    /// The tokens could not be stored; the grant was revoked at the provider.
    StoreFailed,
    /// The ID token or the `iss` parameter was not the expected issuer's, or not for this flow.
    IdTokenInvalid,
    /// Another account than the one already connected; the new grant was revoked.
    AccountMismatch,
    /// The broker stopped in the middle of the exchange.
    Interrupted,
}

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowStatus {
    /// Waiting for the browser.
    Pending,
    /// The browser came; this flow's one use is spent.
    Exchanging,
    /// Tokens are stored.
    Completed,
    /// The user said no.
    Denied,
    /// See the failure.
    Failed(FlowFailure),
    /// Nobody came in time.
    Expired,
    /// CancelFlow or Revoke.
    Cancelled,
}

/// What the caller asked for and is told again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsentOptions {
    /// Where the result page links to. Checked against the allow-list when the flow begins.
    pub return_url: Option<url::Url>,
    /// Opaque.
    pub client_state: Option<String>,
    /// OpenID Connect Core section 3.1.2.1.
    pub login_hint: Option<String>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Not a secret.
    pub id: FlowId,
    /// The credential that it will make or renew.
    pub key: CredentialKey,
    /// Who began it.
    pub caller: CallerId,
    /// The services to connect.
    pub services: BTreeSet<ServiceId>,
    /// What the user is asked for.
    pub scopes: ScopeSet,
    /// The grant that it will make; ciphertexts are bound to it.
    pub grant_id: GrantId,
    /// How the callback finds it.
    pub state_hash: StateHash,
    /// See [`FlowSecrets`].
    pub secrets_sealed: Sealed,
    /// See [`RecordedEndpoints`].
    pub endpoints: RecordedEndpoints,
    /// As it was sent; the exchange must repeat it (RFC 6749 section 4.1.3).
    pub redirect_uri: url::Url,
    /// As given.
    pub options: ConsentOptions,
    /// Where it stands.
    pub status: FlowStatus,
    /// When it began.
    pub created_at: Timestamp,
    /// When the link stops working.
    pub expires_at: Timestamp,
    /// When it left [`FlowStatus::Pending`] or, if it came to an exchange, [`FlowStatus::Exchanging`].
    pub ended_at: Option<Timestamp>,
}

impl Flow {
    /// The status as a reader sees it at `now`: a pending flow past its end is expired whether or not the sweeper has
    /// been there.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> FlowStatus {
        match self.status {
            FlowStatus::Pending if now >= self.expires_at => FlowStatus::Expired,
            status => status,
        }
    }
}
