//! What the contracts of permits, leases and wake-ups run on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use token_broker::domain::coordination::{LeaseStore, PermitStore, Wakeups};
use token_broker::infra::coordination::local::{LocalLeases, LocalPermits, LocalWakeups};
use token_broker::infra::coordination::redis::{RedisCoordination, RedisSettings, RedisTls};

use crate::engines::redis::shared;
use crate::support::clock::ManualClock;

/// The ports of one store that is empty at first.
#[derive(Clone)]
pub(crate) struct Coordination {
    pub(crate) permits: Arc<dyn PermitStore>,
    pub(crate) leases: Arc<dyn LeaseStore>,
    pub(crate) wakeups: Arc<dyn Wakeups>,
    time: Time,
}

#[derive(Clone)]
enum Time {
    Clock(Arc<ManualClock>),
    /// Nobody moves the clock of Redis. What has this prefix is made older instead.
    Prefix(String),
}

/// Makes what is stored under a prefix older: lives, permits, leases and caps.
const AGE: &str = r"
    local by = tonumber(ARGV[2])
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do
        local life = redis.call('PTTL', key)
        if redis.call('TYPE', key).ok == 'zset' then
            local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
            for i = 1, #all, 2 do
                redis.call('ZADD', key, string.format('%.0f', tonumber(all[i + 1]) - by), all[i])
            end
        else
            local value = redis.call('GET', key)
            local owner, since = string.match(value, '^P|(%x+)|(%d+)$')
            if owner then
                redis.call('SET', key, string.format('P|%s|%.0f', owner, tonumber(since) - by * 1000), 'KEEPTTL')
            elseif string.match(key, ':cap$') then
                redis.call('SET', key, string.format('%.0f', tonumber(value) - by), 'KEEPTTL')
            end
        end
        if life <= by then redis.call('DEL', key) else redis.call('PEXPIRE', key, life - by) end
    end";

impl Coordination {
    /// Time goes by.
    pub(crate) fn pass(&self, by: Duration) {
        match &self.time {
            Time::Clock(clock) => clock.advance(by),
            Time::Prefix(prefix) => {
                shared().command::<()>(&["EVAL", AGE, "0", prefix, &by.as_millis().to_string()]);
            }
        }
    }
}

/// In memory.
pub(crate) async fn local() -> Coordination {
    let clock = Arc::new(ManualClock::new());
    Coordination {
        permits: Arc::new(LocalPermits::new(clock.clone())),
        leases: Arc::new(LocalLeases::new(clock.clone())),
        wakeups: Arc::new(LocalWakeups::default()),
        time: Time::Clock(clock),
    }
}

/// A prefix of its own in the Redis of all tests.
pub(crate) async fn redis() -> Coordination {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("contract-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let settings = RedisSettings { key_prefix: prefix.clone(), ..settings(&shared().url()) };
    let RedisCoordination { permits, leases, wakeups, buckets: _ } =
        RedisCoordination::connect(&settings).await.unwrap();
    Coordination { permits, leases, wakeups, time: Time::Prefix(prefix) }
}

/// Without login and with a time-out that a busy machine keeps.
pub(crate) fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: url.to_owned(),
        login: None,
        sentinel_login: None,
        tls: RedisTls::default(),
        key_prefix: "tb".to_owned(),
        response_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
    }
}

/// What a moment of real time may take away or add.
const MOMENT: Duration = Duration::from_secs(10);

/// What is left of this is this, or hardly less.
pub(crate) fn hardly_less(actual: Duration, expected: Duration) -> bool {
    actual <= expected && actual + MOMENT > expected
}

/// So old, or hardly older.
pub(crate) fn hardly_more(actual: Duration, expected: Duration) -> bool {
    hardly_less(expected, actual)
}

/// Runs each case on every implementation.
macro_rules! on_all {
    ($($case:ident),+ $(,)?) => {
        $crate::contract::coordination::on_all!(@on local: $($case),+);
        $crate::contract::coordination::on_all!(@on redis: $($case),+);
    };
    (@on $store:ident: $($case:ident),+) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::contract::coordination::$store().await).await;
                }
            )+
        }
    };
}
pub(crate) use on_all;
