//! An explicit-state model of the refresh protocol: every state that crashes, pauses, lost messages, failovers and users can
//! bring about, within a budget of each, is looked at. Start at `protocol.rs` (what is built, and what may be left out), then
//! `refresh.rs` and `revoke.rs` (the steps), `faults.rs` (what goes wrong) and `properties.rs` (what must hold).
//! `docs/REFRESH_MODEL.md` has results.

mod action;
mod apply;
mod check;
mod enabled;
mod faults;
mod properties;
mod protocol;
mod refresh;
mod revoke;
mod state;
mod step_names;

use std::collections::BTreeSet;

use check::{Outcome, head, line, search};
use faults::{Budget, Fault};
use properties::SOMETIMES;
use protocol::{Guard, Protocol, Provider};
use step_names::STEP_NAMES;

/// No run in `make test` may be larger.
const BOUNDED: usize = 3_000_000;
/// Nor one in `make model`.
const FULL: usize = 60_000_000;

/// What may go wrong together in `make test`.
const TOGETHER: &[&[Fault]] = &[
    &[Fault::Crash, Fault::Revoke],
    &[Fault::Revoke, Fault::Consent],
    &[Fault::Crash, Fault::Network, Fault::Consent],
    &[Fault::LockLoss, Fault::Pause, Fault::Network],
    &[Fault::NotSent, Fault::RedisUnreachable, Fault::Revoke],
    &[Fault::RedisWiped, Fault::Crash, Fault::Pause],
    &[Fault::Rollback, Fault::Crash, Fault::Pause],
    &[Fault::Rollback, Fault::Revoke],
    &[Fault::Rollback, Fault::Network, Fault::NotSent],
    &[Fault::DiskLoss, Fault::Crash, Fault::LockLoss],
];

fn run(protocol: &Protocol, limit: usize) -> Outcome {
    let outcome = search(protocol, limit);
    println!("{}", line(protocol, &outcome));
    outcome
}

fn named(faults: &[Fault]) -> &'static str {
    let names = faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>();
    // A name lives as long as the run; there are few.
    Box::leak(names.join(", ").into_boxed_str())
}

#[test]
fn the_protocol_as_built_holds() {
    let (mut steps, mut faults, mut reached) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    println!("{}", head());
    for provider in Provider::ALL {
        println!("-- {provider:?}");
        for together in TOGETHER {
            let budget = Budget::two_refreshes().once_each(together);
            let outcome = run(&Protocol::built(named(together), 2, provider, budget), BOUNDED);
            assert!(outcome.broken.is_none() && outcome.complete, "{provider:?} {together:?}");
            steps.extend(outcome.steps.into_keys());
            faults.extend(outcome.faults.into_keys());
            reached.extend(outcome.reached);
        }
    }
    // What the model never does it says nothing about.
    assert_eq!(steps, STEP_NAMES.into_iter().collect(), "steps that were never taken");
    let never = Fault::ALL.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>();
    // A write beside the tokens is nothing to a guard by descent; the other is a known limit.
    assert_eq!(never, [Fault::RowTouched, Fault::SettledTooEarly], "faults that never happened");
    assert_eq!(reached, SOMETIMES.iter().map(|property| property.name).collect());
}

