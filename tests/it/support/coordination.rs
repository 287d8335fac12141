//! Permits and wake-ups that several replicas share, and that fail when they are told to.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use token_broker::domain::coordination::{
    CoordinationError, Permit, PermitRequest, PermitStore, Successor, Tombstone, Wake, Wakeups,
};
use token_broker::domain::credential::{Epoch, Fingerprint};
use token_broker::domain::key::{ClaimOwner, CredentialId, GrantId};
use token_broker::domain::ports::Clock;
use token_broker::infra::coordination::local::{LocalPermits, LocalWakeups};
use tokio::sync::watch;

use super::life::Life;

/// A permit store.
pub(crate) struct SharedPermits {
    clock: Arc<dyn Clock>,
    store: Mutex<Arc<LocalPermits>>,
    /// Nothing works.
    pub(crate) unreachable: AtomicBool,
    /// Only successors can't be written.
    pub(crate) keeps_nothing: AtomicBool,
}

impl SharedPermits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let store = Mutex::new(Arc::new(LocalPermits::new(clock.clone())));
        Self { clock, store, unreachable: AtomicBool::default(), keeps_nothing: AtomicBool::default() }
    }

    /// What is in it, past its faults.
    pub(crate) fn store(&self) -> Arc<LocalPermits> {
        self.store.lock().unwrap().clone()
    }

    /// Loses all that is in it.
    pub(crate) fn wipe(&self) {
        *self.store.lock().unwrap() = Arc::new(LocalPermits::new(self.clock.clone()));
    }

    pub(crate) fn unreachable(&self, yes: bool) {
        self.unreachable.store(yes, Ordering::SeqCst);
    }
}

/// One replica's way to the permit store.
pub(crate) struct Permits {
    pub(crate) shared: Arc<SharedPermits>,
    pub(crate) life: Arc<Life>,
}

impl Permits {
    async fn store(&self) -> Result<Arc<LocalPermits>, CoordinationError> {
        self.life.goes_on().await;
        if self.shared.unreachable.load(Ordering::SeqCst) {
            Err(unreachable())
        } else {
            Ok(self.shared.store())
        }
    }
}

fn unreachable() -> CoordinationError {
    CoordinationError::Unreachable("the test says so".into())
}

#[async_trait]
impl PermitStore for Permits {
    async fn take(&self, request: PermitRequest) -> Result<Permit, CoordinationError> {
        self.store().await?.take(request).await
    }

    async fn keep_successor(&self, successor: &Successor) -> Result<(), CoordinationError> {
        let store = self.store().await?;
        if self.shared.keeps_nothing.load(Ordering::SeqCst) {
            return Err(unreachable());
        }
        store.keep_successor(successor).await
    }

    async fn successor(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError> {
        self.store().await?.successor(credential, parent).await
    }

    async fn successor_stored(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
        epoch: Epoch,
    ) -> Result<(), CoordinationError> {
        self.store().await?.successor_stored(credential, parent, epoch).await
    }

    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError> {
        self.store().await?.drop_permit(credential, token, owner).await
    }

    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError> {
        self.store().await?.bury(credential, grant, tombstone).await
    }

    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError> {
        self.store().await?.owner_died(owner).await
    }

    async fn is_dead(&self, owner: ClaimOwner) -> Result<bool, CoordinationError> {
        self.store().await?.is_dead(owner).await
    }

    async fn ping(&self) -> Result<(), CoordinationError> {
        self.store().await?.ping().await
    }
}

/// The wake-ups of all replicas.
#[derive(Default)]
pub(crate) struct SharedWakeups {
    words: LocalWakeups,
    /// Nobody hears anything.
    pub(crate) lost: AtomicBool,
    heard: Arc<AtomicUsize>,
    listened: watch::Sender<usize>,
}

impl SharedWakeups {
    /// Waits until anybody has begun to listen so often.
    pub(crate) async fn listened(&self, times: usize) {
        self.listened.subscribe().wait_for(|seen| *seen >= times).await.unwrap();
    }

    /// Tells, as a replica does.
    pub(crate) async fn tell(&self, wake: Wake) {
        self.words.publish(wake).await;
    }

    /// How many waiters were woken.
    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// One replica's way to them.
pub(crate) struct Words {
    pub(crate) shared: Arc<SharedWakeups>,
    pub(crate) life: Arc<Life>,
}

#[async_trait]
impl Wakeups for Words {
    async fn publish(&self, wake: Wake) {
        self.life.goes_on().await;
        if !self.shared.lost.load(Ordering::SeqCst) {
            self.shared.words.publish(wake).await;
        }
    }

    fn listen(&self, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.shared.listened.send_modify(|times| *times += 1);
        let (woken, heard) = (self.shared.words.listen(wake), self.shared.heard.clone());
        Box::pin(async move {
            woken.await;
            heard.fetch_add(1, Ordering::SeqCst);
        })
    }
}
