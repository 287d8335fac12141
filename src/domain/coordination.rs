//! The seams between replicas: the permit store with its successors and tombstones, the journal, wake-ups and leases. None
//! of them decides about a row; the guarded statements of [`super::ports::CredentialStore`] do. What these add is that
//! replicas seldom ask a provider twice, that waiters wake at once, and that a new token pair has a second durable copy
//! before the row has it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use subtle::ConstantTimeEq as _;

use super::credential::{Epoch, Fingerprint};
use super::key::{ClaimOwner, CredentialId, GrantId, LeaseId, TenantId};
use super::ports::LineageWrite;

/// Why the permit store, the leases or the wake-ups could not do it. The protocol goes on with the claim alone.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// Not reachable, too slow, or failing over.
    #[error("the permit store is not available: {0}")]
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    /// An entry that this version can't read.
    #[error("an entry of the permit store is damaged: {0}")]
    Corrupt(&'static str),
}

/// See [`PermitStore::take`].
#[derive(Debug, Clone, Copy)]
pub struct PermitRequest {
    /// Which row.
    pub credential: CredentialId,
    /// The row's consent.
    pub grant: GrantId,
    /// The refresh token that would be presented.
    pub token: Fingerprint,
    /// The claim that obtained that token, as the row says. A successor that is not younger is in the row already: at a
    /// provider that does not rotate, a token is its own successor.
    pub row_epoch: Epoch,
    /// Who asks.
    pub owner: ClaimOwner,
    /// How long the permit stands if nothing becomes of it: the provider's settling time. It carries no safety.
    pub lifetime: Duration,
    /// This owner's permit may be taken over, since it is dead. Nobody else's, whatever the row says: a settling claim's commit can be lost too, and
    /// then its permit is all that tells of the presentation under way.
    pub takeover: Option<ClaimOwner>,
}

/// The permit store's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Permit {
    /// This owner may go on to the claim.
    Taken,
    /// Somebody else has it, or a process died with it.
    Held {
        /// Who.
        owner: ClaimOwner,
        /// For how long already, by the permit store's clock.
        age: Duration,
    },
    /// The token was presented already, and this is what came of it.
    Successor(Box<Successor>),
    /// Somebody says that the grant is revoked. True if it is the vault's tombstone of this grant.
    Buried(Tombstone),
}

/// What stands for a revoked grant: a MAC under a key of the tenant's ([`Cipher::tombstone`](super::cipher::Cipher::tombstone)).
/// Whoever can write the permit store can't make one, and so can't have a grant revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone(pub [u8; 32]);

impl Tombstone {
    /// Whether it is this one, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A new token pair in the permit store, and what says that a broker has put it there: a MAC under a key of the tenant's
/// ([`Cipher::successor_mac`](super::cipher::Cipher::successor_mac)). Whoever can write the permit store can't make one, and so
/// can't put a pair together of older ones that a row would adopt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The pair.
    pub write: LineageWrite,
    /// Of all that is in it.
    pub mac: [u8; 32],
}

impl Successor {
    /// Whether it is the successor of this token of this row, and this is its MAC, in constant time.
    #[must_use]
    pub fn is(&self, credential: CredentialId, parent: Fingerprint, mac: &[u8; 32]) -> bool {
        (self.write.id, self.write.parent_fingerprint) == (credential, parent) && self.mac.ct_eq(mac).into()
    }
}

/// Permits, successors and tombstones, one map entry per refresh token: a permit becomes the successor and is never
/// unlocked. Contract: `tests/it/contract/permit_store.rs`.
#[async_trait]
pub trait PermitStore: Send + Sync {
    /// Takes the permit for a refresh token, atomically: tombstone of this grant → [`Permit::Buried`]; a younger successor
    /// → [`Permit::Successor`]; somebody's permit that may not be taken over → [`Permit::Held`]; else it is taken.
    /// The owner's own permit is held like anybody's: it may stand for a presentation whose outcome is unknown.
    async fn take(&self, request: PermitRequest) -> Result<Permit, CoordinationError>;

