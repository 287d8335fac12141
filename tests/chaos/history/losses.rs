//! H5: a grant that was ended because a spent refresh token came back is a loss. Each must have its own fault inside its
//! own window: between the provider's rotation and the first durable copy of the new pair.

use super::{Disturbance, Reached, Row, RowState, ms};
use super::{
    End, Grant, GrantNo, History, Issue, Micros, Outcome, Presentation, ProviderFault, Replica, Run,
};

/// What kept the new pair from being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The provider withheld the answer, or gave it when the caller's time was up.
    Provider(ProviderFault),
    /// The process that had asked was killed before it had a durable copy.
    Killed(Run),
    /// It had a copy in Redis alone when it was killed, and Redis lost that.
    KilledAndRedisLost(Run),
    /// It was stopped with the request under way until its time was up.
    Paused(Run),
    /// It was killed with a copy in its journal alone, and none of the runs after it had the time to replay that before the
    /// outcome was settled.
    JournalAway(Run),
}

/// Where the holder of a journal, Postgres and Redis were left alone for so long, the journal has been replayed.
const REPLAYS_WITHIN: Micros = 3_000_000;

impl Cause {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Provider(fault) => format!("provider: {}", fault.name()),
            Self::Killed(_) => "kill -9 before a durable copy".to_owned(),
            Self::KilledAndRedisLost(_) => "kill -9 with a copy in Redis alone, and Redis lost it".to_owned(),
            Self::JournalAway(_) => {
                "kill -9 again and again, and the journal away for longer than the settling time".to_owned()
            }
            Self::Paused(_) => "paused with the request under way".to_owned(),
        }
    }
}

/// A grant that a second presentation ended, or will end: its refresh token is spent, and what came of it is gone.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub(crate) grant: GrantNo,
    pub(crate) issue: Issue,
    pub(crate) at: Micros,
    /// `None`: the broker's own doing.
    pub(crate) cause: Option<Cause>,
}

/// All of them.
pub(crate) fn losses(history: &History) -> Vec<Loss> {
    let ended = history.grants.iter().filter_map(|(number, grant)| match grant.end {
        Some((at, End::Reuse(issue))) => Some((*number, grant, issue, at)),
        _ => None,
    });
    let mut losses: Vec<Loss> = ended
        .map(|(number, grant, issue, at)| {
            let cause = cause(history, number, grant, issue, at);
            Loss { grant: number, issue, at, cause }
        })
        .collect();
    losses.extend(history.rows.iter().filter_map(|row| not_found_out(history, row)));
    losses
}

/// A loss that the broker does not know of yet: the last chance has met a provider that would not look at the token.
pub(super) fn not_found_out(history: &History, row: &Row) -> Option<Loss> {
    let (number, issue) = row.refresh.filter(|_| row.state == RowState::Active)?;
    let grant = history.grants.get(&number).filter(|grant| grant.end.is_none() && !grant.is_live(issue))?;
    let cause = cause(history, number, grant, issue, Micros::MAX)?;
    Some(Loss { grant: number, issue, at: Micros::MAX, cause: Some(cause) })
}

pub(super) fn check(history: &History) -> Vec<String> {
    losses(history)
        .into_iter()
        .filter(|loss| loss.cause.is_none())
        .map(|loss| {
            let Loss { grant, issue, at, .. } = loss;
            let credential = history.grants[&grant].credential;
            format!(
                "grant {grant} of credential {credential} was ended at {} by refresh token {issue}, without a fault",
                ms(at)
            )
        })
        .collect()
}

