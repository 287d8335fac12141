//! `[shutdown]`: the end.

use std::time::Duration;

use super::oauth::OAuth;
use super::reader::Section;
use super::values::show_duration;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// How long `NOT_SERVING` is told before new connections are refused.
    pub announce: Duration,
    /// How long work under way may take to end.
    pub drain: Duration,
}

pub(super) fn read(section: &Section<'_>, oauth: Option<&OAuth>) -> Option<Shutdown> {
    let announce = section.required("announce").duration(Duration::ZERO..=Duration::from_secs(60));
    let key = section.required("drain");
    let drain = key.duration(Duration::from_secs(1)..=Duration::from_mins(10));
    if let (Some(drain), Some(oauth)) = (drain, oauth)
        && drain <= oauth.request_timeout
    {
        let timeout = show_duration(oauth.request_timeout);
        // A refresh that is cut off leaves a token whose fate is unknown.
        key.problem(format!("must be longer than oauth.request_timeout ({timeout})"));
    }
    section.finish();
    Some(Shutdown { announce: announce?, drain: drain? })
}
