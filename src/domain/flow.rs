//! A consent under way.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::credential::Sealed;
use super::key::{CallerId, ConfigId, CredentialKey, FlowId, GrantId, ServiceId};
use super::scope::ScopeSet;
use super::secret::SecretString;

/// How long a link works.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);
/// A flow that is still being exchanged after this was interrupted by a crash.
pub const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);
/// How many consents of one user at one provider may be pending at a time.
pub const MAX_PENDING_FLOWS: u32 = 20;

/// SHA-256 of a flow's `state` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 32]);

/// SHA-256 of a secret of 256 random bits that somebody has to show: the database alone gives none of them away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &SecretString) -> Self {
        Self(Sha256::digest(secret.expose_secret().as_bytes()).into())
    }

    /// Whether it is this secret's. Takes the same time whatever the secret is.
    #[must_use]
    pub fn matches(&self, secret: &SecretString) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

/// How it is shown, before a code is exchanged, that the browser that consents is the user's. PKCE and a signed state do not
/// show it: whoever began the flow could send the link to somebody else and receive that person's token
/// (draft-ietf-oauth-security-topics-update section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConsentBinding {
    /// The application compares the browser that came back with its own session, and then calls CompleteOAuth.
    App,
    /// The user signs in at an OpenID provider before the browser goes on.
    Login,
    /// A page names the user, and the browser that confirms is the only one that may come back. Weaker: a person who does
    /// not read is not protected.
    Confirm,
}

impl ConsentBinding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::App, Self::Login, Self::Confirm];

    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Login => "login",
            Self::Confirm => "confirm",
        }
    }

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|binding| binding.as_str() == name)
    }
}

/// What was proved about the browser, and by what it will be. Of each secret only the hash is kept; which ones there are
/// depends on the binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// How.
    pub binding: ConsentBinding,
    /// Of the handle in `/connect/{handle}`; not for [`ConsentBinding::App`].
    pub link: Option<SecretHash>,
    /// Of `flow_secret`, the half of whoever began; only for [`ConsentBinding::App`].
    pub flow_secret: Option<SecretHash>,
    /// Of the key in the cookie of the browser that confirmed or signed in. Without it nothing is exchanged.
    pub browser: Option<SecretHash>,
    /// Of `completion_code`, the half of the browser that came back; only for [`ConsentBinding::App`].
    pub completion_code: Option<SecretHash>,
}

impl Proof {
    /// Whether these are the two halves. Both are compared whatever the first comparison says. `None`: the browser has not
    /// come back, or the binding has no halves.
    #[must_use]
    pub fn has_halves(&self, flow_secret: &SecretString, completion_code: &SecretString) -> Option<bool> {
        let (first, second) = self.flow_secret.zip(self.completion_code)?;
        Some(first.matches(flow_secret) & second.matches(completion_code))
    }

    /// Whether this is the key of the browser that was let in.
    #[must_use]
    pub fn is_browser(&self, key: Option<&SecretString>) -> bool {
        self.browser.zip(key).is_some_and(|(browser, key)| browser.matches(key))
    }
}

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

/// What the vault keeps of a flow as one sealed JSON ([`super::cipher::Field::FlowSecrets`]).
///
/// The state is in it so that an agent that asks again while a consent is pending is given the same link; the database
/// looks flows up by hash, and without the key-encryption key neither column gives the state away.
#[derive(Debug, Clone)]
pub struct FlowSecrets {
    /// The `state` parameter: 256 random bits, base64url.
    pub state: SecretString,
    /// The PKCE code verifier (RFC 7636 section 4.1).
    pub code_verifier: SecretString,
    /// The `nonce` of the ID token (OpenID Connect Core section 3.1.2.1).
    pub nonce: SecretString,
    /// Of a link to the broker's own page.
    pub link: Option<SecretString>,
    /// The half of whoever began.
    pub flow_secret: Option<SecretString>,
}

/// Why a flow failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowFailure {
    /// The provider came back with an error other than `access_denied`.
    ProviderError,
    /// The provider refused the code.
    ExchangeRejected,
    /// The exchange failed on the way, and whether a grant exists at the provider is unknown; or its answer was beyond the limits
    /// (see [`super::token_set::Excess`]), and the grant was given back.
    ExchangeFailed,
    /// The tokens could not be stored; the grant was revoked at the provider.
    StoreFailed,
    /// The ID token or the `iss` parameter was not the expected issuer's, or not for this flow.
    IdTokenInvalid,
    /// Another account than the one already connected; the new grant was revoked.
    AccountMismatch,
    /// The broker stopped in the middle of the exchange.
    Interrupted,
    /// Another user than the flow's consented, or was named at its completion. No code was exchanged.
    UserMismatch,
    /// Another browser came back than the one that was let in. No code was exchanged.
    BrowserMismatch,
}

/// Where a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowStatus {
    /// Waiting for the browser.
    Pending,
    /// The browser came back; its code waits, sealed, for the proof that it was the user's.
    Returned,
    /// Proved; this flow's one use is spent.
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
    /// The tenant's configuration that it was begun with, and is ended with; `None`: the operator's.
    pub configuration: Option<ConfigId>,
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
    /// How the browser is proved to be the user's.
    pub proof: Proof,
    /// The authorization code, while it is [`FlowStatus::Returned`].
    pub code_sealed: Option<Sealed>,
    /// Where it stands.
    pub status: FlowStatus,
    /// When it began.
    pub created_at: Timestamp,
    /// When the link stops working.
    pub expires_at: Timestamp,
    /// When it came to its end.
    pub ended_at: Option<Timestamp>,
}

impl Flow {
    /// The status as a reader sees it at `now`: a flow that waits past its end is expired whether or not the sweeper has
    /// been there.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> FlowStatus {
        match self.status {
            FlowStatus::Pending | FlowStatus::Returned if now >= self.expires_at => FlowStatus::Expired,
            status => status,
        }
    }
}
