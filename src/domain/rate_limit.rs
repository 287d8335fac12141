//! Rate limits: the generic cell rate algorithm. A bucket is one number, the time at which it will be full again; a call moves
//! that time by the rate's interval, and is refused if it would lie further ahead than the burst. Pure: `now` is a parameter,
//! in microseconds of whoever keeps the bucket.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::coordination::CoordinationError;
use super::key::{TenantId, append_length_prefixed};

/// So many calls a second in the long run, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two calls, in microseconds.
    interval: u64,
    /// How far ahead calls may be, in microseconds. At least the interval.
    burst: u64,
}

impl Rate {
    /// `per_second` calls, at most 1,000,000; a bucket holds what comes together in `burst`, and one call at least. `None`: 0
    /// calls a second, which stands for no limit.
    #[must_use]
    pub fn new(per_second: u32, burst: Duration) -> Option<Self> {
        let interval = 1_000_000_u64.checked_div(u64::from(per_second))?.max(1);
        let burst = u64::try_from(burst.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        Some(Self { interval, burst: burst.max(interval) })
    }

    /// One call in every `interval`, and `burst` calls at once after a rest; one at least.
    #[must_use]
    pub fn every(interval: Duration, burst: u64) -> Self {
        let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::MAX >> 16);
        Self { interval, burst: interval.saturating_mul(burst.max(1)).min(u64::MAX / 4) }
    }

    /// Microseconds between two calls.
    #[must_use]
    pub fn interval(self) -> u64 {
        self.interval
    }

    /// Microseconds that calls may be ahead.
    #[must_use]
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// One call at `now` from a bucket that will be full at `full_at`. The new time, or how long to wait.
    pub fn take(self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let next = full_at.max(now).saturating_add(self.interval);
        let ahead = next - now;
        if ahead > self.burst { Err(Duration::from_micros(ahead - self.burst)) } else { Ok(next) }
    }
}

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateLimit {
    /// All calls of a tenant.
    Tenant,
    /// All calls of a caller.
    Caller,
    /// Calls of a caller that begin consents.
    Consents,
    /// Calls of a caller that read lists.
    Lists,
    /// Calls of a caller that change something.
    Changes,
    /// All calls for a user.
    User,
    /// Calls from an address whose caller could not be identified.
    Strangers,
    /// Pages for an address.
    Pages,
}

impl RateLimit {
    /// As callers, logs and metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Caller => "caller",
            Self::Consents => "consents",
            Self::Lists => "lists",
            Self::Changes => "changes",
            Self::User => "user",
            Self::Strangers => "strangers",
            Self::Pages => "pages",
        }
    }
}

/// A bucket's name: a hash of the limit and of every part, with lengths, so that no two share a bucket.
pub type BucketKey = [u8; 32];

/// One bucket that a call takes from.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Whose rule.
    pub limit: RateLimit,
    /// Which.
    pub key: BucketKey,
    /// How much.
    pub rate: Rate,
}

impl Bucket {
    /// Of these parts.
    #[must_use]
    pub fn new(limit: RateLimit, rate: Rate, parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        append_length_prefixed(&mut bytes, limit.name().as_bytes());
        for part in parts {
            append_length_prefixed(&mut bytes, part);
        }
        Self { limit, key: Sha256::digest(&bytes).into(), rate }
    }
}

/// A bucket is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty {
    /// Which.
    pub limit: RateLimit,
    /// When there will be enough for one call.
    pub retry_after: Duration,
}

/// Buckets that replicas share. Contract: `tests/it/limits`.
#[async_trait]
pub trait SharedBuckets: Send + Sync {
    /// One call from all of these buckets of a tenant, or from none. The inner error: one is empty.
    async fn take(
        &self,
        tenant: &TenantId,
        buckets: &[Bucket],
    ) -> Result<Result<(), Empty>, CoordinationError>;
}

/// Buckets of this process. Full ones take no memory; beyond `most`, others are forgotten, which makes them full.
#[derive(Debug)]
pub struct LocalBuckets {
    most: usize,
    full_at: Mutex<HashMap<BucketKey, u64>>,
}

impl LocalBuckets {
    /// At most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(16), full_at: Mutex::default() }
    }

    /// One call from all of these buckets, or from none. `now` in microseconds of a clock that never goes back.
    pub fn take(&self, now: u64, buckets: &[Bucket]) -> Result<(), Empty> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let before = full_at.get(&bucket.key).copied().unwrap_or_default();
            let taken = bucket.rate.take(before, now);
            next.push(taken.map_err(|retry_after| Empty { limit: bucket.limit, retry_after })?);
        }
        if full_at.len() + buckets.len() > self.most {
            full_at.retain(|_, at| *at > now);
            let surplus = (full_at.len() + buckets.len()).saturating_sub(self.most);
            if surplus > 0 {
                // Some are forgotten, in batches, so that it does not happen with every call.
                let gone: Vec<_> = full_at.keys().take(surplus + self.most / 16).copied().collect();
                for key in gone {
                    full_at.remove(&key);
                }
            }
        }
        full_at.extend(buckets.iter().map(|bucket| bucket.key).zip(next));
        Ok(())
    }

    /// Whether there is one call in a bucket, which is not taken.
    pub fn look(&self, now: u64, bucket: &Bucket) -> Result<(), Empty> {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let before = full_at.get(&bucket.key).copied().unwrap_or_default();
        let taken = bucket.rate.take(before, now);
        taken.map(|_| ()).map_err(|retry_after| Empty { limit: bucket.limit, retry_after })
    }

    /// How many are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The limits that there are; `None`: there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimits {
    /// All calls of a tenant.
    pub tenant: Option<Rate>,
    /// All calls of a caller.
    pub caller: Option<Rate>,
    /// All calls for a user, by whichever caller.
    pub user: Option<Rate>,
    /// A caller's calls that begin or end consents.
    pub consents: Option<Rate>,
    /// A caller's calls that read lists.
    pub lists: Option<Rate>,
    /// A caller's calls that change something.
    pub changes: Option<Rate>,
    /// An address' calls whose caller could not be identified.
    pub strangers: Option<Rate>,
    /// An address' pages.
    pub pages: Option<Rate>,
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber has.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// A network of addresses, as `10.0.0.0/8` or `2001:db8::/32`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl std::str::FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be an address or a network, as \"10.0.0.0/8\" or \"2001:db8::/32\"";
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = |bits: &str| !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) if digits(bits) => bits.parse().map_err(|_| WRONG)?,
            Some(_) => return Err(WRONG),
        };
        if bits > most {
            return Err(WRONG);
        }
        let network = Self { address, bits };
        if network.masked(address) != Self::bits_of(address) {
            return Err("has bits set behind its prefix: write the network's own address");
        }
        Ok(network)
    }
}

impl Network {
    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.masked(self.address)
    }

    /// From the highest bit on.
    fn bits_of(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
        Self::bits_of(address) & mask
    }
}

#[cfg(test)]
mod tests;
