//! The background: settles unknown outcomes, retries revocations, expires flows.
use std::sync::Arc;

use super::Broker;

impl Broker {
    /// One round; called every second. Errors are logged, the next round tries again.
    pub async fn sweep(self: &Arc<Self>) {
        todo!()
    }
}
