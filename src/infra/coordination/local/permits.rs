//! The permit store of a single process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::expiring::Expiring;
use crate::domain::coordination::{
    CoordinationError, Permit, PermitRequest, PermitStore, Successor, Tombstone,
};
use crate::domain::credential::{Epoch, Fingerprint};
use crate::domain::key::{ClaimOwner, CredentialId, GrantId};
use crate::domain::ports::Clock;
use crate::infra::coordination::{DEAD_OWNER, STORED_SUCCESSOR, SUCCESSOR, TOMBSTONE};

/// Permits, successors, tombstones and dead owners, in memory.
pub struct LocalPermits {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: Expiring<TokenKey, Entry>,
    tombstones: Expiring<(CredentialId, GrantId), Tombstone>,
    dead: Expiring<ClaimOwner, ()>,
}

/// A refresh token of a credential.
type TokenKey = (CredentialId, [u8; 32]);

/// What is known of a refresh token.
enum Entry {
    Permit { owner: ClaimOwner, since: Duration },
    Successor(Box<Successor>),
}

impl LocalPermits {
    /// An empty one. The clock's monotonic time counts.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// The state, and the time.
    fn state(&self) -> (MutexGuard<'_, State>, Duration) {
        // No code in a critical section can leave the state half changed.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        (state, now)
    }
}

impl State {
    fn take(&mut self, now: Duration, request: &PermitRequest) -> Permit {
        if let Some(tombstone) = self.tombstones.get(now, &(request.credential, request.grant)) {
            return Permit::Buried(*tombstone);
        }
        let key = (request.credential, request.token.0);
        match self.tokens.get(now, &key) {
            Some(Entry::Successor(kept)) if kept.write.is_news_to(request.grant, request.row_epoch) => {
                return Permit::Successor(kept.clone());
            }
            Some(Entry::Permit { owner, since }) if request.takeover != Some(*owner) => {
                return Permit::Held { owner: *owner, age: now.saturating_sub(*since) };
            }
            _ => {}
        }
        let permit = Entry::Permit { owner: request.owner, since: now };
        self.tokens.insert(now, key, permit, request.lifetime);
        Permit::Taken
    }

    fn successor(&self, now: Duration, key: &TokenKey) -> Option<&Successor> {
        match self.tokens.get(now, key)? {
            Entry::Successor(kept) => Some(kept),
            Entry::Permit { .. } => None,
        }
    }
}

#[async_trait]
impl PermitStore for LocalPermits {
    async fn take(&self, request: PermitRequest) -> Result<Permit, CoordinationError> {
        let (mut state, now) = self.state();
        Ok(state.take(now, &request))
    }

    async fn keep_successor(&self, successor: &Successor) -> Result<(), CoordinationError> {
        let (mut state, now) = self.state();
        let write = &successor.write;
        let key = (write.id, write.parent_fingerprint.0);
        if state.successor(now, &key).is_none_or(|kept| kept.write.epoch <= write.epoch) {
            state.tokens.insert(now, key, Entry::Successor(Box::new(successor.clone())), SUCCESSOR);
        }
        Ok(())
    }

    async fn successor(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError> {
        let (state, now) = self.state();
        Ok(state.successor(now, &(credential, parent.0)).cloned())
    }

    async fn successor_stored(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
        epoch: Epoch,
    ) -> Result<(), CoordinationError> {
        let (mut state, now) = self.state();
        let key = (credential, parent.0);
        if state.successor(now, &key).is_some_and(|kept| kept.write.epoch == epoch)
            && let Some(entry) = state.tokens.remove(&key)
        {
            state.tokens.insert(now, key, entry, STORED_SUCCESSOR);
        }
        Ok(())
    }

    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError> {
        let (mut state, now) = self.state();
        let key = (credential, token.0);
        if matches!(state.tokens.get(now, &key), Some(Entry::Permit { owner: holder, .. }) if *holder == owner)
        {
            state.tokens.remove(&key);
        }
        Ok(())
    }

    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError> {
        let (mut state, now) = self.state();
        state.tombstones.insert(now, (credential, grant), tombstone, TOMBSTONE);
        Ok(())
    }

    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError> {
        let (mut state, now) = self.state();
        state.dead.insert(now, owner, (), DEAD_OWNER);
        Ok(())
    }

    async fn is_dead(&self, owner: ClaimOwner) -> Result<bool, CoordinationError> {
        let (state, now) = self.state();
        Ok(state.dead.get(now, &owner).is_some())
    }

    async fn ping(&self) -> Result<(), CoordinationError> {
        Ok(())
    }
}
