//! H5: every grant that was ended by a spent token has its own fault inside its own window.

use super::history::{Cause, losses};
use super::{
    Check, Disturbance, End, GrantNo, History, Outcome, ProviderFault, RUN, RowState, Run, SECOND, breaks,
    good, presented, step_at, window,
};

/// The second refresh token, presented at second 20, came back at second 30.
fn lost() -> History {
    let mut history = good();
    history.presentations.push(presented(1, 30, Outcome::Reuse));
    history.grants.get_mut(&0).unwrap().end = Some((30 * SECOND + 2000, End::Reuse(1)));
    history.rows[0].state = RowState::NeedsReauth;
    let row = &mut history.rows[0];
    (row.refresh, row.access, row.generation) = (Some((0, 1)), Some((0, 1)), 2);
    history.calls.pop();
    history.reached.retain(|reached| reached.at < 20 * SECOND || reached.step == "dispatched");
    history
}

fn cause(history: &History) -> Option<String> {
    let found: Vec<(GrantNo, _)> = losses(history).into_iter().map(|loss| (loss.grant, loss.cause)).collect();
    assert_eq!(found.len(), 1);
    found[0].1.map(Cause::name)
}

#[test]
fn h5_a_second_presentation_without_a_fault_is_found() {
    assert_eq!(breaks(&lost()), [Check::H5]);
}

#[test]
fn h5_an_answer_that_the_provider_withheld_is_a_window_loss() {
    for fault in [ProviderFault::LostAnswer, ProviderFault::ResetAfter] {
        let mut history = lost();
        history.presentations[1].fault = Some(fault);
        assert_eq!(breaks(&history), []);
        assert!(cause(&history).unwrap().contains(fault.name()));
    }
}

#[test]
fn h5_an_answer_after_the_deadline_is_one_and_a_slow_one_is_not() {
    let mut history = lost();
    history.presentations[1].fault = Some(ProviderFault::Hang);
    assert_eq!(breaks(&history), [Check::H5]);
    history.presentations[1].ended += 2 * SECOND;
    assert_eq!(breaks(&history), []);
}

#[test]
fn h5_the_fault_of_another_presentation_does_not_count() {
    let mut history = lost();
    history.presentations[0].fault = Some(ProviderFault::LostAnswer);
    assert_eq!(breaks(&history), [Check::H5]);
    let mut other = presented(1, 18, Outcome::Untouched);
    other.fault = Some(ProviderFault::LostRequest);
    history.presentations.push(other);
    assert_eq!(breaks(&history), [Check::H5]);
}

#[test]
fn h5_a_kill_before_a_durable_copy_is_a_window_loss() {
    let mut history = lost();
    history.windows.push(window(Disturbance::Killed(RUN), 20 * SECOND + 60_000, 22 * SECOND));
    assert_eq!(breaks(&history), []);
    assert_eq!(cause(&history).unwrap(), "kill -9 before a durable copy");
    // The journal had it: the broker has lost it itself.
    history.reached.push(step_at("journaled", 20 * SECOND + 55_000));
    assert_eq!(breaks(&history), [Check::H5]);
}

#[test]
fn h5_a_kill_elsewhere_or_at_another_time_does_not_count() {
    let other = Run { replica: 1, number: 1 };
    let before = (15 * SECOND, 16 * SECOND);
    let after = (26 * SECOND, 27 * SECOND);
    for (run, (from, to)) in [(other, (20 * SECOND + 60_000, 22 * SECOND)), (RUN, before), (RUN, after)] {
        let mut history = lost();
        history.windows.push(window(Disturbance::Killed(run), from, to));
        assert_eq!(breaks(&history), [Check::H5], "{run:?} {from}");
    }
}

#[test]
fn h5_a_copy_in_redis_alone_is_lost_only_with_redis() {
    let mut history = lost();
    history.reached.push(step_at("successor_copied", 20 * SECOND + 58_000));
    history.windows.push(window(Disturbance::Killed(RUN), 20 * SECOND + 60_000, 22 * SECOND));
    assert_eq!(breaks(&history), [Check::H5]);
    history.windows.push(window(Disturbance::RedisFlushed, 25 * SECOND, 25 * SECOND));
    assert_eq!(breaks(&history), []);
    history.windows[1].from = 35 * SECOND;
    history.windows[1].to = 35 * SECOND;
    assert_eq!(breaks(&history), [Check::H5]);
}

