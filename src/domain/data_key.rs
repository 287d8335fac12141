//! The life of data keys, and the work that moves rows from one to the next.
//!
//! A data key for records is *active*: what is sealed is sealed with it. Rotation makes another one active, and the former
//! one *superseded*: it only opens what it made. A pass through all rows seals them anew. When no row is left, and nothing
//! outside the database that a row could still take over, it is *retired*: deleted. The key of fingerprints is never
//! replaced, since stored fingerprints could not be compared any more; it is only wrapped anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::cipher::{Binding, CipherError, Field};
use super::credential::Sealed;
use super::key::{ClaimOwner, CredentialKey, GrantId, TenantId};
use super::ports::StoreError;
use super::user_key::UserKeyStore;

/// In the header of every ciphertext made with it. Random.
pub type DataKeyId = [u8; 16];

/// The id of a row that holds ciphertexts, whatever its table.
pub type RowId = [u8; 16];

/// How long after a rotation every replica that reaches the database has learned of the new key. Replicas ask every
/// [`FOLLOW_EVERY`]; the rest is for an answer that comes late.
pub const LEARNED_AFTER: Duration = Duration::from_secs(15);
/// How often a replica asks what has become of the data keys that it has in memory.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// What a stored data key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKeyPurpose {
    /// Encrypts records.
    Encryption,
    /// Makes fingerprints; never replaced, only wrapped anew.
    Fingerprint,
}

/// A data key as stored: wrapped by a key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// In the header of every ciphertext made with it.
    pub id: [u8; 16],
    /// Whose.
    pub tenant: TenantId,
    /// What for.
    pub purpose: DataKeyPurpose,
    /// The id of the key-encryption key.
    pub kek_id: String,
    /// Nonce and ciphertext.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it only opens what it made; `None`: it is the active one.
    pub superseded_at: Option<Timestamp>,
}

/// Where wrapped data keys are, and with them the users' own.
#[async_trait]
pub trait DataKeyStore: UserKeyStore {
    /// One by id.
    async fn data_key(&self, id: [u8; 16]) -> Result<Option<WrappedDataKey>, StoreError>;
    /// The tenant's active one for a purpose, after storing this one if there was none. Atomic: of two that race, one is kept.
    /// `None`: the tenant is deleted, and never has a key for encryption again.
    async fn newest_data_key_or_insert(
        &self,
        candidate: WrappedDataKey,
    ) -> Result<Option<WrappedDataKey>, StoreError>;
    /// The tenant's active one for a purpose.
    async fn newest_data_key(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Option<WrappedDataKey>, StoreError>;
    /// The ids of all key-encryption keys in use, so that start-up refuses to run without one of them.
    async fn kek_ids_in_use(&self) -> Result<BTreeSet<String>, StoreError>;
    /// Some data keys wrapped under this key-encryption key, the newest first, so that start-up can try it.
    async fn data_keys_under(&self, kek_id: &str, limit: u32) -> Result<Vec<WrappedDataKey>, StoreError>;
    /// All, or a tenant's, in the order of their ids, behind one.
    async fn data_keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<WrappedDataKey>, StoreError>;
    /// Those of these that are there, each with the time since when it is superseded.
    async fn data_key_states(
        &self,
        ids: &[DataKeyId],
    ) -> Result<Vec<(DataKeyId, Option<Timestamp>)>, StoreError>;
    /// One transaction: this one becomes the active one of its tenant and purpose, and `over` superseded at its creation.
    /// False: `over` is not the active one any more, and nothing was changed.
    async fn supersede_data_key(
        &self,
        over: DataKeyId,
        successor: WrappedDataKey,
    ) -> Result<bool, StoreError>;
    /// Stores another wrapping of a data key, if it is still wrapped as it was read.
    async fn rewrap_data_key(&self, was: &WrappedDataKey, is: &WrappedDataKey) -> Result<bool, StoreError>;
    /// Deletes a data key that was superseded before this time. False: there is none.
    async fn retire_data_key(&self, id: DataKeyId, superseded_before: Timestamp) -> Result<bool, StoreError>;
}

/// A table with ciphertexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SealedTable {
    /// Tokens and profiles.
    Credentials,
    /// The secrets of consents.
    Flows,
    /// Tokens that providers have to be told are revoked.
    Revocations,
    /// The secrets of tenants' own apps.
    ProviderConfigs,
    /// Users' own keys.
    UserKeys,
}

impl SealedTable {
    /// All, in the order of a pass.
    pub const ALL: [Self; 5] =
        [Self::Credentials, Self::Flows, Self::Revocations, Self::ProviderConfigs, Self::UserKeys];

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Credentials => Some(Self::Flows),
            Self::Flows => Some(Self::Revocations),
            Self::Revocations => Some(Self::ProviderConfigs),
            Self::ProviderConfigs => Some(Self::UserKeys),
            Self::UserKeys => None,
        }
    }
}

/// The ciphertexts of a row, and what they are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// Which.
    pub id: RowId,
    /// What the ciphertexts are bound to.
    pub key: CredentialKey,
    /// What the ciphertexts are bound to.
    pub grant_id: GrantId,
    /// All of them, in the order of the table's columns; what the row does not have is left out.
    pub fields: Vec<(Field, Sealed)>,
}

impl SealedRow {
    /// One of its ciphertexts.
    #[must_use]
    pub fn field(&self, wanted: Field) -> Option<&Sealed> {
        self.fields.iter().find(|(field, _)| *field == wanted).map(|(_, sealed)| sealed)
    }
}