    /// Writes the successor of its `parent_fingerprint` in place of whatever stands there, unless that is a successor of
    /// a later epoch. Stands for a day.
    async fn keep_successor(&self, successor: &Successor) -> Result<(), CoordinationError>;

    /// The successor of a token, if any; who put it there is for the caller to find out.
    async fn successor(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError>;

    /// The row has the successor of this epoch: its entry stands for 15 minutes more, which heals a database that loses its
    /// last commits in a failover.
    async fn successor_stored(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
        epoch: Epoch,
    ) -> Result<(), CoordinationError>;

    /// The token was not spent: takes back this owner's permit. A successor or another owner's permit stays.
    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError>;

    /// The grant is revoked. Stands for a day.
    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError>;

    /// This process run has provably ended. Known for a day.
    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError>;

    /// Whether [`PermitStore::owner_died`] was said of it.
    async fn is_dead(&self, owner: ClaimOwner) -> Result<bool, CoordinationError>;

    /// Whether it answers.
    async fn ping(&self) -> Result<(), CoordinationError>;
}

// ---- the journal ----------------------------------------------------------------------------------------------------

/// Why the journal could not do it.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct JournalError(pub Box<dyn std::error::Error + Send + Sync>);

/// The local copy of new token pairs, on this replica's disk, until their rows have had them for 15 minutes. Contract:
/// `tests/it/journal.rs`.
#[async_trait]
pub trait Journal: Send + Sync {
    /// A gate before the claim: an append is expected to work. Fails while the last write or flush failed, or the disk has
    /// no room.
    async fn ready(&self) -> Result<(), JournalError>;

    /// Appends and flushes. When it answers, the record survives the process and the machine's power. Appends that come
    /// together share one flush.
    async fn append(&self, write: &LineageWrite) -> Result<(), JournalError>;

    /// The row has the record of this epoch: forgotten 15 minutes from now.
    async fn stored(&self, credential: CredentialId, epoch: Epoch);

    /// The youngest successor of this token that this process has in its journal.
    async fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite>;
}

/// What a dead process left behind.
#[derive(Debug, Clone)]
pub struct FormerRun {
    /// That process run. Its lock was taken over, which proves it dead.
    pub owner: ClaimOwner,
    /// Its records, in the order of their writing.
    pub records: Vec<LineageWrite>,
}

// ---- wake-ups -------------------------------------------------------------------------------------------------------

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wake {
    /// The row of a credential.
    Credential(CredentialId),
    /// There are new events of a tenant.
    Events(TenantId),
}

/// Tells the waiters of all replicas. Best effort: whoever waits also polls, rows are the truth.
#[async_trait]
pub trait Wakeups: Send + Sync {
    /// Tells.
    async fn publish(&self, wake: Wake);

    /// Ends when this is told, from the call on. May also end for no reason.
    fn listen(&self, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

// ---- leases ---------------------------------------------------------------------------------------------------------

/// How long a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerm {
    /// From now.
    pub lasts: Duration,
    /// A refresh waits: nobody's lease goes beyond the longest that was running when it began to.
    pub capped: bool,
}

/// Who is using a credential's token right now. Advice that may be lost as a whole. Contract: `tests/it/contract/leases.rs`.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Registers a lease for `ttl`, or less while a refresh waits; `None` if a refresh waits and nothing is left, or if there
    /// are 1,000 leases already.
    async fn acquire(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError>;

    /// Prolongs a lease, never beyond the cap, never shortening it. `None`: there is no such lease (any more).
    async fn renew(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError>;

    /// Ends a lease. False: there was none.
    async fn release(&self, credential: CredentialId, lease: LeaseId) -> Result<bool, CoordinationError>;

    /// A refresh waits: caps all leases at the longest running one. Answers how long that lasts; zero: nobody holds one.
    async fn cap(&self, credential: CredentialId) -> Result<Duration, CoordinationError>;

    /// The refresh is over.
    async fn uncap(&self, credential: CredentialId) -> Result<(), CoordinationError>;

    /// How many are running.
    async fn count(&self, credential: CredentialId) -> Result<u64, CoordinationError>;

    /// Ends all. Answers how many there were.
    async fn end_all(&self, credential: CredentialId) -> Result<u64, CoordinationError>;
}
