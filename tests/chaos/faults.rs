//! What is done to the system: a deck of faults, shuffled by the seed and dealt one at a time, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use token_broker::domain::step::Step;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backing::Backing;
use crate::clock;
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::history::Disturbance;
use crate::provider::{Book, Mood};
use crate::record::Record;

/// The kinds of faults beside those of the provider's single answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillAtRandom,
    Pause,
    FlushRedis,
    RestartRedis,
    PauseRedis,
    RestartPostgres,
    ProviderHangs,
}

/// A round.
const DECK: [Fault; 8] = [
    Fault::KillAtRandom,
    Fault::Pause,
    Fault::Pause,
    Fault::FlushRedis,
    Fault::RestartRedis,
    Fault::PauseRedis,
    Fault::RestartPostgres,
    Fault::ProviderHangs,
];
/// Orders that stand at a time: a rare step must not hold up the others.
const STANDING_ORDERS: usize = 6;
/// After so many more orders, one that stands is given to all replicas.
const ROUNDS_OF_PATIENCE: u32 = 2;

/// An order that stands.
struct Order {
    /// How many had died at the step when it was given.
    died_before: u32,
    rounds: u32,
}

/// Deals them out.
pub(crate) struct Dealer {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) backing: Arc<Backing>,
    pub(crate) book: Arc<Book>,
    pub(crate) record: Arc<Record>,
    pub(crate) dice: Dice,
    /// From the end of a fault to the next.
    pub(crate) pace: (Duration, Duration),
    /// How long a replica is stopped: beyond a claim's deadline, and short enough that with all that a request may take it
    /// ends before the settling time.
    pub(crate) pause: (Duration, Duration),
}

impl Dealer {
    /// Deals until it is told to stop; a fault that has begun is ended.
    pub(crate) async fn deal(mut self, stop: CancellationToken) {
        let mut deck = Vec::new();
        loop {
            let wait = self.dice.between(self.pace.0, self.pace.1);
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
            if deck.is_empty() {
                deck = DECK.to_vec();
                self.dice.shuffle(&mut deck);
            }
            self.inflict(deck.pop().unwrap_or(Fault::KillAtRandom)).await;
        }
    }

    /// Has processes die at steps until it is told to stop.
    pub(crate) async fn order_deaths(mut self, stop: CancellationToken) {
        let mut ordered: BTreeMap<Step, Order> = BTreeMap::new();
        loop {
            let wait = self.dice.between(self.pace.0, self.pace.1);
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
            self.order(&mut ordered).await;
        }
        for step in Step::ALL {
            self.fleet.spare(step).await;
        }
    }

    /// Orders the step that processes have died at least often: at one replica, and if that does not come to it for a
    /// while, at all.
    async fn order(&mut self, ordered: &mut BTreeMap<Step, Order>) {
        let kills = self.record.kills();
        let died = |step: &Step| kills.get(step.name()).copied().unwrap_or_default();
        for (step, _) in ordered.extract_if(.., |step, order| died(step) > order.died_before) {
            self.fleet.spare(step).await;
        }
        for (step, order) in ordered.iter_mut() {
            order.rounds += 1;
            if order.rounds == ROUNDS_OF_PATIENCE {
                for replica in 0..self.fleet.size() {
                    self.fleet.order(replica, *step).await;
                }
            }
        }
        if ordered.len() >= STANDING_ORDERS {
            return;
        }
        let mut steps: Vec<Step> = Step::ALL.into_iter().filter(|step| !ordered.contains_key(step)).collect();
        self.dice.shuffle(&mut steps);
        let Some(step) = steps.into_iter().min_by_key(died) else { return };
        ordered.insert(step, Order { died_before: died(&step), rounds: 0 });
        let replica = self.dice.index(self.fleet.size());
        self.fleet.order(replica, step).await;
    }

    async fn inflict(&mut self, fault: Fault) {
        let replica = self.dice.index(self.fleet.size());
        let from = clock::now();
        let short = (Duration::from_millis(1000), Duration::from_millis(3000));
        let lasts = self.dice.between(short.0, short.1);
        let what = match fault {
            Fault::KillAtRandom => {
                // One that is just starting can't be killed, and there may be one that is.
                for next in 0..self.fleet.size() {
                    if self.fleet.kill((replica + next) % self.fleet.size()).await {
                        break;
                    }
                }
                return;
            }
            Fault::Pause => {
                let lasts = self.dice.between(self.pause.0, self.pause.1);
                self.fleet.pause(replica, lasts).await;
                return;
            }
            Fault::FlushRedis => self.backing.flush_redis().await.then_some(Disturbance::RedisFlushed),
            Fault::RestartRedis => {
                self.backing.restart_redis(lasts).await.then_some(Disturbance::RedisRestarted)
            }
            Fault::PauseRedis => self.backing.pause_redis(lasts).await.then_some(Disturbance::RedisPaused),
            Fault::RestartPostgres => {
                let restarted = self.backing.restart_postgres(lasts).await;
                // A replica that was starting just then tries again; the others reconnect.
                self.fleet.wait_until_all_are_ready().await;
                restarted.then_some(Disturbance::PostgresRestarted)
            }
            Fault::ProviderHangs => {
                self.book.set_mood(Mood::Hanging);
                sleep(lasts).await;
                self.book.set_mood(Mood::Bad);
                Some(Disturbance::ProviderHung)
            }
        };
        if let Some(what) = what {
            self.record.window(what, from);
        }
    }
}
