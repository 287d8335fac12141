//! Rate limits: by tenant, caller, user and kind of call, shared by replicas; by address for strangers and pages.

mod calls;
mod pages;
mod shared;

use std::time::Duration;

use token_broker::domain::rate_limit::{Rate, RateLimits};

/// So many calls at once, and then none for as long as a test takes.
fn only(calls: u32) -> Option<Rate> {
    Rate::new(1, Duration::from_secs(u64::from(calls)))
}

fn limits(set: impl FnOnce(&mut RateLimits)) -> RateLimits {
    let mut settings = RateLimits::default();
    set(&mut settings);
    settings
}
