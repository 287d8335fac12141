//! `[limits]`: who may ask how often.

use std::time::Duration;

use super::reader::Section;
use crate::domain::rate_limit::{Rate, RateLimits};

pub(super) fn read(section: &Section<'_>) -> Option<RateLimits> {
    let rate = |key: &str| section.required(key).integer(0..=1_000_000);
    let (tenant, caller, user) = (rate("tenant"), rate("caller"), rate("user"));
    let (consents, lists, changes) = (rate("consents"), rate("lists"), rate("changes"));
    let (strangers, pages) = (rate("strangers"), rate("pages"));
    let burst = section.required("burst").duration(Duration::from_secs(1)..=Duration::from_secs(3600));
    section.finish();
    let burst = burst?;
    let of = |per_second: Option<u32>| Some(Rate::new(per_second?, burst));
    Some(RateLimits {
        tenant: of(tenant)?,
        caller: of(caller)?,
        user: of(user)?,
        consents: of(consents)?,
        lists: of(lists)?,
        changes: of(changes)?,
        strangers: of(strangers)?,
        pages: of(pages)?,
    })
}
