//! Looking after keys: rotation, the passes that move rows to the active data keys, retirement, and how all of it stands.
//!
//! | file | does |
//! |---|---|
//! | `rotate` | new data keys; data keys under another key-encryption key |
//! | `pass` | the background: row after row to the active data keys |
//! | `retire` | the end of a data key, or why not yet |
//! | `status` | what there is, and how far the work is |

mod pass;
mod retire;
mod rotate;
mod status;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::data_key::{DataKeyStore, KeyKeeper, ReencryptionStore};
use crate::domain::key::{ClaimOwner, TenantId};
use crate::domain::ports::Clock;

pub use retire::Refusal;
pub use rotate::Rotated;
pub use status::{DataKeyStanding, KeysPage, KeysQuery, Progress, TableRows};

/// The outside world of the keys.
#[derive(Clone)]
pub struct KeyPorts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The vault.
    pub keeper: Arc<dyn KeyKeeper>,
    /// The data keys.
    pub data_keys: Arc<dyn DataKeyStore>,
    /// The rows, and how far the work is.
    pub rows: Arc<dyn ReencryptionStore>,
}

/// What the operator decides.
#[derive(Debug, Clone, Copy)]
pub struct KeySettings {
    /// How many rows a pass looks at in a second.
    pub rows_per_second: u32,
    /// How long a superseded data key is kept at least: longer than anything lives outside the database that a row could
    /// still take over.
    pub retire_after: Duration,
}

/// Which tenants' keys a call is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Whose {
    /// The caller's own tenant's.
    #[default]
    Own,
    /// A tenant's.
    Of(TenantId),
    /// Every tenant's.
    All,
}

/// The tenant that a call is about, if the caller may look after its keys; `None`: all.
fn administered(principal: &Principal, whose: Whose) -> Result<Option<TenantId>, BrokerError> {
    let one = |tenant| Broker::administer(principal, AdminAction::ManageKeys, tenant).map(Some);
    match whose {
        Whose::Own => one(None),
        Whose::Of(tenant) => one(Some(tenant)),
        Whose::All => {
            one(None)?;
            if principal.caller.admin.all_tenants { Ok(None) } else { Err(BrokerError::PermissionDenied) }
        }
    }
}

/// The use cases of the keys.
pub struct Keys {
    ports: KeyPorts,
    settings: KeySettings,
    /// This process run.
    worker: ClaimOwner,
}

impl Keys {
    /// Puts it together.
    #[must_use]
    pub fn new(ports: KeyPorts, settings: KeySettings, worker: ClaimOwner) -> Self {
        Self { ports, settings, worker }
    }

    /// Learns what has become of the data keys in memory. Called every
    /// [`FOLLOW_EVERY`](crate::domain::data_key::FOLLOW_EVERY).
    pub async fn follow(&self) {
        if let Err(error) = self.ports.keeper.follow().await {
            tracing::warn!(%error, "what has become of the data keys is not known; those in memory go on");
        }
    }
}
