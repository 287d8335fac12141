//! The rate limits of many replicas: a string for each bucket that is not full, with the time at which it will be, in
//! microseconds of Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::keys::Keys;
use super::link::Link;
use super::script::Script;
use crate::domain::coordination::CoordinationError;
use crate::domain::key::TenantId;
use crate::domain::rate_limit::{Bucket, Empty, SharedBuckets};

/// Buckets in Redis.
pub(super) struct RedisBuckets {
    link: Arc<Link>,
    keys: Keys,
    take: Script,
}

impl RedisBuckets {
    pub(super) fn new(link: Arc<Link>, keys: Keys) -> Self {
        Self { link, keys, take: Script::new(include_str!("scripts/take_buckets.lua")) }
    }
}

#[async_trait]
impl SharedBuckets for RedisBuckets {
    async fn take(
        &self,
        tenant: &TenantId,
        buckets: &[Bucket],
    ) -> Result<Result<(), Empty>, CoordinationError> {
        let keys: Vec<_> = buckets.iter().map(|bucket| self.keys.bucket(tenant, &bucket.key)).collect();
        let numbers: Vec<_> = buckets
            .iter()
            .flat_map(|bucket| [bucket.rate.interval(), bucket.rate.burst()])
            .map(|number| number.to_string())
            .collect();
        let arguments: Vec<_> = numbers.iter().map(String::as_bytes).collect();
        let empty: Option<(usize, u64)> =
            self.link.script("take_buckets", &self.take.call(&keys, &arguments)).await?;
        let Some((number, wait)) = empty else { return Ok(Ok(())) };
        let bucket = number.checked_sub(1).and_then(|index| buckets.get(index));
        let bucket = bucket.ok_or(CoordinationError::Corrupt("the number of a bucket"))?;
        Ok(Err(Empty { limit: bucket.limit, retry_after: Duration::from_micros(wait) }))
    }
}
