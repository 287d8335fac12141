//! WatchCredentials: follows the events that the caller may see, by its rights at the time of each.
//!
//! The rows are the truth. A watch reads them page by page behind its position; between pages it waits for a word that
//! there are new ones, and looks every few seconds without one. It reads only when it is asked for the next message, so a
//! reader that is slow costs one page of memory, and nothing is queued for it.
//!
//! Who watches is asked again every so often, events or none: a caller that is gone, disabled or allowed no longer loses its
//! stream as soon as it would lose its calls, and what was read before is shown by the rights of now.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::Broker;
use super::error::{BrokerError, Limit, Precondition, Violation};
use super::identified::Identified;
use super::target::permit;
use super::types::{EventView, WatchInput, WatchMessage};
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::coordination::Wake;
use crate::domain::event::{CURSOR_LIFETIME, Event, EventPosition, EventQuery};
use crate::domain::key::{CallerId, ServiceId, TenantId, UserId};

/// How watches run.
#[derive(Debug, Clone, Copy)]
pub struct WatchSettings {
    /// Of one caller at this replica, at a time.
    pub per_caller: usize,
    /// How often a watch looks for events without a word. Give or take a quarter, so that many do not look at once.
    pub poll: Duration,
    /// How often a watch without events says where it is.
    pub progress: Duration,
    /// How old the rights may be that a watch goes by, beside what the directory of callers remembers.
    pub recheck: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            per_caller: 64,
            poll: Duration::from_secs(2),
            progress: Duration::from_secs(30),
            recheck: Duration::from_millis(2_500),
        }
    }
}

/// How many events are read at a time.
const PAGE: u32 = 64;
/// The first pause after a word that led to nothing: the event may be behind another transaction that is still open.
/// Doubles up to the ordinary pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// When to come back if there are too many watches.
const RETRY: Duration = Duration::from_secs(10);

/// How many watches each caller has.
#[derive(Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<(TenantId, CallerId), usize>>>);

/// One of them. Counts until it is dropped.
struct Slot {
    watchers: Watchers,
    caller: (TenantId, CallerId),
}

impl Watchers {
    fn enter(&self, principal: &Principal, most: usize) -> Option<Slot> {
        let caller = (principal.tenant().clone(), principal.id().clone());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        metrics::gauge!("token_broker_watches").increment(1.0);
        Some(Slot { watchers: self.clone(), caller })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
        metrics::gauge!("token_broker_watches").decrement(1.0);
    }
}

/// A caller that follows events.
pub struct Watch {
    broker: Arc<Broker>,
    principal: Arc<Principal>,
    identified: Identified,
    /// When the principal was asked for, on the clock that does not go back.
    renewed_at: Duration,
    /// Whom the caller asked for.
    asked: Option<UserId>,
    /// Whose events are read.
    user: Option<UserId>,
    position: EventPosition,
    /// What comes behind the position is not much older than this.
    as_of: Timestamp,
    /// Read and not told yet.
    ready: VecDeque<WatchMessage>,
    /// When to say where it is.
    progress_at: Instant,
    /// The word has come, and its event has not been found yet: how long until the next look.
    searching: Option<Duration>,
    _slot: Slot,
}

impl WatchInput {
    /// What the policy has to allow.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        question(self.user.as_ref())
    }
}

