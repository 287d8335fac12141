//! The seams: what the use cases need from the outside. Those of a part of the domain that has types of its own stand beside
//! them: the vault (`cipher.rs`, `data_key.rs`, `user_key.rs`), replicas and leases (`coordination.rs`), events (`event.rs`),
//! stored callers and tenants (`caller_store.rs`), tenants' own apps (`provider_config.rs`), the audit log (`audit/ports.rs`),
//! shared rate limits (`rate_limit.rs`). Each is implemented in `infra`, and, where tests steer it, in `tests/support/fakes`.
//! Store methods are shaped after use cases and atomic; no transaction crosses a port, so none can stay open during a call to a
//! provider.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::access_policy::{Caller, Identity, UserReach};
use super::cipher::CipherError;
use super::credential::{
    BackOff, Claim, Credential, Epoch, Fingerprint, Generation, ReauthReason, Sealed, StoredTokens,
};
use super::flow::{Flow, FlowStatus, RecordedEndpoints, SecretHash, StateHash};
use super::key::{
    ClaimOwner, ConfigId, CredentialId, CredentialKey, FlowId, GrantId, OutboxId, ProviderId, TenantId,
    UserId,
};
use super::provider::Provider;
use super::provider_config::{ClientAuthentication, ProviderConfig};
use super::scope::ScopeSet;
use super::secret::SecretString;
use super::token_set::{ProviderAccount, TokenResponse};
use super::user_key::{UserDeleted, UserDeletion, UserKeyId};

/// The time.
pub trait Clock: Send + Sync {
    /// Of the day; may jump.
    fn now(&self) -> Timestamp;
    /// Since some fixed moment; never jumps, counts suspended time where the system can.
    fn monotonic(&self) -> Duration;
}

/// Randomness fit for secrets.
pub trait Entropy: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

// ---- storage --------------------------------------------------------------------------------------------------------

/// Why the database could not do it. The text says the cause: it is for logs, and never in an answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, busy beyond its limit, out of space. Worth trying again.
    #[error("the database is not available: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// A row that this version can't read. Not worth trying again.
    #[error("a stored row is damaged: {0}")]
    Corrupt(&'static str),
}

/// Credentials. Contract: `tests/it/contract/credential_store.rs`.
#[async_trait]
pub trait CredentialStore: Send + Sync {
    /// One row by key, by primary-key read.
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError>;

    /// One row by id.
    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError>;

    /// Step 5 of a refresh, one autocommit statement: `refreshing`, epoch + 1, where the row is `active` with this
    /// fingerprint, generation and epoch. `None`: it is not; read again.
    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError>;

    /// Claims a row whose earlier claim is past its settling time: `refreshing`, epoch + 1, where the row is
    /// `refreshing` at this epoch with `settle_at <= now`. `None`: somebody else was first.
    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError>;

    /// Step 8, guarded by lineage: the grant is the same, the row is not revoked, its `rt_epoch` is below this epoch, and
    /// the parent fingerprint is the row's own or its parent's. Sets `active`, generation + 1, clears back-off and claim;
    /// the row's epoch becomes at least this one.
    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError>;

    /// The refresh token was not spent: `refreshing` at this epoch by this owner → `active`, with this back-off if the
    /// provider is to be left alone for a while. False: the row has moved on, or the claim was somebody else's.
    async fn release_claim(&self, release: Release) -> Result<bool, StoreError>;

    /// The provider said the grant is dead: `refreshing` at this epoch with this fingerprint → `needs_reauth` (I8).
    /// False: the row has moved on.
    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        fingerprint: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Stores a new grant under its key: a new row, or the same row (id and creation time kept) with the new grant id,
    /// generation + 1 and epoch + 1. Everything or nothing, with the condition that comes with it.
    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError>;

    /// One transaction, the ack point of Revoke: `revoked`, epoch + 1, tokens deleted from the row and moved, sealed as
    /// they are, to the outbox (unless `outbox` is `None`); flows of the key that wait are cancelled, and those being
    /// exchanged too, so that their tokens are revoked on arrival. Works on any state; a revoked or missing row, or one of
    /// another grant than asked for, is left alone but its flows are cancelled.
    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError>;

