//! The leases of a single process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::coordination::{CoordinationError, LeaseStore, LeaseTerm};
use crate::domain::key::{CredentialId, LeaseId};
use crate::domain::ports::Clock;
use crate::infra::coordination::{CAP_GRACE, MAX_LEASES};

/// Leases in memory.
pub struct LocalLeases {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    credentials: HashMap<CredentialId, Leases>,
    /// How many credentials were left by the last look at all of them; the next comes when there are twice as many.
    kept: usize,
}

/// Those of one credential.
#[derive(Default)]
struct Leases {
    /// By their ends.
    running: HashMap<LeaseId, Duration>,
    cap: Option<Cap>,
}

#[derive(Clone, Copy)]
struct Cap {
    /// Nobody's lease goes beyond.
    at: Duration,
    /// The refresh that waits has probably died then.
    forgotten: Duration,
}

/// Fewer credentials than this are not worth a look.
const FEW: usize = 1_024;

impl LocalLeases {
    /// None yet. The clock's monotonic time counts.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Does something with a credential's leases. Nothing is kept of a credential without any.
    fn with<T>(&self, credential: CredentialId, act: impl FnOnce(&mut Leases, Duration) -> T) -> T {
        let mut state = self.lock();
        let now = self.clock.monotonic();
        let leases = state.credentials.entry(credential).or_default();
        leases.purge(now);
        let answer = act(leases, now);
        if leases.is_empty() {
            state.credentials.remove(&credential);
        }
        if state.credentials.len() > FEW.max(state.kept.saturating_mul(2)) {
            state.credentials.retain(|_, leases| {
                leases.purge(now);
                !leases.is_empty()
            });
            state.kept = state.credentials.len();
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code in a critical section can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leases {
    fn purge(&mut self, now: Duration) {
        self.running.retain(|_, end| *end > now);
        self.cap = self.cap.filter(|cap| cap.forgotten > now);
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.cap.is_none()
    }

    fn acquire(&mut self, now: Duration, lease: LeaseId, ttl: Duration) -> Option<LeaseTerm> {
        let end = self.capped(now.saturating_add(ttl));
        let full = self.running.len() >= MAX_LEASES && !self.running.contains_key(&lease);
        if end <= now || full {
            return None;
        }
        self.running.insert(lease, end);
        Some(self.term(now, end))
    }

    fn renew(&mut self, now: Duration, lease: LeaseId, ttl: Duration) -> Option<LeaseTerm> {
        let wanted = self.capped(now.saturating_add(ttl));
        let end = self.running.get_mut(&lease)?;
        *end = wanted.max(*end);
        let end = *end;
        Some(self.term(now, end))
    }

    fn cap(&mut self, now: Duration) -> Duration {
        let longest = self.running.values().copied().max().unwrap_or(now);
        let at = self.cap.map_or(longest, |cap| cap.at);
        self.cap = Some(Cap { at, forgotten: at.max(now).saturating_add(CAP_GRACE) });
        longest.saturating_sub(now)
    }

    fn capped(&self, end: Duration) -> Duration {
        self.cap.map_or(end, |cap| end.min(cap.at))
    }

    fn term(&self, now: Duration, end: Duration) -> LeaseTerm {
        LeaseTerm { lasts: end.saturating_sub(now), capped: self.cap.is_some() }
    }
}

#[async_trait]
impl LeaseStore for LocalLeases {
    async fn acquire(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        Ok(self.with(credential, |leases, now| leases.acquire(now, lease, ttl)))
    }

    async fn renew(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        Ok(self.with(credential, |leases, now| leases.renew(now, lease, ttl)))
    }

    async fn release(&self, credential: CredentialId, lease: LeaseId) -> Result<bool, CoordinationError> {
        Ok(self.with(credential, |leases, _| leases.running.remove(&lease).is_some()))
    }

    async fn cap(&self, credential: CredentialId) -> Result<Duration, CoordinationError> {
        Ok(self.with(credential, Leases::cap))
    }

    async fn uncap(&self, credential: CredentialId) -> Result<(), CoordinationError> {
        self.with(credential, |leases, _| leases.cap = None);
        Ok(())
    }

    async fn count(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        Ok(self.with(credential, |leases, _| leases.running.len() as u64))
    }

    async fn end_all(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        Ok(self.with(credential, |leases, _| {
            let ended = leases.running.len() as u64;
            leases.running.clear();
            ended
        }))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    struct At(Mutex<Duration>);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    #[tokio::test]
    async fn credentials_without_leases_take_no_memory() {
        let clock = Arc::new(At(Mutex::default()));
        let leases = LocalLeases::new(clock.clone());
        let second = Duration::from_secs(1);
        for n in 0..10_000_u32 {
            *clock.0.lock().unwrap() = second * n;
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let credential = CredentialId::from_bytes(id);
            leases.acquire(credential, LeaseId::from_bytes(id), second).await.unwrap().unwrap();
            assert!(leases.lock().credentials.len() <= FEW + 1);
        }
        // Nor does a question about one.
        let asked = CredentialId::from_bytes([9; 16]);
        assert_eq!(leases.count(asked).await.unwrap(), 0);
        assert!(!leases.lock().credentials.contains_key(&asked));
    }
}