impl Broker {
    /// Begins to follow. What is wrong with the call is said here; later only the database can fail.
    pub async fn watch_credentials(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
        identified: Identified,
        input: WatchInput,
    ) -> Result<Watch, BrokerError> {
        // It was identified a moment ago.
        let renewed_at = self.ports.clock.monotonic();
        permit(principal, &input.question())?;
        let cursor = match &input.cursor {
            None => None,
            Some(text) => Some(Cursor::parse(text).ok_or_else(|| {
                BrokerError::InvalidArgument(vec![Violation::new(
                    "cursor",
                    "The cursor must be the `cursor` of a message of WatchCredentials.",
                )])
            })?),
        };
        let limit = self.settings.watches.per_caller;
        let slot = self
            .watchers
            .enter(principal, limit)
            .ok_or(BrokerError::ResourceExhausted { limit: Limit::Watches, retry_after: RETRY })?;
        let now = self.ports.clock.now();
        let (position, as_of) = match cursor {
            None => (self.ports.events.newest_position().await?, now),
            Some(cursor) => {
                if cursor.is_old(now) || !self.ports.events.may_follow(cursor.position).await? {
                    return Err(BrokerError::FailedPrecondition(Precondition::CursorExpired));
                }
                (cursor.position, cursor.as_of)
            }
        };
        Ok(Watch {
            broker: Arc::clone(self),
            principal: Arc::clone(principal),
            identified,
            renewed_at,
            user: narrowed(principal, input.user.as_ref()),
            asked: input.user,
            position,
            as_of,
            ready: VecDeque::new(),
            // The first message comes at once: from its cursor on nothing is missed, whatever is listed after it.
            progress_at: Instant::now(),
            searching: None,
            _slot: slot,
        })
    }
}

impl Watch {
    /// The next message. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<WatchMessage, BrokerError> {
        loop {
            self.renew().await?;
            while let Some(message) = self.ready.pop_front() {
                // Rights may have been narrowed since it was read.
                if message.event.as_ref().is_none_or(|view| self.may_see(&view.event, &view.services)) {
                    return Ok(message);
                }
            }
            if Instant::now() >= self.progress_at {
                return Ok(self.progress());
            }
            // From before the look on, so that what is stored behind it is heard.
            let word = self.broker.ports.wakeups.listen(&Wake::Events(self.principal.tenant().clone()));
            if self.look().await? {
                self.searching = None;
                continue;
            }
            match self.searching {
                None => {
                    let pause = self.jittered(self.broker.settings.watches.poll);
                    let until = self.progress_at.min(Instant::now() + pause);
                    tokio::select! {
                        () = word => self.searching = Some(FIRST_PAUSE),
                        waited = self.wait(until) => waited?,
                    }
                }
                Some(pause) => {
                    tokio::time::sleep(pause).await;
                    let next = pause * 2;
                    self.searching = (next < self.broker.settings.watches.poll).then_some(next);
                }
            }
        }
    }

    /// Waits, and asks meanwhile who it is that waits.
    async fn wait(&mut self, until: Instant) -> Result<(), BrokerError> {
        while Instant::now() < until {
            let left = self.broker.settings.watches.recheck.saturating_sub(self.age());
            tokio::time::sleep_until(until.min(Instant::now() + left)).await;
            self.renew().await?;
        }
        Ok(())
    }

    /// How old the rights are.
    fn age(&self) -> Duration {
        self.broker.ports.clock.monotonic().saturating_sub(self.renewed_at)
    }

    /// Asks again who watches, if that is due: what it may see now, or that it may not watch any more.
    async fn renew(&mut self) -> Result<(), BrokerError> {
        if self.age() < self.broker.settings.watches.recheck {
            return Ok(());
        }
        let renewed_at = self.broker.ports.clock.monotonic();
        let principal = self.identified.renewed(&self.principal).await?;
        permit(&principal, &question(self.asked.as_ref()))?;
        self.user = narrowed(&principal, self.asked.as_ref());
        (self.principal, self.renewed_at) = (principal, renewed_at);
        Ok(())
    }

    /// Reads a page. False: there was nothing behind the position.
    async fn look(&mut self) -> Result<bool, BrokerError> {
        let read_at = self.broker.ports.clock.now();
        let query = EventQuery {
            tenant: self.principal.tenant().clone(),
            user: self.user.clone(),
            after: self.position,
            limit: PAGE,
        };
        let page = self.broker.ports.events.events_after(query).await?;
        let found = !page.events.is_empty();
        let full = page.events.len() >= PAGE as usize;
        // Of a full page, the rest may be as old as its last event.
        let last = page.events.last().map(|event| event.told.at).filter(|_| full);
        self.position = page.reached;
        self.as_of = last.map_or(read_at, |at| at.min(read_at)).max(self.as_of);
        for event in page.events {
            // The one place that decides what a caller sees.
            let services = self.broker.services_of(&event.told.key).await?;
            if self.may_see(&event, &services) {
                self.ready.push_back(message(event, services, read_at));
            }
        }
        if !self.ready.is_empty() {
            self.progress_at = Instant::now() + self.broker.settings.watches.progress;
        }
        Ok(found)
    }

    fn may_see(&self, event: &Event, services: &BTreeSet<ServiceId>) -> bool {
        let key = &event.told.key;
        key.tenant == *self.principal.tenant()
            && self.principal.sees(Action::WatchCredentials, &key.provider, services, &key.user)
            && self.user.as_ref().is_none_or(|user| *user == key.user)
    }

    fn progress(&mut self) -> WatchMessage {
        self.progress_at = Instant::now() + self.jittered(self.broker.settings.watches.progress);
        let cursor = Cursor { position: self.position, as_of: self.as_of };
        WatchMessage { cursor: cursor.encode(), event: None }
    }

    fn jittered(&self, pause: Duration) -> Duration {
        let [random] = self.broker.random::<1>();
        pause * 3 / 4 + pause * u32::from(random) / 510
    }
}

