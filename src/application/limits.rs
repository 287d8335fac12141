//! Who may ask how often. A limit is asked before any work is done; what is under way (a refresh, the exchange of a code) never
//! asks again, so that no limit can lose a token.
//!
//! Replicas share their buckets in Redis: one script for all buckets of a call. Each replica has buckets of its own as well, of
//! the same size: they bound what calls cost that can't be read, and they are what is left while Redis is away. Then each
//! replica grants the full limits, so that all together grant as many times as much as there are replicas.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{BrokerError, Limit};
use super::metrics;
use crate::domain::access_policy::{Caller, Principal, Question};
use crate::domain::key::UserId;
use crate::domain::ports::Clock;
use crate::domain::rate_limit::{
    Bucket, Empty, LocalBuckets, Rate, RateLimit, RateLimits, SharedBuckets, client_network,
};

/// How many buckets a process remembers; each takes about a hundred bytes.
const BUCKETS: usize = 100_000;

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallClass {
    /// It asks for a token: limited with all calls, and by nothing else.
    Tokens,
    /// It begins or ends a consent.
    Consents,
    /// It reads a list or a state.
    Lists,
    /// It changes something.
    Changes,
}

/// See the module.
pub struct Limits {
    settings: RateLimits,
    clock: Option<Arc<dyn Clock>>,
    local: LocalBuckets,
    shared: Option<Arc<dyn SharedBuckets>>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Limits {
    /// By the settings; `shared`: with other replicas.
    #[must_use]
    pub fn new(settings: RateLimits, clock: Arc<dyn Clock>, shared: Option<Arc<dyn SharedBuckets>>) -> Self {
        Self { settings, clock: Some(clock), local: LocalBuckets::new(BUCKETS), shared }
    }

    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self { settings: RateLimits::default(), clock: None, local: LocalBuckets::new(0), shared: None }
    }