    /// A page of rows that are not revoked, ordered by key.
    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError>;

    /// Ids of rows whose claim is past its settling time, oldest first.
    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError>;

    /// These owners are provably dead: the outcome of their claims is settled when the request that may be under way has
    /// ended, not only after the full settling time. Answers how many rows.
    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError>;

    /// Active rows of a provider whose `next_refresh_at` has come, the longest due first, each given to one caller only
    /// until `until`: a reservation pushes `next_refresh_at`, so that a crash leaves nothing but a later turn. Never waits
    /// for a row that somebody else is working on.
    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError>;

    /// Sets an active row's `next_refresh_at`.
    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError>;

    /// Somebody asked for these credentials. Only moves forward.
    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError>;

    /// One transaction: deletes what is known of a user whose credentials are all revoked, flows and events with it, and
    /// when nothing else is left, the user's key. No consent that was begun before ends in a credential after it. To be
    /// repeated until the user is [`UserDeleted::Gone`].
    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError>;
}

/// See [`CredentialStore::settle_early`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadOwners {
    /// This one: the lock of its journal could be taken.
    One(ClaimOwner),
    /// All but this one: it holds the lock on the whole database.
    AllBut(ClaimOwner),
}

/// See [`CredentialStore::reserve_due`].
#[derive(Debug, Clone)]
pub struct DueRequest {
    /// Only this provider's, so that no provider starves another.
    pub provider: ProviderId,
    /// Only what was obtained with this configuration of a tenant; `None`: with the operator's.
    pub configuration: Option<ConfigId>,
    /// The time.
    pub now: Timestamp,
    /// When they may be given out again.
    pub until: Timestamp,
    /// At most so many.
    pub limit: u32,
}

/// A reserved row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueCredential {
    /// Which.
    pub id: CredentialId,
    /// When it was last asked for, to within an hour; its creation if never.
    pub used_at: Timestamp,
    /// What its `next_refresh_at` was.
    pub due_at: Timestamp,
}

/// See [`CredentialStore::claim_for_refresh`]. A store with a clock of its own (Postgres) keeps the distances from `now` and
/// takes its own time for `now`: replicas whose clocks differ must agree on when a claim settles.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Which row.
    pub id: CredentialId,
    /// The refresh token that will be presented.
    pub fingerprint: Fingerprint,
    /// As read.
    pub generation: Generation,
    /// As read.
    pub epoch: Epoch,
    /// What to write.
    pub claim: Claim,
    /// The time.
    pub now: Timestamp,
}

/// See [`CredentialStore::persist_lineage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageWrite {
    /// Which row.
    pub id: CredentialId,
    /// Which consent.
    pub grant_id: GrantId,
    /// The claim under which the tokens were obtained.
    pub epoch: Epoch,
    /// Of the refresh token that was presented.
    pub parent_fingerprint: Fingerprint,
    /// The new pair. Its `refresh` is always there: an answer without a refresh token keeps the old one.
    pub tokens: StoredTokens,
    /// When the answer arrived, or the time of this attempt to store it.
    pub now: Timestamp,
}

impl LineageWrite {
    /// Whether a row of this grant, whose token was obtained under this claim, does not have it: it is of the same grant (a
    /// provider may give a token out again under a new consent) and of a later claim.
    #[must_use]
    pub fn is_news_to(&self, grant: GrantId, row_epoch: Epoch) -> bool {
        self.grant_id == grant && self.epoch > row_epoch
    }
}

/// What became of a [`LineageWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persisted {
    /// Written; the row as it is now.
    Stored(Box<Credential>),
    /// The row has these tokens already.
    AlreadyStored(Box<Credential>),
    /// The row was revoked meanwhile (and perhaps has another grant since), or is gone: what was obtained must be
    /// revoked.
    Revoked,
    /// A new consent replaced the grant, or the row has a later token of it: what was obtained is dropped.
    Superseded,
}

