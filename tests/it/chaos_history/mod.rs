//! The checks of `make chaos`, each shown a good history and bad ones.

#[path = "../../chaos/history/mod.rs"]
#[allow(dead_code, reason = "the harness uses more of it than the tests")]
mod history;

mod losses;
mod reads;
mod revocation;
mod rows;

use std::collections::BTreeMap;

use history::{
    Answer, Call, Change, Check, Deed, Disturbance, End, Grant, GrantNo, History, Issued, Limits, Micros,
    Origin, Outcome, Presentation, ProviderFault, Question, Reached, Row, RowState, Rules, Run, Window,
};

const SECOND: Micros = 1_000_000;
/// The run that did everything.
const RUN: Run = Run { replica: 0, number: 1 };

/// One credential (number 0) with one grant (number 0) at a strict provider, imported at second 1, and refreshed at seconds
/// 10 and 20: the first refresh token was presented once, the second once, the third is live.
fn good() -> History {
    let issued = |parent, at| Issued { parent, at, expires: at + 15 * SECOND, spent: at < 20 * SECOND };
    let grant = Grant {
        rules: Rules::Strict,
        credential: 0,
        origin: Origin::Import,
        issues: vec![issued(None, SECOND), issued(Some(0), 10 * SECOND), issued(Some(1), 20 * SECOND)],
        end: None,
    };
    let mut history = History {
        limits: Limits {
            http_deadline: 2 * SECOND,
            dispatch_within: 2 * SECOND,
            settle: 9 * SECOND,
            read: SECOND,
        },
        grants: BTreeMap::from([(0, grant)]),
        presentations: vec![presented(0, 10, Outcome::Issued(1)), presented(1, 20, Outcome::Issued(2))],
        calls: vec![read(5, 0, 1), read(12, 1, 2), read(14, 1, 2), read(22, 2, 3)],
        changes: vec![change(Deed::Stored(0), 1)],
        reached: Vec::new(),
        windows: Vec::new(),
        rows: vec![Row {
            credential: 0,
            state: RowState::Active,
            generation: 3,
            refresh: Some((0, 2)),
            access: Some((0, 2)),
        }],
    };
    for at in [10, 20] {
        for (step, after) in [("dispatched", 0), ("answered", 60), ("journaled", 70), ("persisted", 80)] {
            history.reached.push(step_at(step, at * SECOND + after * 1000));
        }
    }
    history
}

/// A presentation of grant 0 that took 50 ms, 1 ms after the request left.
fn presented(issue: u32, second: u64, outcome: Outcome) -> Presentation {
    let began = second * SECOND + 1000;
    Presentation { grant: 0, issue, began, ended: began + 50_000, outcome, fault: None }
}

fn step_at(step: &str, at: Micros) -> Reached {
    Reached { run: RUN, at, step: step.to_owned(), credential: Some(0) }
}

/// A read by client 0 at replica 0 that took 5 ms.
fn read(second: u64, issue: u32, generation: i64) -> Call {
    let invoked = second * SECOND;
    Call {
        client: 0,
        replica: 0,
        credential: 0,
        question: Question::Read,
        invoked,
        returned: invoked + 5000,
        answer: Answer::Token { grant: 0, issue, generation },
    }
}

/// Done in 10 ms.
fn change(deed: Deed, second: u64) -> Change {
    let invoked = second * SECOND;
    Change { credential: 0, deed, replica: 0, invoked, returned: invoked + 10_000, done: true }
}

fn window(what: Disturbance, from: Micros, to: Micros) -> Window {
    Window { what, from, to }
}

fn breaks(history: &History) -> Vec<Check> {
    Check::ALL.into_iter().filter(|check| !check.run(history).is_empty()).collect()
}

#[test]
fn a_good_history_passes_every_check() {
    for check in Check::ALL {
        assert_eq!(check.run(&good()), [], "{check:?}");
    }
}
