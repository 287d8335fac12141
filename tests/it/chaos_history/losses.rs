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
