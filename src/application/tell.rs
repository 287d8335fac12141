//! The words to those who wait, at all replicas. Whoever misses one finds what it told of when it looks next.

use super::Broker;
use crate::domain::coordination::Wake;
use crate::domain::key::{CredentialId, TenantId};

impl Broker {
    /// Readers that wait for the row, and watches.
    pub(super) async fn tell_waiters(&self, tenant: &TenantId, id: CredentialId) {
        self.ports.wakeups.publish(Wake::Credential(id)).await;
        self.ports.wakeups.publish(Wake::Events(tenant.clone())).await;
    }

    /// Watches alone, behind the caller's back: the events are stored.
    pub(super) fn tell_watches(&self, tenant: &TenantId) {
        let (wakeups, wake) = (self.ports.wakeups.clone(), Wake::Events(tenant.clone()));
        self.tasks.spawn(async move { wakeups.publish(wake).await });
    }
}