fn question(user: Option<&UserId>) -> Question<'_> {
    Question { user, ..Question::of(Action::WatchCredentials) }
}

/// The one user whose events are read. A caller with one user alone need not read past the others' events.
fn narrowed(principal: &Principal, asked: Option<&UserId>) -> Option<UserId> {
    let only = || principal.reach(Action::WatchCredentials).users.and_then(|users| users.narrowed().0);
    asked.cloned().or_else(only)
}

fn message(event: Event, services: BTreeSet<ServiceId>, read_at: Timestamp) -> WatchMessage {
    metrics::counter!("token_broker_watch_events_total").increment(1);
    let cursor = Cursor { position: event.position, as_of: event.told.at.min(read_at) };
    WatchMessage { cursor: cursor.encode(), event: Some(EventView { event, services }) }
}

/// Where a reader is. Not a secret and no authority: what it is shown depends on its rights alone.
pub(super) struct Cursor {
    position: EventPosition,
    /// Events behind the position are not much older.
    as_of: Timestamp,
}

const CURSOR_VERSION: u8 = 1;
const CURSOR_BYTES: usize = 1 + 3 * 8;

impl Cursor {
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![CURSOR_VERSION];
        let numbers = [self.position.transaction, self.position.sequence, self.as_of.as_microsecond()];
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; CURSOR_BYTES] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (version, numbers) = bytes.split_first()?;
        let mut numbers = numbers.chunks_exact(8).filter_map(|n| n.try_into().ok()).map(i64::from_be_bytes);
        let position = EventPosition { transaction: numbers.next()?, sequence: numbers.next()? };
        let as_of = Timestamp::from_microsecond(numbers.next()?).ok()?;
        let valid = *version == CURSOR_VERSION && position.transaction >= 0 && position.sequence >= 0;
        valid.then_some(Self { position, as_of })
    }

    /// Whether something that came behind it may have been deleted.
    fn is_old(&self, now: Timestamp) -> bool {
        let lifetime = SignedDuration::try_from(CURSOR_LIFETIME).unwrap_or(SignedDuration::MAX);
        now.duration_since(self.as_of) > lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn cursors_go_there_and_back_and_nothing_else_is_one() {
        let position = EventPosition { transaction: 7, sequence: i64::MAX };
        let text = Cursor { position, as_of: at(1_800_000_000) }.encode();
        let parsed = Cursor::parse(&text).unwrap();
        assert_eq!((parsed.position, parsed.as_of), (position, at(1_800_000_000)));
        let negative = EventPosition { transaction: -1, sequence: 0 };
        let negative = Cursor { position: negative, as_of: at(0) }.encode();
        let other_version = text.replacen('A', "B", 1);
        for bad in
            ["", "x", &text[1..], &format!("{text}AAAA"), &format!("{text}="), &negative, &other_version]
        {
            assert!(Cursor::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn cursors_work_for_seven_days() {
        let cursor = Cursor { position: EventPosition::default(), as_of: at(1_000) };
        let week = 7 * 24 * 3600;
        assert!(!cursor.is_old(at(1_000 + week)));
        assert!(cursor.is_old(at(1_001 + week)));
    }
}