/// What became of the answer to the presentation that had spent this token. Where there are several (a grace period), the
/// last one counts: until then each was as good as the first.
fn cause(history: &History, number: GrantNo, grant: &Grant, issue: Issue, at: Micros) -> Option<Cause> {
    let spending = history
        .presentations
        .iter()
        .filter(|p| p.grant == number && p.issue == issue && p.began < at)
        .filter(|p| matches!(p.outcome, Outcome::Issued(_)))
        .max_by_key(|p| p.began)?;
    if let Some(fault) = withheld(spending, history.limits.http_deadline) {
        return Some(Cause::Provider(fault));
    }
    let run = asker(history, grant, spending)?;
    let (dispatched, run) = (run.at, run.run);
    let copied = |step: &str| {
        let by_it = |r: &&Reached| r.run == run && r.credential == Some(grant.credential) && r.step == step;
        history.reached.iter().filter(by_it).map(|r| r.at).filter(|t| *t >= dispatched).min()
    };
    let latest = dispatched + history.limits.dispatch_within + history.limits.http_deadline;
    let window = |what: Disturbance| {
        history.windows.iter().find(|w| w.what == what && w.to >= dispatched && w.from <= latest)
    };
    if copied("persisted").is_some() {
        return None;
    }
    let killed = window(Disturbance::Killed(run));
    let redis_lost_it = |copy: Micros| {
        history.windows.iter().any(|w| {
            matches!(w.what, Disturbance::RedisFlushed | Disturbance::RedisRestarted)
                && w.to >= copy
                && w.from <= at
        })
    };
    if let Some(copy) = copied("journaled") {
        let away = killed.is_some()
            && copied("successor_copied").is_none_or(redis_lost_it)
            && at >= dispatched.saturating_add(history.limits.settle)
            && !had_time_to_replay(history, run.replica, copy, at);
        return away.then_some(Cause::JournalAway(run));
    }
    match (copied("successor_copied"), killed) {
        (None, Some(_)) => return Some(Cause::Killed(run)),
        (Some(copy), Some(_)) => return redis_lost_it(copy).then_some(Cause::KilledAndRedisLost(run)),
        (Some(_), None) => return None,
        (None, None) => {}
    }
    window(Disturbance::Paused(run)).map(|_| Cause::Paused(run))
}

/// Whether a replica and the servers were left alone for long enough between these times.
fn had_time_to_replay(history: &History, replica: Replica, from: Micros, to: Micros) -> bool {
    let mut disturbed: Vec<_> = history
        .windows
        .iter()
        .filter(|w| match w.what {
            Disturbance::Killed(run) | Disturbance::Paused(run) => run.replica == replica,
            Disturbance::RedisRestarted | Disturbance::RedisPaused | Disturbance::PostgresRestarted => true,
            Disturbance::RedisFlushed | Disturbance::ProviderHung => false,
        })
        .filter(|w| w.to >= from && w.from <= to)
        .map(|w| (w.from, w.to))
        .chain([(to, to)])
        .collect();
    disturbed.sort_unstable();
    let mut quiet_since = from;
    disturbed.into_iter().any(|(began, ended)| {
        let quiet = began.saturating_sub(quiet_since) >= REPLAYS_WITHIN;
        quiet_since = quiet_since.max(ended);
        quiet
    })
}

/// The provider's fault that kept the answer from the caller.
fn withheld(presentation: &Presentation, deadline: Micros) -> Option<ProviderFault> {
    match presentation.fault? {
        fault @ (ProviderFault::LostAnswer | ProviderFault::ResetAfter) => Some(fault),
        // The caller's clock began before the request arrived here, so a little less than the deadline is too late too.
        fault @ (ProviderFault::Slow | ProviderFault::Hang)
            if presentation.ended - presentation.began + deadline / 10 >= deadline =>
        {
            Some(fault)
        }
        _ => None,
    }
}

/// The dispatch that became this presentation: the last one for the credential before the request was read.
fn asker<'a>(history: &'a History, grant: &Grant, presentation: &Presentation) -> Option<&'a Reached> {
    history
        .reached
        .iter()
        .filter(|r| r.credential == Some(grant.credential) && r.step == "dispatched")
        .filter(|r| r.at <= presentation.began)
        .max_by_key(|r| r.at)
}