/// See [`CredentialStore::store_grant`].
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// The row's id if there is none yet.
    pub id_if_new: CredentialId,
    /// Where.
    pub key: CredentialKey,
    /// The new consent.
    pub grant_id: GrantId,
    /// The tenant's configuration that it was obtained with; `None`: the operator's.
    pub configuration: Option<ConfigId>,
    /// What was obtained.
    pub tokens: StoredTokens,
    /// The user's key that the tokens are sealed with, which must be there. `None`: the condition is a flow, which goes with the key.
    pub user_key: Option<UserKeyId>,
    /// What must hold.
    pub condition: GrantCondition,
    /// The time.
    pub now: Timestamp,
}

/// What must hold for a [`NewGrant`] to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantCondition {
    /// This flow is still `exchanging`, and the tokens under the key are of this grant (`None`: there are none), which is
    /// the one that the new account was compared with. The flow becomes `completed` in the same transaction.
    Flow {
        /// Which.
        id: FlowId,
        /// As read.
        over: Option<GrantId>,
    },
    /// The key has no row that is active or refreshing, but for one whose token has expired and can't be refreshed.
    NotConnected,
    /// Nothing.
    Overwrite,
}

/// What became of a [`NewGrant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredGrant {
    /// The row as it is now.
    Stored(Box<Credential>),
    /// The condition did not hold; nothing was changed.
    ConditionFailed,
    /// The user has been deleted since the tokens were sealed: nobody could open them. Nothing was changed.
    KeyDeleted,
}

/// See [`CredentialStore::release_claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Which row.
    pub id: CredentialId,
    /// The claim's.
    pub epoch: Epoch,
    /// The claim's.
    pub owner: ClaimOwner,
    /// `None`: nothing was asked of the provider; the row is as before the claim.
    pub back_off: Option<BackOff>,
    /// The time.
    pub now: Timestamp,
}

/// See [`CredentialStore::revoke_with_outbox`].
#[derive(Debug, Clone)]
pub struct RevokeWrite {
    /// Which row.
    pub key: CredentialKey,
    /// Only if the row is of this grant.
    pub grant: Option<GrantId>,
    /// `None`: the provider has no revocation.
    pub outbox: Option<OutboxPair>,
    /// The time.
    pub now: Timestamp,
}

/// The ids of the outbox rows of one revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxPair {
    /// Due at once.
    pub first: OutboxId,
    /// Written only if a refresh was under way, and due when that has settled: its owner may die with a token pair that
    /// only the journal or the permit store knows, and that must be revoked too.
    pub after_refresh: OutboxId,
}

/// See [`CredentialStore::revoke_with_outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedRow {
    /// Whether there was a row with tokens.
    pub deleted: bool,
    /// How many pending flows were cancelled.
    pub cancelled_flows: u32,
}

/// See [`CredentialStore::list`].
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only these users'; `None`: all. For a query without a `user`.
    pub among: Option<UserReach>,
    /// Only these providers'; `None`: all.
    pub providers: Option<BTreeSet<ProviderId>>,
    /// Only those with all of these scopes.
    pub covering: ScopeSet,
    /// Only those behind this key, in the order (provider, user, grant, account) by bytes.
    pub after: Option<CredentialKey>,
    /// At most so many.
    pub limit: u32,
}

/// Flows. Contract: `tests/it/contract/flow_store.rs`.
#[async_trait]
pub trait FlowStore: Send + Sync {
    /// Stores a new one unless the user has `max_pending` pending and unexpired ones at the provider. False: not stored.
    async fn insert_flow(&self, flow: &Flow, max_pending: u32) -> Result<bool, StoreError>;

    /// One of the tenant's.
    async fn load_flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Flow>, StoreError>;

    /// The newest of the key.
    async fn latest_flow(&self, key: &CredentialKey) -> Result<Option<Flow>, StoreError>;

    /// The key's flows that are pending and unexpired, the one that lasts longest first. There are few: see
    /// [`FlowStore::insert_flow`].
    async fn pending_flows(&self, key: &CredentialKey, now: Timestamp) -> Result<Vec<Flow>, StoreError>;

    /// The flow that a browser brings the state of, at this provider; nothing is spent.
    async fn flow_of_state(
        &self,
        state: StateHash,
        provider: &ProviderId,
    ) -> Result<Option<Flow>, StoreError>;

    /// The flow that a browser opens the link of; nothing is spent.
    async fn flow_of_link(&self, link: SecretHash) -> Result<Option<Flow>, StoreError>;

