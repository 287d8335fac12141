//! A journal in memory, which fails when it is told to and can outlive its broker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use token_broker::domain::coordination::{Journal, JournalError};
use token_broker::domain::credential::{Epoch, Fingerprint};
use token_broker::domain::key::CredentialId;
use token_broker::domain::ports::LineageWrite;

#[derive(Default)]
pub(crate) struct MemoryJournal {
    records: Mutex<Vec<LineageWrite>>,
    pub(crate) fails: AtomicBool,
}

impl MemoryJournal {
    fn check(&self) -> Result<(), JournalError> {
        if self.fails.load(Ordering::SeqCst) { Err(JournalError("the test says so".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn ready(&self) -> Result<(), JournalError> {
        self.check()
    }

    async fn append(&self, write: &LineageWrite) -> Result<(), JournalError> {
        self.check()?;
        self.records.lock().unwrap().push(write.clone());
        Ok(())
    }

    async fn stored(&self, _: CredentialId, _: Epoch) {}

    async fn successor(&self, credential: CredentialId, parent: Fingerprint) -> Option<LineageWrite> {
        let records = self.records.lock().unwrap();
        records.iter().rfind(|w| w.id == credential && w.parent_fingerprint == parent).cloned()
    }
}