    fn now(&self) -> u64 {
        let now = self.clock.as_ref().map(|clock| clock.monotonic()).unwrap_or_default();
        // Not zero: a bucket that is full since ever would not differ from one that is full now.
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A call that has come in, before it is read. Its caller is known, and nothing else: not whether it may do anything.
    pub fn at_the_door(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        class: CallClass,
    ) -> Result<Admission, BrokerError> {
        self.local.take(self.now(), &self.of_caller(caller, class)).map_err(refused)?;
        Ok(Admission {
            limits: Arc::clone(self),
            caller: Arc::clone(caller),
            class,
            asked: Arc::new(AtomicBool::new(false)),
        })
    }

    /// A call from this address whose caller could not be identified.
    pub fn stranger(&self, address: Option<IpAddr>) -> Result<(), BrokerError> {
        self.take(of_address(RateLimit::Strangers, self.settings.strangers, address, b"call"))
    }

    /// Somebody at this address wants to be identified, which costs a signature or a look into the database. Only failures
    /// count: this asks whether there have been too many. Whoever is `remembered` costs nothing, and is no stranger.
    pub fn may_try(
        &self,
        address: Option<IpAddr>,
        remembered: impl FnOnce() -> bool,
    ) -> Result<(), BrokerError> {
        let bucket = of_address(RateLimit::Strangers, self.settings.strangers, address, b"call");
        match bucket.map_or(Ok(()), |bucket| self.local.look(self.now(), &bucket)) {
            Err(empty) if !remembered() => Err(refused(empty)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether there have not been too many handshakes from this address that failed. They have a bucket of their own: whoever
    /// floods the door keeps nobody at its address from coming in.
    pub fn may_shake_hands(&self, address: Option<IpAddr>) -> Result<(), BrokerError> {
        let bucket = self.of_handshakes(address);
        bucket.map_or(Ok(()), |bucket| self.local.look(self.now(), &bucket)).map_err(refused)
    }

    /// One did.
    pub fn handshake_failed(&self, address: Option<IpAddr>) {
        // It has its answer; only the next one can be refused.
        let _ = self.take(self.of_handshakes(address));
    }

    fn of_handshakes(&self, address: Option<IpAddr>) -> Option<Bucket> {
        of_address(RateLimit::Strangers, self.settings.strangers, address, b"tls")
    }

    /// A page for this address.
    pub fn page(&self, address: Option<IpAddr>) -> Result<(), BrokerError> {
        self.take(of_address(RateLimit::Pages, self.settings.pages, address, b"page"))
    }

    fn take(&self, bucket: Option<Bucket>) -> Result<(), BrokerError> {
        self.local.take(self.now(), bucket.as_slice()).map_err(refused)
    }

    fn of_caller(&self, caller: &Caller, class: CallClass) -> Vec<Bucket> {
        let (tenant, caller) = (caller.tenant.as_str().as_bytes(), caller.id.as_str().as_bytes());
        let RateLimits { consents, lists, changes, .. } = self.settings;
        let class = match class {
            CallClass::Tokens => None,
            CallClass::Consents => consents.map(|rate| (RateLimit::Consents, rate)),
            CallClass::Lists => lists.map(|rate| (RateLimit::Lists, rate)),
            CallClass::Changes => changes.map(|rate| (RateLimit::Changes, rate)),
        };
        let of_tenant = self.settings.tenant.map(|rate| Bucket::new(RateLimit::Tenant, rate, &[tenant]));
        let of_caller =
            self.settings.caller.map(|rate| Bucket::new(RateLimit::Caller, rate, &[tenant, caller]));
        let of_class = class.map(|(limit, rate)| Bucket::new(limit, rate, &[tenant, caller]));
        [of_class, of_caller, of_tenant].into_iter().flatten().collect()
    }

    fn of_user(&self, caller: &Caller, user: Option<&UserId>) -> Option<Bucket> {
        let parts = [caller.tenant.as_str().as_bytes(), user?.as_str().as_bytes()];
        Some(Bucket::new(RateLimit::User, self.settings.user?, &parts))
    }

    /// All of a call's buckets; the caller's own have been asked here already.
    async fn whole_call(
        &self,
        caller: &Caller,
        class: CallClass,
        user: Option<&UserId>,
    ) -> Result<(), BrokerError> {
        let of_user = self.of_user(caller, user);
        if let Some(shared) = &self.shared {
            // The first empty one is the one that is told.
            let mut buckets = self.of_caller(caller, class);
            buckets.extend(of_user);
            if buckets.is_empty() {
                return Ok(());
            }
            match shared.take(&caller.tenant, &buckets).await {
                Ok(taken) => return taken.map_err(refused),
                // Its absence is told by metric and log of its own.
                Err(_away) => metrics::limits_alone(),
            }
        }
        self.local.take(self.now(), of_user.as_slice()).map_err(refused)
    }
}

/// A call that has passed the door.
#[derive(Clone)]
pub struct Admission {
    limits: Arc<Limits>,
    caller: Arc<Caller>,
    class: CallClass,
    asked: Arc<AtomicBool>,
}

impl Admission {
    /// Asks all limits of a call that is for no user, once, before any work for it is done.
    pub async fn ask(&self) -> Result<(), BrokerError> {
        self.ask_all(None).await
    }

    /// The same of a call that is for the user whom these questions are about. The user's own limit is asked only if the
    /// policy allows all of them: whoever may not ask for a user uses up nothing of theirs, and does not learn that they are
    /// in use. Such a call goes on to its use case, which refuses it.
    pub async fn ask_for(&self, principal: &Principal, asked: &[Question<'_>]) -> Result<(), BrokerError> {
        let user = asked.iter().find_map(|question| question.user);
        let permitted = || asked.iter().all(|question| principal.decide(question).is_allowed());
        self.ask_all(user.filter(|_| permitted())).await
    }

    async fn ask_all(&self, user: Option<&UserId>) -> Result<(), BrokerError> {
        self.asked.store(true, Ordering::Relaxed);
        self.limits.whole_call(&self.caller, self.class, user).await
    }

    /// The call is over. One that could not be read counts as well.
    pub async fn end(self) {
        if !self.asked.load(Ordering::Relaxed) && self.limits.shared.is_some() {
            // It has its answer; only the next one can be refused.
            let _ = self.limits.whole_call(&self.caller, self.class, None).await;
        }
    }
}

/// An address has a bucket of its own for each of its doings; those that are not known share one.
fn of_address(limit: RateLimit, rate: Option<Rate>, address: Option<IpAddr>, what: &[u8]) -> Option<Bucket> {
    let rate = rate?;
    let client = address.map(client_network).map_or_else(String::new, |network| network.to_string());
    Some(Bucket::new(limit, rate, &[client.as_bytes(), what]))
}

fn refused(Empty { limit, retry_after }: Empty) -> BrokerError {
    metrics::rate_limited(limit);
    BrokerError::ResourceExhausted { limit: Limit::Rate(limit), retry_after }
}
