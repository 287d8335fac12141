//! H1, H2, H7: presentations, lineage, rest.

use super::{
    Answer, Check, Disturbance, End, Issued, Outcome, RUN, RowState, Rules, SECOND, breaks, good, presented,
    read, window,
};

#[test]
fn h1_overlapping_presentations_of_one_token_are_found() {
    let mut history = good();
    let mut again = presented(1, 20, Outcome::Untouched);
    again.began += 10_000;
    again.ended += 10_000;
    history.presentations.push(again);
    assert_eq!(breaks(&history), [Check::H1]);
}

#[test]
fn h1_a_later_presentation_inside_a_long_one_is_found_behind_a_short_one() {
    let mut history = good();
    history.presentations[1].ended += 10 * SECOND;
    for second in [22, 24] {
        history.presentations.push(presented(1, second, Outcome::Untouched));
    }
    assert_eq!(Check::H1.run(&history).len(), 2);
}

#[test]
fn h1_a_second_presentation_behind_the_first_is_no_overlap() {
    let mut history = good();
    history.presentations.push(presented(1, 29, Outcome::Untouched));
    assert_eq!(breaks(&history), []);
}

#[test]
fn h1_a_token_that_stays_good_may_be_presented_at_any_time() {
    let mut history = good();
    history.presentations.push(presented(1, 20, Outcome::Untouched));
    assert_eq!(breaks(&history), [Check::H1]);
    history.grants.get_mut(&0).unwrap().rules = Rules::Steady;
    assert_eq!(breaks(&history), []);
}

#[test]
fn h2_two_pairs_of_one_generation_are_found() {
    let mut history = good();
    history.calls.push(read(23, 1, 3));
    assert_eq!(breaks(&history), [Check::H2]);
}

#[test]
fn h2_a_pair_of_another_branch_is_found() {
    let mut history = good();
    // The third pair descends from the first; the second had been stored between.
    history.grants.get_mut(&0).unwrap().issues[2].parent = Some(0);
    assert_eq!(breaks(&history), [Check::H2]);
}

#[test]
fn h2_a_step_that_nobody_saw_stored_is_no_break() {
    let mut history = good();
    history.calls.retain(|call| !matches!(call.answer, Answer::Token { issue: 1, .. }));
    assert_eq!(breaks(&history), []);
}

#[test]
fn h2_tokens_of_another_credential_or_of_nobody_are_found() {
    let mut history = good();
    for call in &mut history.calls {
        call.credential = 1;
    }
    assert_eq!(breaks(&history), [Check::H2]);
    history = good();
    history.calls[0].answer = Answer::Token { grant: 9, issue: 0, generation: 1 };
    assert_eq!(breaks(&history), [Check::H2]);
}

#[test]
fn h7_a_spent_token_in_a_row_is_found() {
    let mut history = good();
    let row = &mut history.rows[0];
    (row.refresh, row.access, row.generation) = (Some((0, 1)), Some((0, 1)), 2);
    history.calls.pop();
    assert_eq!(breaks(&history), [Check::H7]);
}

#[test]
fn h7_an_active_row_of_a_dead_grant_is_found() {
    let mut history = good();
    history.grants.get_mut(&0).unwrap().end = Some((25 * SECOND, End::Revoked));
    assert_eq!(breaks(&history), [Check::H7]);
    history.rows[0].state = RowState::NeedsReauth;
    assert_eq!(breaks(&history), []);
}

#[test]
fn h7_a_row_given_up_while_its_grant_is_alive_is_found() {
    let mut history = good();
    history.rows[0].state = RowState::NeedsReauth;
    assert_eq!(breaks(&history), [Check::H7]);
}

#[test]
fn h7_what_is_half_done_is_found() {
    let mut history = good();
    history.rows[0].state = RowState::Refreshing;
    assert_eq!(breaks(&history), [Check::H7]);
    history.rows.clear();
    assert_eq!(breaks(&history), [Check::H7]);
}

#[test]
fn h7_either_child_of_a_grace_period_is_live() {
    let mut history = good();
    let grant = history.grants.get_mut(&0).unwrap();
    grant.rules = Rules::Grace(30 * SECOND);
    // The second pair's answer was lost; presented again, its parent gave the third.
    grant.issues[2].parent = Some(0);
    grant.issues[1].spent = false;
    grant.issues.push(Issued { parent: Some(2), at: 30 * SECOND, expires: 45 * SECOND, spent: false });
    history.calls.retain(|call| matches!(call.answer, Answer::Token { issue: 0, .. }));
    history.windows.push(window(Disturbance::Killed(RUN), 10 * SECOND, 11 * SECOND));
    assert_eq!(breaks(&history), []);
}