    /// The flow of a browser that has shown a key made for it. For callers there is [`FlowStore::load_flow`].
    async fn flow_of_browser(&self, id: FlowId) -> Result<Option<Flow>, StoreError>;

    /// Lets a browser in, or another one in its place, while the flow is pending and unexpired. False: it is not.
    async fn admit_browser(
        &self,
        id: FlowId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Spends a flow's one use by one statement: `pending → exchanging` where the hash and the provider match, this
    /// browser was let in and `expires_at > now`. Everybody else gets what is there instead.
    async fn consume_flow(
        &self,
        state: StateHash,
        provider: &ProviderId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError>;

    /// Keeps a code until its proof, by one statement: `pending → returned` where the hash and the provider match and
    /// `expires_at > now`. Everybody else gets what is there instead.
    async fn hold_code(&self, held: HeldCode, now: Timestamp) -> Result<Consumed, StoreError>;

    /// Spends a proved flow's one use by one statement: `returned → exchanging` where this is the completion code's hash
    /// and `expires_at > now`; the code is erased. Everybody else gets what is there instead.
    async fn redeem_flow(
        &self,
        id: FlowId,
        completion_code: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError>;

    /// Ends a flow that stands so, pending or exchanging. False: it does not stand so any more.
    async fn end_flow(
        &self,
        id: FlowId,
        from: FlowStatus,
        status: FlowStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// `pending` or `returned → cancelled`, of the tenant. `None`: unknown; else the flow as it is now, whatever it was
    /// before.
    async fn cancel_flow(
        &self,
        tenant: &TenantId,
        id: FlowId,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError>;

    /// Ends what is under way of a user, or of all of the tenant's: flows that are pending, returned or being exchanged, at most
    /// `limit`, by one statement. Those that waited past their end have expired. What an exchange obtains after that is not
    /// stored: [`CredentialStore::store_grant`] finds its flow ended.
    async fn cancel_flows(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<CancelledFlows, StoreError>;

    /// Marks flows that wait past their end as expired and exchanges begun before `interrupted_before` as interrupted, and
    /// deletes flows that ended before `delete_before`. Answers how many rows changed.
    async fn sweep_flows(
        &self,
        now: Timestamp,
        interrupted_before: Timestamp,
        delete_before: Timestamp,
    ) -> Result<u64, StoreError>;
}

/// See [`FlowStore::cancel_flows`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CancelledFlows {
    /// How many are cancelled now; the expired ones do not count.
    pub cancelled: u32,
    /// Whether there may be more.
    pub more: bool,
}

/// See [`FlowStore::hold_code`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCode {
    /// Which flow.
    pub state: StateHash,
    /// Where its code is from.
    pub provider: ProviderId,
    /// The authorization code.
    pub code: Sealed,
    /// Of the browser's half.
    pub completion_code: SecretHash,
}

/// See [`FlowStore::consume_flow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumed {
    /// This call has its one use.
    Won(Box<Flow>),
    /// Not in the state for it any more, expired, or not this browser's.
    Spent(FlowStatus),
    /// No such flow.
    Unknown,
}

/// Revocations to be done at providers. Contract: `tests/it/contract/outbox_store.rs`.
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// Stores a revocation of tokens that are in no row (compensation).
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError>;

    /// Takes one, by pushing its next attempt to `lease_until`; only if it is due at `now`.
    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError>;

    /// Ids of those due, oldest first.
    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError>;

    /// Tries again later.
    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError>;

    /// Done, for better or worse: the ciphertexts are deleted, the outcome is kept.
    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Deletes those finished before this time. Answers how many.
    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// A revocation that the provider has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRevocation {
    /// For good.
    pub id: OutboxId,
    /// What the ciphertexts are bound to.
    pub key: CredentialKey,
    /// What the ciphertexts are bound to.
    pub grant_id: GrantId,
    /// The tenant's configuration that they were obtained with; `None`: the operator's.
    pub configuration: Option<ConfigId>,
    /// The access token.
    pub access_sealed: Sealed,
    /// The refresh token, if there was one.
    pub refresh_sealed: Option<Sealed>,
    /// How often it was taken, this time included.
    pub attempts: u32,
    /// When the revocation was asked for.
    pub created_at: Timestamp,
    /// When to try next.
    pub next_attempt_at: Timestamp,
}

/// How a revocation at the provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// The provider confirmed, or knew nothing of the token.
    Revoked,
    /// The provider refused, or could not be reached for days.
    Failed,
    /// The provider has no revocation.
    NotSupported,
}

/// Whether the database answers.
#[async_trait]
pub trait StoreHealth: Send + Sync {
    /// One trivial statement.
    async fn ping(&self) -> Result<(), StoreError>;
}

// ---- callers --------------------------------------------------------------------------------------------------------

/// The callers, by what they have proved to be.
#[async_trait]
pub trait CallerDirectory: Send + Sync {
    /// Whose identity this is. `None`: nobody's, or one's who may not call any more.
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError>;

