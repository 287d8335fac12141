//! Several replicas over a real Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use token_broker::application::error::{BrokerError, Limit};
use token_broker::application::limits::{CallClass, Limits};
use token_broker::domain::access_policy::{Action, Caller, Principal, Question, Rule};
use token_broker::domain::key::{CallerId, TenantId, UserId};
use token_broker::domain::rate_limit::{Bucket, Rate, RateLimit, SharedBuckets};
use token_broker::infra::coordination::redis::{RedisCoordination, RedisSettings};

use super::{limits, only};
use crate::contract::coordination::settings;
use crate::engines::redis::{Options, Redis, shared};
use crate::support::clock::ManualClock;

fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("limits-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn buckets(url: &str, prefix: &str) -> Arc<dyn SharedBuckets> {
    let settings = RedisSettings { key_prefix: prefix.to_owned(), ..settings(url) };
    RedisCoordination::connect(&settings).await.unwrap().buckets
}

fn principal(tenant: &str, caller: &str) -> Arc<Principal> {
    Arc::new(Principal::from(Caller::new(
        CallerId::new(caller).unwrap(),
        TenantId::new(tenant).unwrap(),
        vec![Rule::everything()],
    )))
}

/// One call as the door makes it.
async fn call(limits: &Arc<Limits>, who: &Arc<Principal>, user: &str) -> Result<(), BrokerError> {
    let user = UserId::new(user).unwrap();
    let asked = Question { user: Some(&user), ..Question::of(Action::GetCredential) };
    limits.at_the_door(&who.caller, CallClass::Tokens)?.ask_for(who, &[asked]).await
}

async fn granted(replicas: &[Arc<Limits>], who: &Arc<Principal>, user: &str, calls: u32) -> u32 {
    let mut granted = 0;
    for n in 0..calls {
        let replica = &replicas[usize::try_from(n).unwrap() % replicas.len()];
        granted += u32::from(call(replica, who, user).await.is_ok());
    }
    granted
}

/// An hour for one more call, so that no time that a test takes counts.
fn slow(calls: u64) -> Rate {
    Rate::every(Duration::from_secs(3600), calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_have_one_budget() {
    let prefix = prefix();
    let set = limits(|limits| limits.user = Some(slow(10)));
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let buckets = buckets(&shared().url(), &prefix).await;
        replicas.push(Arc::new(Limits::new(set, Arc::new(ManualClock::new()), Some(buckets))));
    }
    let agents = principal("acme", "agents");
    assert_eq!(granted(&replicas, &agents, "alice", 40).await, 10);
    let Err(BrokerError::ResourceExhausted { limit, retry_after }) =
        call(&replicas[0], &agents, "alice").await
    else {
        panic!("the budget is used up")
    };
    assert_eq!(limit, Limit::Rate(RateLimit::User));
    assert!(retry_after > Duration::from_secs(3_000), "{retry_after:?}");
    // Another user's, and another tenant's user of the same name, are budgets of their own.
    assert_eq!(granted(&replicas, &agents, "bob", 20).await, 10);
    assert_eq!(granted(&replicas, &principal("bolt", "agents"), "alice", 20).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_one_time_do_not_take_more_than_there_is() {
    let prefix = prefix();
    let acme = TenantId::new("acme").unwrap();
    let (one, other) = (buckets(&shared().url(), &prefix).await, buckets(&shared().url(), &prefix).await);
    let bucket = Bucket::new(RateLimit::Caller, slow(25), &[b"agents"]);
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let (buckets, acme) = (if n % 2 == 0 { one.clone() } else { other.clone() }, acme.clone());
            tokio::spawn(async move { buckets.take(&acme, &[bucket]).await.unwrap().is_ok() })
        })
        .collect();
    let mut granted = 0;
    for call in calls {
        granted += u32::from(call.await.unwrap());
    }
    assert_eq!(granted, 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_shared_buckets_all_give_or_none() {
    let acme = TenantId::new("acme").unwrap();
    let buckets = buckets(&shared().url(), &prefix()).await;
    let small = Bucket::new(RateLimit::User, slow(3), &[b"alice"]);
    let large = Bucket::new(RateLimit::Tenant, slow(10), &[b"acme"]);
    for _ in 0..3 {
        buckets.take(&acme, &[large, small]).await.unwrap().unwrap();
    }
    for _ in 0..20 {
        let empty = buckets.take(&acme, &[large, small]).await.unwrap().unwrap_err();
        assert_eq!(empty.limit, RateLimit::User);
    }
    for _ in 0..7 {
        buckets.take(&acme, &[large]).await.unwrap().unwrap();
    }
    assert_eq!(buckets.take(&acme, &[large]).await.unwrap().unwrap_err().limit, RateLimit::Tenant);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_of_the_whole_key() {
    let acme = TenantId::new("acme").unwrap();
    let buckets = buckets(&shared().url(), &prefix()).await;
    let keys: [&[&[u8]]; 4] = [&[b"a", b"b:c"], &[b"a:b", b"c"], &[b"a", b"b", b"c"], &[b"a:b:c"]];
    for parts in keys {
        let bucket = Bucket::new(RateLimit::User, slow(1), parts);
        buckets.take(&acme, &[bucket]).await.unwrap().unwrap();
        buckets.take(&acme, &[bucket]).await.unwrap().unwrap_err();
    }
    let bucket = Bucket::new(RateLimit::User, slow(1), keys[0]);
    buckets.take(&TenantId::new("bolt").unwrap(), &[bucket]).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_each_replica_counts_for_itself() {
    let redis = Redis::start(Options::default());
    let prefix = prefix();
    let set = limits(|limits| {
        limits.user = only(5);
        limits.caller = only(100);
    });
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let buckets = buckets(&redis.url(), &prefix).await;
        replicas.push(Arc::new(Limits::new(set, Arc::new(ManualClock::new()), Some(buckets))));
    }
    redis.kill();
    let agents = principal("acme", "agents");
    // Calls are answered, and limited: by each replica alone.
    assert_eq!(granted(&replicas[..1], &agents, "alice", 20).await, 5);
    assert_eq!(granted(&replicas[1..], &agents, "alice", 20).await, 5);
}
