//! H3: nothing after Revoke's acknowledgement, no orphan grant.

use super::{
    Check, Deed, Disturbance, End, History, Origin, RUN, RowState, SECOND, breaks, change, good, read, window,
};

/// Revoked at second 30, with everything that belongs to it.
fn revoked() -> History {
    let mut history = good();
    history.changes.push(change(Deed::Revoked, 30));
    history.grants.get_mut(&0).unwrap().end = Some((30 * SECOND + 5000, End::Revoked));
    let row = &mut history.rows[0];
    (row.state, row.refresh, row.access) = (RowState::Revoked, None, None);
    history
}

#[test]
fn h3_a_revocation_in_order_passes() {
    assert_eq!(breaks(&revoked()), []);
}

#[test]
fn h3_a_token_after_the_ack_is_found() {
    let mut history = revoked();
    history.calls.push(read(31, 2, 3));
    assert_eq!(breaks(&history), [Check::H3]);
    // Invoked before it, answered after it.
    let late = history.calls.last_mut().unwrap();
    (late.invoked, late.returned) = (29 * SECOND, 31 * SECOND);
    assert_eq!(breaks(&history), []);
}

#[test]
fn h3_a_grant_that_outlives_its_revocation_is_found() {
    let mut history = revoked();
    history.grants.get_mut(&0).unwrap().end = None;
    assert_eq!(breaks(&history), [Check::H3]);
    // Nobody acknowledged it.
    history.changes[1].done = false;
    history.rows[0].refresh = Some((0, 2));
    assert_eq!(breaks(&history), []);
}

#[test]
fn h3_tokens_of_a_later_consent_are_good() {
    let mut history = revoked();
    let mut again = history.grants[&0].clone();
    again.end = None;
    history.grants.insert(1, again);
    history.changes.push(change(Deed::Stored(1), 32));
    let mut after = read(33, 2, 4);
    after.answer = super::Answer::Token { grant: 1, issue: 2, generation: 4 };
    history.calls.push(after);
    let row = &mut history.rows[0];
    (row.state, row.refresh, row.access, row.generation) = (RowState::Active, Some((1, 2)), Some((1, 2)), 4);
    assert_eq!(breaks(&history), []);
}

#[test]
fn h3_a_grant_that_a_later_consent_replaced_may_live_on() {
    let mut history = good();
    let old = history.grants[&0].clone();
    history.grants.insert(1, old);
    history.changes.insert(0, change(Deed::Stored(1), 0));
    assert_eq!(breaks(&history), []);
}

#[test]
fn h3_a_consent_that_is_in_no_row_is_found_unless_its_process_was_killed() {
    let mut history = good();
    let mut lost = history.grants[&0].clone();
    lost.origin = Origin::Consent;
    lost.issues.truncate(1);
    lost.issues[0].at = 40 * SECOND;
    history.grants.insert(1, lost);
    let mut tried = change(Deed::Stored(1), 39);
    (tried.returned, tried.done) = (41 * SECOND, false);
    history.changes.push(tried);
    assert_eq!(breaks(&history), [Check::H3]);
    history.windows.push(window(Disturbance::Killed(RUN), 40 * SECOND + 10, 42 * SECOND));
    assert_eq!(breaks(&history), []);
    history.grants.get_mut(&1).unwrap().origin = Origin::Import;
    history.windows.clear();
    assert_eq!(breaks(&history), [], "the broker never said that it had it");
}