    /// Whether it is the identity of a caller that is remembered: then asking costs a flood of strangers nothing.
    fn remembers(&self, identity: &Identity) -> bool;
}

// ---- tokens of callers and users ------------------------------------------------------------------------------------

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    /// Whose it is.
    pub who: T,
    /// For how long from now.
    pub valid_for: Duration,
}

/// Why a token says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not good. The log says why.
    #[error("the token was refused")]
    Refused,
    /// It can't be verified, for want of its issuer's keys.
    #[error("the keys of the token's issuer are not available")]
    KeysUnavailable,
}

/// Verifies JWTs (RFC 7519) of the configured issuers.
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// A caller's: who that is, by issuer and subject or by SPIFFE id.
    async fn caller(
        &self,
        token: &SecretString,
    ) -> Result<Verified<super::access_policy::Identity>, TokenError>;
    /// A user's own: which user, as the name of the issuer, a bar, and the subject.
    async fn user(&self, token: &SecretString) -> Result<Verified<UserId>, TokenError>;
    /// Whether this token has been a good one of a caller lately, so that no signature has to be verified.
    fn remembers(&self, token: &SecretString) -> bool;
}

// ---- providers ------------------------------------------------------------------------------------------------------

/// How a provider stands for a tenant.
#[derive(Debug, Clone)]
pub enum ProviderStanding {
    /// It can be used.
    Ready(Arc<Provider>),
    /// The tenant has disabled its configuration: it is used to end grants, and for nothing else.
    Disabled(Arc<Provider>),
    /// The tenant's configuration does not fit the definition any more.
    Broken,
}

impl ProviderStanding {
    /// The provider, if it can be used for whatever there is.
    #[must_use]
    pub fn ready(self) -> Option<Arc<Provider>> {
        match self {
            Self::Ready(provider) => Some(provider),
            Self::Disabled(_) | Self::Broken => None,
        }
    }

    /// The provider, if it is known how to talk to it: to end a grant is enough.
    #[must_use]
    pub fn known(self) -> Option<Arc<Provider>> {
        match self {
            Self::Ready(provider) | Self::Disabled(provider) => Some(provider),
            Self::Broken => None,
        }
    }
}

/// The providers of the operator's configuration, which are all tenants', and tenants' own, each of which takes the place of the
/// operator's of the same id for that tenant alone.
#[async_trait]
pub trait ProviderDirectory: Send + Sync {
    /// What a tenant's new consents at a provider are made with. May be as old as the operator allows.
    async fn current(
        &self,
        tenant: &TenantId,
        id: &ProviderId,
    ) -> Result<Option<ProviderStanding>, CipherError>;

    /// What was made with this configuration of the tenant's (`None`: with the operator's) is used with. `None`: it is there no more.
    async fn of_configuration(
        &self,
        tenant: &TenantId,
        id: &ProviderId,
        configuration: Option<ConfigId>,
    ) -> Result<Option<ProviderStanding>, CipherError>;

    /// All that a tenant can use now, sorted by id.
    async fn all_of(&self, tenant: &TenantId) -> Result<Vec<Arc<Provider>>, CipherError>;

    /// The operator's, sorted by id.
    fn configured(&self) -> Vec<Arc<Provider>>;

    /// A tenant's configurations have just been changed by this replica: what is remembered of them is read anew.
    fn forget(&self, tenant: &TenantId);

