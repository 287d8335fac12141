//! Waiting for a refresh that another replica has under way: woken by notification, polling behind it. One task per
//! credential and process does it for all readers, so that a thousand waiters are one poll.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Broker;
use super::endings::storage_failed;
use super::single_flight::FlightEnd;
use crate::domain::coordination::Wake;
use crate::domain::credential::{Credential, CredentialState};

/// The first pause between two polls; grows by half up to [`LONGEST_POLL`].
const FIRST_POLL: Duration = Duration::from_millis(25);
/// How soon the permit of a last chance is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The longest pause between two polls.
const LONGEST_POLL: Duration = Duration::from_millis(200);

impl Broker {
    /// Waits until the refresh that the row or its permit tells of has ended, or may be settled; at most as long as a
    /// reader waits. A row that could be settled already waits for whoever is about to.
    pub(super) async fn wait_for_others(&self, seen: &Credential) -> Result<(), FlightEnd> {
        let wake = Wake::Credential(seen.id);
        let settles = self.may_be_settled(seen);
        // Whoever is about to settle the row may give up, or die, without a word in it: the permit says so, and is asked again.
        let patience = if settles { self.settings.max_wait.min(ASK_AGAIN) } else { self.settings.max_wait };
        let give_up = Instant::now() + patience;
        let mut pause = FIRST_POLL;
        loop {
            // Registered before the row is read, so that no word is lost between.
            let woken = self.ports.wakeups.listen(&wake);
            let row = self.ports.credentials.load_by_id(seen.id).await.map_err(storage_failed)?;
            let Some(row) = row.filter(|row| still_waits(seen, row)) else { return Ok(()) };
            if self.may_be_settled(&row) && !(settles && row.epoch == seen.epoch) {
                return Ok(());
            }
            if Instant::now() >= give_up {
                return Err(FlightEnd::Elsewhere);
            }
            // However it ends, the row is read next.
            let _ = timeout_at(give_up.min(Instant::now() + self.jittered(pause)), woken).await;
            pause = (pause * 3 / 2).min(LONGEST_POLL);
        }
    }

    fn may_be_settled(&self, row: &Credential) -> bool {
        let CredentialState::Refreshing { claim, .. } = &row.state else { return false };
        self.ports.clock.now() >= claim.settle_at
    }

    /// Up to half as long again, so that the replicas do not poll in step.
    fn jittered(&self, pause: Duration) -> Duration {
        let [random] = self.random::<1>();
        pause + pause * u32::from(random) / 510
    }
}

/// Whether the refresh has not ended: the pair is the same, and the row is claimed (perhaps only now), or as it was.
fn still_waits(seen: &Credential, row: &Credential) -> bool {
    let same_pair = row.grant_id == seen.grant_id && row.generation == seen.generation;
    same_pair
        && match &row.state {
            CredentialState::Refreshing { .. } => true,
            CredentialState::Active { .. } => row.epoch == seen.epoch,
            CredentialState::NeedsReauth { .. } | CredentialState::Revoked => false,
        }
}
