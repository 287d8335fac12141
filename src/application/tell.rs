//! The word to watches that there are new events.

use super::Broker;
use crate::domain::coordination::Wake;
use crate::domain::key::TenantId;

impl Broker {
    /// Tells all replicas, behind the caller's back: the events are stored, and whoever misses the word finds them when
    /// it looks next.
    pub(super) fn tell_watches(&self, tenant: &TenantId) {
        let (wakeups, wake) = (self.ports.wakeups.clone(), Wake::Events(tenant.clone()));
        self.tasks.spawn(async move { wakeups.publish(wake).await });
    }
}
