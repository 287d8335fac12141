//! What goes wrong in a run, drawn from its seed, and counted when it happens.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use token_broker::domain::step::Step;

use super::dice::Dice;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// A broker ends right after this step.
    CrashAt(Step),
    /// A broker ends at any moment.
    Crash,
    /// The request gets lost on its way to the provider.
    RequestLost,
    /// The provider has rotated, and its answer gets lost.
    AnswerLost,
    /// The provider answers 500, and has rotated all the same.
    ErrorAfter,
    /// The provider answers 500 and has not rotated.
    ErrorBefore,
    /// The provider answers 429.
    RateLimited,
    /// The connection is refused.
    NotSent,
    /// The provider takes nearly all the time that it has.
    Slow,
    /// The provider can't be told of a revocation.
    RevocationLost,
    /// The permit store forgets everything.
    PermitsWiped,
    /// The permit store can't be reached for a while.
    PermitsUnreachable,
    /// A broker stands still, longer than a claim lasts.
    Pause,
    /// The database fails over and loses its last commit.
    DatabaseRolledBack,
    /// The database is away for a while.
    DatabaseAway,
    /// The database has committed and can't say so.
    CommitUnknown,
    /// A broker's disk is full for a while.
    JournalFull,
    /// A word between replicas gets lost.
    WakeupLost,
    /// The user revokes.
    Revoked,
    /// The user consents again.
    ConsentedAgain,
}

/// The steps at which a broker can die in these runs: all but those of a consent in a browser.
pub(crate) fn crash_points() -> Vec<Step> {
    Step::ALL.into_iter().filter(|step| *step != Step::GrantStored).collect()
}

/// All that must happen in a suite.
pub(crate) fn all() -> Vec<Fault> {
    use Fault::{
        AnswerLost, CommitUnknown, ConsentedAgain, Crash, DatabaseAway, DatabaseRolledBack, ErrorAfter,
        ErrorBefore, JournalFull, NotSent, Pause, PermitsUnreachable, PermitsWiped, RateLimited, RequestLost,
        RevocationLost, Revoked, Slow, WakeupLost,
    };
    let others = [
        Crash,
        RequestLost,
        AnswerLost,
        ErrorAfter,
        ErrorBefore,
        RateLimited,
        NotSent,
        Slow,
        RevocationLost,
        PermitsWiped,
        PermitsUnreachable,
        Pause,
        DatabaseRolledBack,
        DatabaseAway,
        CommitUnknown,
        JournalFull,
        WakeupLost,
        Revoked,
        ConsentedAgain,
    ];
    crash_points().into_iter().map(Fault::CrashAt).chain(others).collect()
}

/// How often each happened.
pub(crate) type Counts = BTreeMap<Fault, u64>;

/// What can go wrong in one run, and what has.
pub(crate) struct Faults {
    counts: Mutex<Counts>,
    /// From the end on nothing goes wrong any more.
    over: AtomicBool,
    pub(crate) plan: Plan,
}

/// Drawn at the beginning.
pub(crate) struct Plan {
    pub(crate) brokers: usize,
    pub(crate) users: usize,
    /// Of so many requests to the provider one meets trouble. 0: none.
    pub(crate) provider_trouble: u64,
    /// Of so many statements in the database one has an unknown end. 0: none.
    pub(crate) commit_unknown: u64,
    /// Of so many words between replicas one gets lost. 0: none.
    pub(crate) wakeup_lost: u64,
    /// Brokers die after this step, when it has been reached so often. In turn.
    pub(crate) crashes: Vec<(Step, u32)>,
    /// What happens at which time of the run. Never the database's failover together with the permit store's loss: that
    /// is documented as unsafe.
    pub(crate) events: Vec<(Duration, Fault)>,
}

impl Plan {
    pub(crate) fn draw(dice: &Dice, length: Duration) -> Self {
        use Fault::{
            Crash, DatabaseAway, DatabaseRolledBack, JournalFull, Pause, PermitsUnreachable, PermitsWiped,
        };
        let calm_or = |choices: &[u64]| if dice.one_in(3) { 0 } else { dice.pick(choices) };
        let fails_over = dice.one_in(4);
        let kinds = if fails_over {
            [DatabaseRolledBack, DatabaseRolledBack, DatabaseAway, Pause, Crash, DatabaseRolledBack]
        } else {
            [PermitsWiped, PermitsUnreachable, DatabaseAway, Pause, JournalFull, Crash]
        };
        let count = dice.below(4);
        let mut events: Vec<_> = (0..count).map(|_| (dice.up_to(length), dice.pick(&kinds))).collect();
        events.sort();
        let points = crash_points();
        let crashes = (0..dice.below(4))
            .map(|_| (dice.pick(&points), 1 + u32::try_from(dice.below(3)).unwrap()))
            .collect();
        Self {
            brokers: 2 + usize::try_from(dice.below(2)).unwrap(),
            users: 1 + usize::try_from(dice.below(2)).unwrap(),
            provider_trouble: calm_or(&[3, 6, 12]),
            commit_unknown: if fails_over { 0 } else { calm_or(&[15, 60]) },
            wakeup_lost: calm_or(&[2, 10]),
            crashes,
            events,
        }
    }
}

impl Faults {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { counts: Mutex::default(), over: AtomicBool::new(false), plan }
    }

    pub(crate) fn happened(&self, fault: Fault) {
        *self.counts.lock().unwrap().entry(fault).or_default() += 1;
    }

    /// Whether it goes wrong this time; counted if so. `one_in` as in [`Plan`].
    pub(crate) fn strikes(&self, dice: &Dice, fault: Fault, one_in: u64) -> bool {
        let strikes = one_in > 0 && !self.are_over() && dice.one_in(one_in);
        if strikes {
            self.happened(fault);
        }
        strikes
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn are_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap().clone()
    }
}
