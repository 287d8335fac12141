//! The checker: a breadth-first search of all states, so that a counterexample is a shortest one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};

use crate::action::Action;
use crate::action::Cause;
use crate::faults::Fault;
use crate::properties::{ALWAYS, SOMETIMES};
use crate::protocol::Protocol;
use crate::state::State;

/// What a search has found.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    /// Of the longest shortest path.
    pub(crate) depth: usize,
    /// All states were seen: neither the limit nor a broken property has ended the search before.
    pub(crate) complete: bool,
    /// The first broken property, and a shortest path to where it is broken.
    pub(crate) broken: Option<Broken>,
    pub(crate) reached: BTreeSet<&'static str>,
    /// How often each step and each fault was taken, as edges between states.
    pub(crate) steps: BTreeMap<&'static str, usize>,
    pub(crate) faults: BTreeMap<Fault, usize>,
}

/// A counterexample.
pub(crate) struct Broken {
    pub(crate) property: &'static str,
    /// What happened, in words: "A claimed".
    pub(crate) path: Vec<String>,
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// How a state was first reached.
struct Origin {
    from: u32,
    by: Action,
}

/// Looks at every state of a protocol, up to a number of states, until a property is broken.
pub(crate) fn search(protocol: &Protocol, limit: usize) -> Outcome {
    let fingerprint = |state: &State| BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
    let initial = State::initial(protocol.replicas, protocol.budget);
    let mut seen = HashSet::<u64, BuildHasherDefault<Already>>::default();
    seen.insert(fingerprint(&initial));
    // The initial state has number 0 and no origin; state n has origin n - 1.
    let mut origins = Vec::<Origin>::new();
    let mut outcome = Outcome {
        states: 1,
        depth: 0,
        complete: true,
        broken: None,
        reached: BTreeSet::new(),
        steps: BTreeMap::new(),
        faults: BTreeMap::new(),
    };
    let excused = |name: &str| protocol.excused.iter().any(|beginning| name.starts_with(beginning));
    let must_hold = ALWAYS.iter().filter(|property| !excused(property.name)).collect::<Vec<_>>();
    let mut level = vec![(0, initial)];
    loop {
        let mut next_level = Vec::new();
        for (number, state) in level {
            for property in SOMETIMES {
                if !outcome.reached.contains(property.name) && (property.holds)(protocol, &state) {
                    outcome.reached.insert(property.name);
                }
            }
            if let Some(property) = must_hold.iter().find(|property| !(property.holds)(protocol, &state)) {
                let path = explain(protocol, &path_to(&origins, number));
                outcome.broken = Some(Broken { property: property.name, path });
                outcome.complete = false;
                return outcome;
            }
            for action in protocol.actions(&state) {
                if let Some(step) = action.step() {
                    *outcome.steps.entry(step).or_default() += 1;
                }
                if let Cause::Fault(fault) = action.cause() {
                    *outcome.faults.entry(fault).or_default() += 1;
                }
                let (next, _) = protocol.after(&state, action);
                if seen.insert(fingerprint(&next)) {
                    origins.push(Origin { from: number, by: action });
                    next_level.push((u32::try_from(origins.len()).unwrap_or(u32::MAX), next));
                }
            }
            outcome.states = origins.len() + 1;
            if outcome.states >= limit {
                outcome.complete = false;
                return outcome;
            }
        }
        if next_level.is_empty() {
            return outcome;
        }
        outcome.depth += 1;
        level = next_level;
    }
}

fn path_to(origins: &[Origin], mut number: u32) -> Vec<Action> {
    let mut path = Vec::new();
    while let Some(index) = number.checked_sub(1) {
        let origin = &origins[index as usize];
        path.push(origin.by);
        number = origin.from;
    }
    path.reverse();
    path
}

/// Replicas change their places from state to state (see `State::canonical`); a reader wants them to keep their names.
fn explain(protocol: &Protocol, path: &[Action]) -> Vec<String> {
    let mut state = State::initial(protocol.replicas, protocol.budget);
    let mut names = ('A'..).take(protocol.replicas).collect::<Vec<_>>();
    let mut lines = Vec::new();
    for action in path {
        let who = action.replica().map_or_else(String::new, |index| format!("{} ", names[index]));
        let (next, order) = protocol.after(&state, *action);
        lines.push(format!("{who}{}", action.name()));
        names = order.into_iter().map(|former| names[former]).collect();
        state = next;
    }
    lines
}

/// One line of the table of results.
pub(crate) fn line(protocol: &Protocol, outcome: &Outcome) -> String {
    let mut line = format!("{:<62} {:>9} {:>5}  ", protocol.name, outcome.states, outcome.depth);
    let result = match &outcome.broken {
        Some(broken) => write!(line, "broken in {} steps: {}", broken.path.len(), broken.property),
        None if outcome.complete => write!(line, "holds"),
        None => write!(line, "holds as far as it was searched"),
    };
    debug_assert!(result.is_ok(), "writing to a string does not fail");
    if let Some(broken) = &outcome.broken {
        for chunk in broken.path.chunks(8) {
            line.push_str("\n    ");
            line.push_str(&chunk.join(" → "));
        }
    }
    line
}

/// The head of the table.
pub(crate) fn head() -> String {
    format!("{:<62} {:>9} {:>5}  result", "variant", "states", "depth")
}
