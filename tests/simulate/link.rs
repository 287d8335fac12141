//! What stands between one broker and the rest of the world: time passes on every call, and a broker that has died never
//! comes back from one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use token_broker::domain::key::{ClaimOwner, CredentialId};
use token_broker::domain::ports::{Clock, Entropy};
use token_broker::domain::step::{Step, Steps};
use tokio::time::{Instant, sleep, sleep_until};

use super::dice::Dice;
use super::faults::Fault;
use super::world::World;

pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    pub(crate) owner: ClaimOwner,
    /// Which of the replicas.
    site: usize,
    dead: AtomicBool,
    stands_still_until: Mutex<Instant>,
    pub(crate) disk_full_until: Mutex<Instant>,
    /// Where it dies, and after how many times.
    crash: Mutex<Option<(Step, u32)>>,
}

impl Link {
    pub(crate) fn new(
        world: &Arc<World>,
        owner: ClaimOwner,
        site: usize,
        crash: Option<(Step, u32)>,
    ) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            world: Arc::clone(world),
            owner,
            site,
            dead: AtomicBool::new(false),
            stands_still_until: Mutex::new(now),
            disk_full_until: Mutex::new(now),
            crash: Mutex::new(crash),
        })
    }

    /// One way of one call.
    pub(crate) async fn hop(&self) {
        let dice = &self.world.dice;
        let time = match dice.below(16) {
            0 => dice.up_to(Duration::from_millis(250)),
            1..4 => dice.up_to(Duration::from_millis(12)),
            _ => Duration::ZERO,
        };
        if time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            sleep(time).await;
        }
        let until = *self.stands_still_until.lock().unwrap();
        if until > Instant::now() {
            sleep_until(until).await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Ends it, as `kill -9` does. Another one starts in its place after a while.
    pub(crate) fn kill(&self) {
        if !self.dead.swap(true, Ordering::SeqCst) {
            self.world.died(self.site);
        }
    }

    pub(crate) fn stand_still(&self, time: Duration) {
        *self.stands_still_until.lock().unwrap() = Instant::now() + time;
    }

    pub(crate) fn fill_disk(&self, time: Duration) {
        *self.disk_full_until.lock().unwrap() = Instant::now() + time;
    }

    /// Nothing goes wrong with it any more.
    pub(crate) fn heal(&self) {
        *self.crash.lock().unwrap() = None;
        self.stand_still(Duration::ZERO);
        self.fill_disk(Duration::ZERO);
    }
}

impl Steps for Link {
    fn reached(&self, step: Step, _: CredentialId) {
        if self.is_dead() {
            return;
        }
        self.world.note(format_args!("{} has reached {}", self.owner, step.name()));
        let strikes = match &mut *self.crash.lock().unwrap() {
            Some((at, left)) if *at == step => {
                *left -= 1;
                *left == 0
            }
            _ => false,
        };
        if strikes {
            self.world.happened(Fault::CrashAt(step));
            self.kill();
        }
    }
}

/// The world's time.
pub(crate) struct SimClock(pub(crate) Instant);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let begin = Timestamp::from_second(1_800_000_000).unwrap();
        begin.checked_add(SignedDuration::try_from(self.monotonic()).unwrap()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Entropy for Dice {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.draw().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