/// A part of the protocol that is left out, the faults that show it, and the beginning of the property that breaks.
type Mutant = (&'static str, fn(&mut Protocol), &'static [Fault], &'static str);

const MUTANTS: &[Mutant] = &[
    ("a lock alone, and a process dies", lock_alone, &[Fault::Crash], "I1:"),
    ("a lock alone, and it is lost", lock_alone, &[Fault::LockLoss], "I1:"),
    ("a claim that is free when it expires", |p| p.hold = false, &[Fault::Crash], "I1:"),
    ("a guard on the row's version", |p| p.guard = Guard::Version, &[Fault::RowTouched], "I7:"),
    ("the epoch is not raised", |p| p.raise_epoch = false, &[Fault::Rollback, Fault::Network], "I7:"),
    (
        "one entry for each credential",
        |p| p.entry_per_token = false,
        &[Fault::Rollback, Fault::Crash],
        "I1b:",
    ),
    ("successors deleted once stored", |p| p.keep_successors = false, &[Fault::Rollback], "I1b:"),
    ("no compensation", no_compensation, &[Fault::Revoke, Fault::Crash], "I3b:"),
    ("no tombstone", |p| p.tombstone = false, &[Fault::Revoke, Fault::Rollback], "I3:"),
    (
        "no second tombstone for a grant that came between",
        |p| p.bury_again = false,
        &[Fault::Revoke, Fault::Consent, Fault::Rollback],
        "I3:",
    ),
    ("a refusal demotes any row", |p| p.demote_guarded = false, &[Fault::Network, Fault::Consent], "I5:"),
    (
        "settling without a word from the permit store",
        |p| p.settle_asks_redis = false,
        &[Fault::Crash, Fault::RedisUnreachable],
        "I1b:",
    ),
    (
        "dispatch within a time that begins with the claim",
        |p| p.limit_from_permit = false,
        &[Fault::Pause, Fault::Rollback],
        "I1:",
    ),
    (
        "settling takes any permit over",
        |p| p.fresh_permits_last = false,
        &[Fault::Rollback, Fault::Crash],
        "I1:",
    ),
    (
        "an owner takes its own permit again",
        |p| p.own_permits_last = false,
        &[Fault::Rollback, Fault::Network],
        "I1:",
    ),
];

fn lock_alone(protocol: &mut Protocol) {
    protocol.claim = false;
    protocol.guard = Guard::None;
    protocol.copies = false;
}

fn no_compensation(protocol: &mut Protocol) {
    protocol.compensation = false;
    protocol.tell_again = false;
}

#[test]
fn each_part_is_needed() {
    println!("{}", head());
    for (name, leave_out, faults, property) in MUTANTS {
        let budget = Budget::two_refreshes().once_each(faults);
        let built = Protocol::built(name, 2, Provider::StrictKill, budget);
        let control = search(&built, BOUNDED).broken.map(|broken| broken.property);
        assert!(!control.is_some_and(|broken| broken.starts_with(property)), "{name}: breaks anyhow");
        let mut mutant = built;
        leave_out(&mut mutant);
        let broken = run(&mutant, BOUNDED).broken.unwrap_or_else(|| panic!("{name}: nothing breaks"));
        assert!(broken.property.starts_with(property), "{name}: {} broke", broken.property);
    }
}

/// Faults that are too much, what breaks before the property that is to be shown, and that property.
type Limit = (&'static [Fault], &'static [&'static str], &'static str);

const LIMITS: &[Limit] = &[
    (&[Fault::Rollback, Fault::RedisWiped], &["I1:"], "I1b:"),
    (&[Fault::Rollback, Fault::LockLoss], &["I1:"], "I1b:"),
    (&[Fault::Rollback, Fault::RedisUnreachable], &["I1:"], "I1b:"),
    // The journal is the only copy of what the row forgets.
    (&[Fault::Rollback, Fault::Crash, Fault::DiskLoss], &[], "I1b:"),
    // The revocation's commit is lost with its outbox row, and a new consent comes before anybody meets the tombstone.
    (&[Fault::Rollback, Fault::Revoke, Fault::Consent], &[], "I3b:"),
    (&[Fault::SettledTooEarly, Fault::Network], &["I1:"], "I1b:"),
];

/// What no protocol of this kind withstands; `docs/REFRESH_MODEL.md` says so.
#[test]
fn the_known_limits_are_known() {
    println!("{}", head());
    for (faults, excused, property) in LIMITS {
        let budget = Budget::two_refreshes().once_each(faults);
        let mut limited = Protocol::built(named(faults), 2, Provider::StrictKill, budget);
        limited.excused = excused;
        let broken = run(&limited, BOUNDED).broken.map(|broken| broken.property);
        assert!(
            broken.is_some_and(|broken| broken.starts_with(property)),
            "{faults:?}: {broken:?}; say in docs/REFRESH_MODEL.md what the limit is"
        );
    }
}

/// What may go wrong together in `make model`, at the provider that punishes most.
const WIDE: &[&[Fault]] = &[
    &[Fault::Crash, Fault::Network, Fault::NotSent, Fault::LockLoss, Fault::Pause, Fault::DiskLoss],
    &[
        Fault::Crash,
        Fault::Network,
        Fault::NotSent,
        Fault::LockLoss,
        Fault::RedisUnreachable,
        Fault::RedisWiped,
        Fault::DiskLoss,
    ],
    &[Fault::Crash, Fault::Network, Fault::Revoke, Fault::Consent, Fault::RedisUnreachable],
    &[Fault::Crash, Fault::NotSent, Fault::Revoke, Fault::LockLoss, Fault::RedisWiped],
    &[Fault::Rollback, Fault::Crash, Fault::Network, Fault::NotSent, Fault::Pause],
    &[Fault::Rollback, Fault::Crash, Fault::Network, Fault::NotSent, Fault::Revoke],
];

/// And at each of the others.
const AT_OTHERS: &[&[Fault]] = &[
    &[Fault::Crash, Fault::Network, Fault::NotSent, Fault::LockLoss, Fault::RedisWiped],
    &[Fault::Crash, Fault::Network, Fault::Revoke, Fault::Consent],
    &[Fault::Rollback, Fault::Crash, Fault::Network, Fault::NotSent],
];

/// What may go wrong together with two crashes.
const TWO_CRASHES: &[&[Fault]] = &[
    &[Fault::LockLoss, Fault::Network],
    &[Fault::LockLoss, Fault::Revoke],
    &[Fault::Rollback, Fault::Network],
];

/// `make model`.
#[test]
#[ignore = "takes minutes: make model"]
fn in_full() {
    println!("{}", head());
    for provider in Provider::ALL {
        println!("-- {provider:?}, three replicas");
        for together in if provider == Provider::StrictKill { WIDE } else { AT_OTHERS } {
            holds_in_full(provider, together, Budget::two_refreshes().once_each(together));
        }
    }
    println!("-- {:?}, three replicas, two crashes", Provider::StrictKill);
    for further in TWO_CRASHES {
        let budget = Budget::two_refreshes().once_each(further).with(Fault::Crash, 2);
        holds_in_full(Provider::StrictKill, further, budget);
    }
}

fn holds_in_full(provider: Provider, faults: &[Fault], budget: Budget) {
    let outcome = run(&Protocol::built(named(faults), 3, provider, budget), FULL);
    assert!(outcome.broken.is_none() && outcome.complete, "{provider:?} {faults:?}");
}
