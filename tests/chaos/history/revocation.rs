//! H3: no read that was invoked after Revoke's acknowledgement gives out a token of a grant that was stored before, and at
//! rest no such grant is alive at the provider. Beside that, no grant is alive at rest that no row knows.

use std::collections::BTreeMap;

use super::{Answer, Change, CredentialNo, Deed, Disturbance, GrantNo, History, Micros, Origin, ms};

/// How long an exchange may go on when the browser has given up.
const AFTER_THE_BROWSER: Micros = 20_000_000;

/// A grant that a Revoke ended, and when that was acknowledged.
fn revoked(history: &History) -> BTreeMap<GrantNo, Micros> {
    let mut of: BTreeMap<CredentialNo, Vec<&Change>> = BTreeMap::new();
    for change in &history.changes {
        of.entry(change.credential).or_default().push(change);
    }
    let mut revoked = BTreeMap::new();
    for changes in of.values() {
        for stored in changes.iter().filter(|change| change.done) {
            let Deed::Stored(grant) = stored.deed else { continue };
            let ack = changes
                .iter()
                .filter(|c| c.deed == Deed::Revoked && c.done && c.invoked >= stored.returned)
                .map(|c| c.returned)
                .min();
            if let Some(ack) = ack {
                revoked.insert(grant, ack);
            }
        }
    }
    revoked
}

pub(super) fn check(history: &History) -> Vec<String> {
    let revoked = revoked(history);
    let mut found = Vec::new();
    for call in &history.calls {
        let Answer::Token { grant, generation, .. } = call.answer else { continue };
        if let Some(ack) = revoked.get(&grant).filter(|ack| call.invoked > **ack) {
            found.push(format!(
                "credential {} was revoked at {}; a call of {} to replica {} got generation {generation} of that grant",
                call.credential,
                ms(*ack),
                ms(call.invoked),
                call.replica
            ));
        }
    }
    if !history.rows.is_empty() {
        found.extend(history.grants.keys().filter_map(|grant| orphan(history, &revoked, *grant)));
    }
    found
}

/// Why a grant that is alive at rest should not be.
fn orphan(history: &History, revoked: &BTreeMap<GrantNo, Micros>, number: GrantNo) -> Option<String> {
    let grant = &history.grants[&number];
    let in_a_row = |row: &super::Row| row.refresh.is_some_and(|(grant, _)| grant == number);
    if grant.end.is_some() || history.rows.iter().any(in_a_row) {
        return None;
    }
    let credential = grant.credential;
    let superseded = superseded(history, number);
    if let Some(ack) = revoked.get(&number).filter(|_| !superseded) {
        return Some(format!("credential {credential} was revoked at {}, grant {number} is alive", ms(*ack)));
    }
    let stored = history.changes.iter().find(|c| c.deed == Deed::Stored(number) && c.done);
    let excused = match (stored, grant.origin) {
        (Some(_), _) => superseded,
        // The broker never said that it had it.
        (None, Origin::Import) => true,
        // The code was exchanged by a process that died before it could store what it got: there is no earlier token, so
        // nothing can be done.
        (None, Origin::Consent) => consent_was_killed(history, number),
    };
    (!excused).then(|| format!("grant {number} of credential {credential} is alive and in no row"))
}

/// Whether a later consent or import has taken the grant's place, before any Revoke: a provider usually gives the same grant
/// again, so that ending the old one would end the new one too.
fn superseded(history: &History, number: GrantNo) -> bool {
    let of = |c: &&Change| c.credential == history.grants[&number].credential;
    let stored = history.changes.iter().find(|c| c.deed == Deed::Stored(number));
    let next = |after: Micros| history.changes.iter().filter(of).filter(move |c| c.invoked >= after);
    stored
        .and_then(|stored| next(stored.returned).min_by_key(|c| c.invoked))
        .is_some_and(|next| matches!(next.deed, Deed::Stored(_)))
}

/// Whether the replica that was to exchange the code was killed before it had stored the grant: the code, or the answer, was
/// under way.
fn consent_was_killed(history: &History, number: GrantNo) -> bool {
    history.changes.iter().filter(|c| c.deed == Deed::Stored(number)).any(|change| {
        history.windows.iter().any(|window| {
            matches!(window.what, Disturbance::Killed(run) if run.replica == change.replica)
                && (change.invoked..=change.returned + AFTER_THE_BROWSER).contains(&window.from)
        })
    })
}