#[test]
fn h5_a_grant_that_the_user_revoked_is_no_loss() {
    let mut history = lost();
    history.grants.get_mut(&0).unwrap().end = Some((30 * SECOND, End::Revoked));
    assert!(losses(&history).is_empty());
}

#[test]
fn h5_a_process_that_was_stopped_with_the_request_under_way_is_told_apart() {
    let mut history = lost();
    history.windows.push(window(Disturbance::Paused(RUN), 20 * SECOND + 500, 24 * SECOND));
    assert_eq!(breaks(&history), []);
    assert_eq!(cause(&history).unwrap(), "paused with the request under way");
    history.windows[0].to = 19 * SECOND;
    history.windows[0].from = 18 * SECOND;
    assert_eq!(breaks(&history), [Check::H5]);
}

#[test]
fn h5_h7_a_loss_that_nobody_has_found_out_yet_is_a_loss_inside_its_window() {
    let mut history = lost();
    history.presentations.pop();
    history.grants.get_mut(&0).unwrap().end = None;
    history.rows[0].state = RowState::Active;
    assert_eq!(breaks(&history), [Check::H7]);
    history.windows.push(window(Disturbance::Killed(RUN), 20 * SECOND + 60_000, 22 * SECOND));
    assert_eq!(breaks(&history), []);
    assert_eq!(cause(&history).unwrap(), "kill -9 before a durable copy");
    // A row that was given up must have heard it from the provider.
    history.rows[0].state = RowState::NeedsReauth;
    assert_eq!(breaks(&history), [Check::H7]);
}

/// The second refresh token's successor was in the journal when its process was killed.
fn journaled() -> History {
    let mut history = lost();
    history.reached.push(step_at("journaled", 20 * SECOND + 70_000));
    history.windows.push(window(Disturbance::Killed(RUN), 20 * SECOND + 71_000, 22 * SECOND));
    history
}

/// A later run of the same replica was killed.
fn killed_again(history: &mut History, number: u32, from: u64) {
    let run = Run { number, ..RUN };
    history.windows.push(window(Disturbance::Killed(run), from * SECOND, (from + 1) * SECOND));
}

#[test]
fn h5_a_journal_that_was_away_until_it_was_settled_is_told_apart() {
    let mut history = journaled();
    assert_eq!(breaks(&history), [Check::H5], "eight seconds are enough for a replay");
    killed_again(&mut history, 2, 24);
    assert_eq!(breaks(&history), [Check::H5], "five are, too");
    killed_again(&mut history, 3, 27);
    assert_eq!(breaks(&history), []);
    assert!(cause(&history).unwrap().contains("the journal away"));
    // Its pair comes into the row when nothing helps any more.
    let row = &mut history.rows[0];
    (row.state, row.refresh) = (RowState::Active, Some((0, 2)));
    assert_eq!(breaks(&history), []);
}

#[test]
fn h5_a_journal_that_was_away_is_none_before_the_settling_time_or_beside_a_copy_in_redis() {
    let away = || {
        let mut history = journaled();
        killed_again(&mut history, 2, 24);
        killed_again(&mut history, 3, 27);
        history
    };
    let mut early = away();
    early.grants.get_mut(&0).unwrap().end = Some((28 * SECOND, End::Reuse(1)));
    assert_eq!(breaks(&early), [Check::H5]);
    let mut in_redis = away();
    in_redis.reached.push(step_at("successor_copied", 20 * SECOND + 65_000));
    assert_eq!(breaks(&in_redis), [Check::H5]);
    in_redis.windows.push(window(Disturbance::RedisRestarted, 25 * SECOND, 26 * SECOND));
    assert_eq!(breaks(&in_redis), []);
    let mut others = journaled();
    for from in [24, 27] {
        let other = Run { replica: 1, number: 2 };
        others.windows.push(window(Disturbance::Killed(other), from * SECOND, (from + 1) * SECOND));
    }
    assert_eq!(breaks(&others), [Check::H5], "another replica's deaths are of no account");
}
