//! A journal in memory, which fails when it is told to and can outlive its broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use token_broker::domain::coordination::{FormerRun, Journal, JournalError};
use token_broker::domain::credential::{Epoch, Fingerprint};
use token_broker::domain::key::{ClaimOwner, CredentialId};
use token_broker::domain::ports::LineageWrite;

use super::life::Life;

#[derive(Default)]
pub(crate) struct MemoryJournal {
    records: Mutex<Vec<LineageWrite>>,
    /// It says so before anything is claimed.
    pub(crate) not_ready: AtomicBool,
    /// It said that it was ready, and is not.
    pub(crate) fails: AtomicBool,
    /// Whether its broker goes on at all.
    pub(crate) life: Arc<Life>,
}

impl MemoryJournal {
    /// The journal of a replica that can be stopped.
    pub(crate) fn of(life: Arc<Life>) -> Self {
        Self { life, ..Self::default() }
    }

    async fn check(&self, fault: &AtomicBool) -> Result<(), JournalError> {
        self.life.goes_on().await;
        if fault.load(Ordering::SeqCst) { Err(JournalError("the test says so".into())) } else { Ok(()) }
    }

    /// What the next process finds.
    pub(crate) fn left_behind(&self, owner: ClaimOwner) -> FormerRun {
        FormerRun { owner, records: self.records.lock().unwrap().clone() }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn ready(&self) -> Result<(), JournalError> {
        self.check(&self.not_ready).await
    }

    async fn append(&self, write: &LineageWrite) -> Result<(), JournalError> {
        self.check(&self.fails).await?;
        self.records.lock().unwrap().push(write.clone());
        Ok(())
    }

    async fn stored(&self, _: CredentialId, _: Epoch) {}

    async fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite> {
        self.life.goes_on().await;
        let records = self.records.lock().unwrap();
        records.iter().rfind(|w| w.id == credential && w.parent_fingerprint == parent).cloned()
    }
}
