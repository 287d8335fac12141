//! A directory that knows one caller, or nobody, or nothing, as the test says.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use token_broker::domain::access_policy::{Caller, Identity, Principal};
use token_broker::domain::ports::{CallerDirectory, StoreError};

/// The database does not answer.
#[derive(Clone, Copy)]
pub(crate) struct Down;

/// What a directory says.
pub(crate) type Says = Result<Option<Caller>, Down>;

/// See the module. Whatever is presented is this caller's.
pub(crate) struct OneCaller {
    says: Mutex<Says>,
    asked: AtomicU32,
}

impl OneCaller {
    /// What callers of a test present.
    pub(crate) const IDENTITY: Identity = Identity::ApiKey([7; 32]);

    pub(crate) fn of(principal: &Principal) -> Self {
        Self { says: Mutex::new(Ok(Some(Caller::clone(&principal.caller)))), asked: AtomicU32::new(0) }
    }

    /// What it says from now on.
    pub(crate) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// How often it was asked since the last time.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl CallerDirectory for OneCaller {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        assert_eq!(*identity, Self::IDENTITY);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let says = self.says.lock().unwrap().clone();
        says.map(|caller| caller.map(Arc::new))
            .map_err(|Down| StoreError::Unavailable("the test says so".into()))
    }

    fn remembers(&self, identity: &Identity) -> bool {
        *identity == Self::IDENTITY
    }
}