    /// The provider that a tenant's configuration makes, or all that is wrong with it.
    fn assemble(
        &self,
        config: &ProviderConfig,
        secrets: ClientAuthentication<SecretString>,
    ) -> Result<Provider, Vec<ConfigMistake>>;
}

/// What is wrong with a tenant's configuration. Repeats no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistake {
    /// What has to be changed, as requests name it: `client_id`, `variables.host`, `authentication.client_secret`.
    pub field: String,
    /// A full sentence for people.
    pub description: String,
}

/// How a call to a provider failed, by what it means for the token that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProviderFailure {
    /// `invalid_grant` or the provider's word for it: the code or refresh token is dead.
    #[error("the provider refused the grant")]
    InvalidGrant,
    /// `invalid_client`, `unauthorized_client`: the operator's mistake; nothing was spent.
    #[error("the provider refused the broker's client")]
    ClientRejected,
    /// Another clear refusal (4xx): nothing was spent.
    #[error("the provider refused the request")]
    Refused,
    /// Refused connection, DNS, TLS, discovery: nothing was sent.
    #[error("the provider could not be reached")]
    NotSent,
    /// HTTP 429: nothing was spent.
    #[error("the provider limits the rate")]
    RateLimited {
        /// Its `Retry-After`, at most a day.
        retry_after: Option<Duration>,
    },
    /// Time-out or reset after the request was written, 5xx, an unreadable or oversized answer: it may have been spent.
    #[error("the provider's answer was lost")]
    Ambiguous,
}

/// What an authorization request says.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizationRequest<'a> {
    /// The flow's.
    pub endpoints: &'a RecordedEndpoints,
    /// The flow's.
    pub redirect_uri: &'a url::Url,
    /// State, verifier (sent as its S256 challenge) and nonce.
    pub secrets: &'a super::flow::FlowSecrets,
    /// What is asked for.
    pub scopes: &'a ScopeSet,
    /// OpenID Connect Core section 3.1.2.1.
    pub login_hint: Option<&'a str>,
}

/// Talks OAuth to providers. Sends each request once: retries belong to the protocol, never to the HTTP layer.
#[async_trait]
pub trait OAuthClient: Send + Sync {
    /// The endpoints as they are now: literal, or discovered and cached.
    async fn endpoints(&self, provider: &Provider) -> Result<RecordedEndpoints, ProviderFailure>;

    /// The URL that the browser is sent to (RFC 6749 section 4.1.1).
    fn authorization_url(
        &self,
        provider: &Provider,
        request: AuthorizationRequest<'_>,
    ) -> Result<SecretString, ProviderFailure>;

    /// RFC 6749 section 4.1.3, with the flow's recorded endpoint and redirect URI. An answer beyond the limits says so, with the
    /// tokens to be given back.
    async fn exchange_code(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        redirect_uri: &url::Url,
        code: &SecretString,
        verifier: &SecretString,
    ) -> Result<TokenResponse, ProviderFailure>;

    /// RFC 6749 section 6. `scopes` are those that the grant has, and are sent if the provider needs them. Ends within `deadline`. An
    /// answer with a token beyond the limit is [`ProviderFailure::Ambiguous`]; other values beyond them are left out of it.
    async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        scopes: &ScopeSet,
        deadline: Duration,
    ) -> Result<TokenResponse, ProviderFailure>;

    /// Ends a grant (RFC 7009 or the provider's own call). `Ok`: the provider confirmed, or has no such call
    /// ([`RevocationOutcome::NotSupported`]).
    async fn revoke(
        &self,
        provider: &Provider,
        access_token: &SecretString,
        refresh_token: Option<&SecretString>,
    ) -> Result<RevocationOutcome, ProviderFailure>;

    /// Who consented: checks the ID token's issuer, audience, expiry and nonce (its signature is the TLS connection's to
    /// vouch for, OpenID Connect Core section 3.1.3.7 point 6), else asks the userinfo endpoint. An account that can't be
    /// found out is empty; an ID token that is not this flow's is an error.
    async fn identify(
        &self,
        provider: &Provider,
        endpoints: &RecordedEndpoints,
        response: &TokenResponse,
        nonce: &SecretString,
    ) -> Result<ProviderAccount, IdentityError>;
}

/// The ID token is missing, malformed, or not this flow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ID token is not this flow's")]
pub struct IdentityError;