/// A row with other ciphertexts of the same plaintexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewedRow {
    /// As it was read.
    pub was: SealedRow,
    /// As it is to be.
    pub is: SealedRow,
}

/// Where a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassPlace {
    /// In which table.
    pub table: SealedTable,
    /// Behind this row; `None`: before the first.
    pub after: Option<RowId>,
}

/// What a pass has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassCounts {
    /// About how many rows there are to look at.
    pub expected: u64,
    /// Rows that were looked at.
    pub looked_at: u64,
    /// Rows that were sealed anew.
    pub renewed: u64,
    /// Rows that somebody else was changing just then: for the next pass.
    pub skipped: u64,
    /// Rows with a ciphertext that does not open; they stay as they are.
    pub unreadable: u64,
}

/// The work of moving all rows to the active data keys, as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reencryption {
    /// Since when it is asked for; `None`: all is done.
    pub requested_at: Option<Timestamp>,
    /// The number of the pass that is under way, or else of the last one; 0: there was none.
    pub pass: i64,
    /// When that pass began.
    pub began_at: Option<Timestamp>,
    /// Where it is; `None`: it has ended.
    pub place: Option<PassPlace>,
    /// What it has counted.
    pub counts: PassCounts,
    /// When a pass last ended.
    pub ended_at: Option<Timestamp>,
    /// Until when somebody works on it.
    pub lease_until: Option<Timestamp>,
}

/// How many rows of a table have a ciphertext made with a data key. A row with ciphertexts of two keys counts for both.
pub type RowsPerKey = BTreeMap<(DataKeyId, SealedTable), u64>;

/// One step of a pass, to be stored whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassStep {
    /// The state after it; its `requested_at` and `lease_until` are not stored.
    pub state: Reencryption,
    /// All that was asked for until then is done.
    pub done_until: Option<Timestamp>,
    /// The rows of this step, by key, after it.
    pub rows: RowsPerKey,
}

/// The rows with ciphertexts, and how far the pass through them is. Contract: `tests/it/contract/reencryption.rs`.
#[async_trait]
pub trait ReencryptionStore: Send + Sync {
    /// Rows of a table that have ciphertexts, in the order of their ids, behind one.
    async fn sealed_rows(
        &self,
        table: SealedTable,
        after: Option<RowId>,
        limit: u32,
    ) -> Result<Vec<SealedRow>, StoreError>;

    /// Replaces the ciphertexts of rows that still have all those that were read, and changes nothing else of them: not
    /// their generation, their epoch or their times, and tells no event. Never waits for a row that somebody else is
    /// changing. Answers the ids of those that were replaced.
    async fn replace_sealed(&self, table: SealedTable, rows: &[RenewedRow])
    -> Result<Vec<RowId>, StoreError>;

    /// About how many rows a pass will look at: an estimate where counting would take long.
    async fn expected_rows(&self) -> Result<u64, StoreError>;

    /// How the work stands.
    async fn reencryption(&self) -> Result<Reencryption, StoreError>;

    /// Asks for the work to be done, from `now` on.
    async fn request_reencryption(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Makes this replica the only one that works, for a while; again is fine. `None`: another one is at it, or nobody
    /// asks for it.
    async fn take_reencryption(
        &self,
        worker: ClaimOwner,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Reencryption>, StoreError>;

    /// Stores a step, and keeps the work for another while; a lease of zero gives it back. False: it is somebody else's by
    /// now, and nothing was stored.
    async fn save_reencryption(
        &self,
        worker: ClaimOwner,
        step: &PassStep,
        now: Timestamp,
        lease: Duration,
    ) -> Result<bool, StoreError>;

    /// What a pass counted so far.
    async fn rows_per_key(&self, pass: i64) -> Result<RowsPerKey, StoreError>;

    /// Forgets what earlier passes than this one counted.
    async fn forget_passes(&self, before: i64) -> Result<(), StoreError>;
}

/// What [`KeyKeeper::rewrap`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Data keys that were wrapped anew.
    pub done: u64,
    /// Data keys that do not open, and stay as they are.
    pub failed: u64,
    /// Whether there may be more to do.
    pub more: bool,
}

/// What the vault does for those who look after its keys.
#[async_trait]
pub trait KeyKeeper: Send + Sync {
    /// The key-encryption key that wraps new data keys.
    fn active_kek(&self) -> &str;

    /// The key-encryption keys that are configured.
    fn configured_keks(&self) -> Vec<String>;

    /// The data key that a ciphertext says it was made with; `None`: it is no ciphertext.
    fn made_with(&self, sealed: &Sealed) -> Option<DataKeyId>;

    /// The ciphertext in the newest format under the tenant's active data key, as far as this replica knows it; `None`: it
    /// is so already.
    /// `beside`: one of the same row that it has answered already, which says with which user's key.
    async fn renew(
        &self,
        binding: Binding<'_>,
        sealed: &Sealed,
        beside: Option<&Sealed>,
    ) -> Result<Option<Sealed>, CipherError>;

    /// Makes a new data key the active one of a tenant. `None`: the tenant has none that could be replaced.
    async fn rotate(&self, tenant: &TenantId) -> Result<Option<DataKeyId>, CipherError>;

    /// Wraps data keys under the active key-encryption key that are under others, at most so many.
    async fn rewrap(&self, limit: u32) -> Result<Rewrapped, CipherError>;

    /// Learns what has become of the data keys in memory: a superseded one is replaced, one that is gone is forgotten.
    async fn follow(&self) -> Result<(), CipherError>;
}
