//! H6: a read of a token that is known to be valid does not wait, whatever becomes of the provider, of Redis or of the
//! refresh that runs behind it.

use std::collections::BTreeMap;

use super::{Answer, Call, CredentialNo, Deed, Disturbance, History, Micros, Question, ms};

/// How much longer a token has to live for a read not to have to refresh it, beside the broker's own margin of a tenth.
const MARGIN: Micros = 1_000_000;

/// A pair that somebody had been given: from then on it, or a later one, is in the row.
struct Known {
    since: Micros,
    until: Micros,
}

/// The reads that may not wait: some client had been given a token of the same credential that is valid until after the
/// read, the credential was not changed from outside, and neither the replica nor the database was down.
pub(crate) fn known_valid(history: &History) -> Vec<&Call> {
    let mut known: BTreeMap<CredentialNo, Vec<Known>> = BTreeMap::new();
    for call in &history.calls {
        let Answer::Token { grant, issue, .. } = call.answer else { continue };
        let Some(issued) = history.grants.get(&grant).and_then(|g| g.issues.get(issue as usize)) else {
            continue;
        };
        let margin = issued.expires.saturating_sub(issued.at) / 10 + MARGIN;
        let until = issued.expires.saturating_sub(margin);
        known.entry(call.credential).or_default().push(Known { since: call.returned, until });
    }
    let mut changes: BTreeMap<CredentialNo, Vec<(Micros, Micros)>> = BTreeMap::new();
    for change in &history.changes {
        // A revocation, or the end of a grant, takes the token away; only a new consent gives another.
        let _: Deed = change.deed;
        changes.entry(change.credential).or_default().push((change.invoked, change.returned));
    }
    let reads = history.calls.iter().filter(|call| call.question == Question::Read);
    reads
        .filter(|call| {
            let at_it = changes.get(&call.credential).map_or(&[][..], Vec::as_slice);
            let untouched_since =
                |since: Micros| at_it.iter().all(|(from, to)| *to < since || *from > call.returned);
            let known = known.get(&call.credential).map_or(&[][..], Vec::as_slice);
            known.iter().any(|k| {
                k.since <= call.invoked
                    && k.until >= call.invoked + history.limits.read
                    && untouched_since(k.since)
            })
        })
        .filter(|call| {
            !history.windows.iter().any(|window| hinders(window.what, call) && overlaps(window, call))
        })
        .collect()
}

/// Whether a read at this replica is made impossible.
fn hinders(what: Disturbance, call: &Call) -> bool {
    match what {
        Disturbance::Killed(run) | Disturbance::Paused(run) => run.replica == call.replica,
        Disturbance::PostgresRestarted => true,
        Disturbance::RedisFlushed
        | Disturbance::RedisRestarted
        | Disturbance::RedisPaused
        | Disturbance::ProviderHung => false,
    }
}

fn overlaps(window: &super::Window, call: &Call) -> bool {
    window.from <= call.returned && call.invoked <= window.to
}

pub(super) fn check(history: &History) -> Vec<String> {
    known_valid(history)
        .into_iter()
        .filter_map(|call| {
            let took = call.returned - call.invoked;
            let Call { credential, replica, .. } = call;
            match call.answer {
                Answer::Failed(status) => Some(format!(
                    "a read of credential {credential} at replica {replica} failed with {status} after {}, its token valid",
                    ms(took)
                )),
                Answer::Token { .. } if took > history.limits.read => Some(format!(
                    "a read of credential {credential} at replica {replica} took {}, its token valid",
                    ms(took)
                )),
                // A grant that was ended meanwhile.
                Answer::Token { .. } | Answer::Reauthorize => None,
            }
        })
        .collect()
}
