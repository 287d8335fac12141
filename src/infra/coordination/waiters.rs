//! Who waits in this process for what.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::coordination::Wake;

/// Everybody who waits. Nothing is kept of what nobody waits for.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Wake, Place>>);

/// Where one thing is waited for.
#[derive(Default)]
struct Place {
    bell: Arc<Notify>,
    waiting: usize,
}

/// Takes its waiter out of the books.
struct Registration {
    waiters: Arc<Waiters>,
    wake: Wake,
}

impl Waiters {
    fn places(&self) -> MutexGuard<'_, HashMap<Wake, Place>> {
        // No code in a critical section can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits from now on, polled or not.
    pub(super) fn listen(self: &Arc<Self>, wake: &Wake) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let told = {
            let mut places = self.places();
            let place = places.entry(wake.clone()).or_default();
            place.waiting += 1;
            place.bell.clone().notified_owned()
        };
        let registration = Registration { waiters: self.clone(), wake: wake.clone() };
        Box::pin(async move {
            told.await;
            drop(registration);
        })
    }

    /// Wakes those who wait for this.
    pub(super) fn wake(&self, wake: &Wake) {
        if let Some(place) = self.places().get(wake) {
            place.bell.notify_waiters();
        }
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        for place in self.places().values() {
            place.bell.notify_waiters();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Entry::Occupied(mut place) = self.waiters.places().entry(self.wake.clone()) {
            place.get_mut().waiting -= 1;
            if place.get().waiting == 0 {
                place.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::CredentialId;

    fn wake(n: u8) -> Wake {
        Wake::Credential(CredentialId::from_bytes([n; 16]))
    }

    #[test]
    fn nothing_is_left_of_waiters_that_went_away_or_were_woken() {
        let waiters = Arc::new(Waiters::default());
        let (first, second) = (waiters.listen(&wake(1)), waiters.listen(&wake(1)));
        let other = waiters.listen(&wake(2));
        drop((first, other));
        assert_eq!(waiters.places().len(), 1);
        waiters.wake(&wake(1));
        futures_util::FutureExt::now_or_never(second).unwrap();
        assert!(waiters.places().is_empty());
        waiters.wake(&wake(1));
        assert!(waiters.places().is_empty());
    }

    #[test]
    fn everybody_can_be_woken() {
        let waiters = Arc::new(Waiters::default());
        let all = [waiters.listen(&wake(1)), waiters.listen(&wake(2)), waiters.listen(&wake(2))];
        waiters.wake_all();
        for waiter in all {
            futures_util::FutureExt::now_or_never(waiter).unwrap();
        }
    }
}
