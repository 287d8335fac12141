//! `[replicas]`: how many may serve.

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    /// Several replicas may serve from one database although there is no Redis.
    pub without_redis: bool,
}

pub(super) fn read(section: &Section<'_>) -> Option<Replicas> {
    let without_redis = section.required("without_redis").boolean();
    section.finish();
    Some(Replicas { without_redis: without_redis? })
}
