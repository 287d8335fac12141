//! `[refresh]`: how the provider treats refresh tokens.

use std::time::Duration;

use super::super::reader::{Report, Section};
use super::values;
use crate::domain::provider::{RefreshRules, Rotation, TimingLimits};
use crate::domain::token_set::EXPIRY_MARGIN;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Strict,
    Grace,
}

/// `[refresh]`
pub(super) fn refresh(report: &mut Report<'_>, root: &mut Section<'_, '_>) -> RefreshRules {
    let mut section = root.section(report, "refresh");
    let kinds = [("none", Kind::None), ("strict", Kind::Strict), ("grace", Kind::Grace)];
    // Unknown is strict: presenting a token too seldom costs a consent at worst, too often may end the grant.
    let kind = section.word(report, "rotation", &kinds).map_or(Kind::Strict, |kind| kind.value);
    let has_grace = section.has("grace");
    let grace = values::duration(report, &mut section, "grace");
    if let Some(grace) = grace.as_ref().filter(|_| kind != Kind::Grace) {
        report.at(grace, "belongs to rotation = \"grace\"");
    }
    if kind == Kind::Grace && !has_grace {
        section.missing(report, "grace", "how long a used refresh token may be presented again");
    }
    let kills_access = section.flag(report, "kills_access").unwrap_or(false);
    let idle_limit = values::duration(report, &mut section, "idle_limit");
    if let Some(limit) = idle_limit.as_ref().filter(|limit| limit.value < Duration::from_hours(1)) {
        report.at(limit, "must be an hour at least");
    }
    let expiry_margin = values::duration(report, &mut section, "expiry_margin");
    if let Some(margin) = expiry_margin.as_ref().filter(|margin| margin.value > Duration::from_hours(1)) {
        report.at(margin, "must be an hour at most");
    }
    section.finish(report);
    let rules = RefreshRules {
        rotation: match (kind, &grace) {
            (Kind::None, _) => Rotation::None,
            (Kind::Grace, Some(grace)) => Rotation::Grace(grace.value),
            (Kind::Strict | Kind::Grace, _) => Rotation::Strict,
        },
        kills_access,
        idle_limit: idle_limit.map(|limit| limit.value),
        expiry_margin: expiry_margin.map_or(EXPIRY_MARGIN, |margin| margin.value),
    };
    if let Some(grace) = grace.filter(|_| rules.timings(&TimingLimits::default()).is_none()) {
        report.at(&grace, "is too short for a second presentation to be in time; use rotation = \"strict\"");
    }
    rules
}
