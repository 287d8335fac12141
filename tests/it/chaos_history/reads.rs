//! H4 and H6: what one client sees, and how long a read of a valid token takes.

use super::{Answer, Check, Deed, Disturbance, Question, RUN, SECOND, breaks, change, good, read, window};

#[test]
fn h4_an_older_generation_from_another_replica_is_found() {
    let mut history = good();
    let mut late = read(23, 1, 2);
    late.replica = 1;
    history.calls.push(late.clone());
    assert_eq!(breaks(&history), [Check::H4]);
    // Another client may be late: the network is.
    late.client = 1;
    *history.calls.last_mut().unwrap() = late;
    assert_eq!(breaks(&history), []);
}

#[test]
fn h4_a_refresh_that_answers_the_old_token_is_found() {
    let mut history = good();
    history.calls[2].question = Question::Refresh(2);
    assert_eq!(breaks(&history), [Check::H4]);
    history.calls[2].question = Question::Refresh(1);
    assert_eq!(breaks(&history), []);
}

#[test]
fn h6_a_slow_read_of_a_valid_token_is_found() {
    let mut history = good();
    history.calls[2].returned += 2 * SECOND;
    assert_eq!(breaks(&history), [Check::H6]);
}

#[test]
fn h6_a_refusal_while_the_token_is_valid_is_found() {
    let mut history = good();
    history.calls[2].answer = Answer::Failed("OUTCOME_UNKNOWN");
    assert_eq!(breaks(&history), [Check::H6]);
}

#[test]
fn h6_a_provider_or_a_redis_that_is_away_is_no_excuse() {
    let mut history = good();
    history.calls[2].answer = Answer::Failed("OUTCOME_UNKNOWN");
    for what in [Disturbance::ProviderHung, Disturbance::RedisPaused, Disturbance::RedisRestarted] {
        history.windows = vec![window(what, 13 * SECOND, 15 * SECOND)];
        assert_eq!(breaks(&history), [Check::H6], "{what:?}");
    }
}

#[test]
fn h6_a_replica_or_a_database_that_is_away_is_one() {
    let mut history = good();
    history.calls[2].answer = Answer::Failed("connection lost");
    for what in [Disturbance::Killed(RUN), Disturbance::Paused(RUN), Disturbance::PostgresRestarted] {
        history.windows = vec![window(what, 13 * SECOND, 15 * SECOND)];
        assert_eq!(breaks(&history), [], "{what:?}");
    }
    let other = super::Run { replica: 1, number: 1 };
    history.windows = vec![window(Disturbance::Killed(other), 13 * SECOND, 15 * SECOND)];
    assert_eq!(breaks(&history), [Check::H6]);
}

#[test]
fn h6_a_token_that_runs_out_is_worth_a_wait() {
    let mut history = good();
    // The token that everybody knew ended at 25.
    history.calls.push(read(33, 2, 3));
    history.calls[4].returned += 4 * SECOND;
    assert_eq!(breaks(&history), []);
}

#[test]
fn h6_a_credential_that_was_changed_meanwhile_does_not_count() {
    let mut history = good();
    history.calls[2].answer = Answer::Reauthorize;
    history.calls[2].returned += 2 * SECOND;
    history.changes.push(change(Deed::Stored(7), 13));
    assert_eq!(Check::H6.run(&history), []);
}
