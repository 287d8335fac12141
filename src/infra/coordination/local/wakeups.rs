//! Wake-ups within the process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::coordination::{Wake, Wakeups};
use crate::infra::coordination::waiters::Waiters;

/// Wakes waiters of this process.
#[derive(Default)]
pub struct LocalWakeups(Arc<Waiters>);

#[async_trait]
impl Wakeups for LocalWakeups {
    async fn publish(&self, wake: Wake) {
        self.0.wake(&wake);
    }

    fn listen(&self, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.listen(wake)
    }
}
