//! Break glass: all credentials of a user, or of a tenant, are revoked, whoever uses them, and what is under way is ended.
//!
//! First the consents, then the credentials: a consent that was begun before ends either before the one statement, and its
//! credential is among those that are read after it; or the statement ends it, and what its exchange obtains is not stored but
//! revoked at the provider. A consent that is begun after that is a new one.

use std::sync::Arc;

use super::super::Broker;
use super::super::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::{TenantId, UserId};
use crate::domain::ports::{ListQuery, ProviderStanding};
use crate::domain::scope::ScopeSet;

/// How many credentials one call revokes at most, so that it ends within its deadline.
pub const BREAK_GLASS_BATCH: u32 = 200;

/// What one call has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokenGlass {
    /// Credentials that are gone.
    pub revoked: u32,
    /// Consents under way that were cancelled.
    pub cancelled_flows: u32,
    /// Whether there may be more: ask again.
    pub more: bool,
}

impl Broker {
    /// Revokes a batch. Each is gone here at once, leases or not; the providers are told in the background, and again until
    /// they answer.
    pub async fn break_glass(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: Option<TenantId>,
        user: Option<UserId>,
    ) -> Result<BrokenGlass, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::BreakGlass, tenant)?;
        self.revoke_batch(&tenant, user.as_ref(), true).await
    }

    /// The same for whoever may. `tell`: providers are told.
    pub(super) async fn revoke_batch(
        self: &Arc<Self>,
        tenant: &TenantId,
        user: Option<&UserId>,
        tell: bool,
    ) -> Result<BrokenGlass, BrokerError> {
        let (flows, now) = (&self.ports.flows, self.ports.clock.now());
        let ended = flows.cancel_flows(tenant, user, BREAK_GLASS_BATCH, now).await?;
        self.tell_watches(tenant);
        let query = ListQuery {
            tenant: tenant.clone(),
            user: user.cloned(),
            among: None,
            providers: None,
            covering: ScopeSet::default(),
            // What is revoked is on no page any more.
            after: None,
            limit: BREAK_GLASS_BATCH,
        };
        let rows = self.ports.credentials.list(query).await?;
        let mut done = BrokenGlass {
            revoked: 0,
            cancelled_flows: ended.cancelled,
            more: ended.more || rows.len() >= BREAK_GLASS_BATCH as usize,
        };
        for row in rows {
            let provider = self.provider_of(&row).await?.and_then(ProviderStanding::known);
            // Of a provider that is not configured any more nobody knows how to tell it.
            let told = provider.is_some_and(|provider| provider.supports_revocation());
            let (ended, _) = self.end_credential(&row.key, Some(&row), tell && told).await?;
            done.revoked += u32::from(ended.deleted);
            done.cancelled_flows += ended.cancelled_flows;
        }
        Ok(done)
    }
}
