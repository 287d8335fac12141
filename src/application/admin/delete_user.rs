//! The end of a user's data: tokens revoked, rows deleted, and the user's key with them, so that no copy of a ciphertext opens
//! any more, wherever it is. The audit log stays: it says who used what, and that it was deleted.
//!
//! Nothing depends on a call that ends: whatever came of the last one, the next one goes on with what is left. A user of whom
//! nothing is known is deleted. Who consents later is a new user, with another key.

use std::sync::Arc;

use super::super::Broker;
use super::super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::{TenantId, UserId};
use crate::domain::user_key::{UserDeleted, UserDeletion};

/// How many rows of a kind one call deletes at most.
const BATCH: u32 = 1000;

/// Whose data, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteUserInput {
    /// `None`: the operator's own.
    pub tenant: Option<TenantId>,
    /// Whose.
    pub user: UserId,
    /// Providers are not told (any more): what they would have to be told is deleted, too.
    pub abandon_revocations: bool,
}

/// What one call has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedUser {
    /// Credentials that are gone.
    pub revoked: u32,
    /// Pending consents to the same services that were cancelled.
    pub cancelled_flows: u32,
    /// Whether there is more to do at once: ask again.
    pub more: bool,
    /// Revocations that providers have still to be told. Until then the user's key stays.
    pub waiting_revocations: u64,
    /// Nothing is left of the user, and nothing that was sealed for the user opens any more.
    pub deleted: bool,
}

impl Broker {
    /// Does as much as one call may. To be repeated until the user is deleted.
    pub async fn delete_user_data(
        self: &Arc<Self>,
        principal: &Principal,
        input: DeleteUserInput,
    ) -> Result<DeletedUser, BrokerError> {
        let DeleteUserInput { tenant, user, abandon_revocations } = input;
        let tenant = Self::administer(principal, AdminAction::BreakGlass, tenant)?;
        let broken = self.revoke_batch(&tenant, Some(&user), !abandon_revocations).await?;
        let mut done = DeletedUser {
            revoked: broken.revoked,
            cancelled_flows: broken.cancelled_flows,
            more: broken.more,
            ..DeletedUser::default()
        };
        if done.more {
            return Ok(done);
        }
        let deletion = UserDeletion { tenant, user, abandon_revocations, limit: BATCH };
        match self.ports.credentials.delete_user(&deletion).await? {
            UserDeleted::Gone(key) => {
                if let Some(key) = key {
                    self.ports.cipher.forget_user_key(key);
                    tracing::warn!(tenant = %deletion.tenant, key = %uuid::Uuid::from_bytes(key), "a user's data was deleted");
                }
                done.deleted = true;
            }
            UserDeleted::Partly => done.more = true,
            UserDeleted::Waiting(revocations) => done.waiting_revocations = revocations,
        }
        Ok(done)
    }
}
