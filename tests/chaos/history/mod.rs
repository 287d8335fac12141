//! What a run has recorded, and the checks H1 to H7 over it. Pure: no clock, no I/O, so that `tests/it/chaos_history`
//! can show each check a good history and a bad one. H8 is a run: with the naive broker some of these must fail.
//!
//! All times are microseconds of the machine's monotonic clock, which all processes of the run share.

mod generations;
mod latency;
mod lineage;
mod losses;
mod presentations;
mod rest;
mod revocation;

use std::collections::BTreeMap;
use std::fmt;

#[allow(unused_imports, reason = "each user needs a part")]
pub(crate) use latency::known_valid;
#[allow(unused_imports, reason = "each user needs a part")]
pub(crate) use losses::{Cause, losses};
#[allow(unused_imports, reason = "each user needs a part")]
pub(crate) use presentations::per_token;

/// Microseconds.
pub(crate) type Micros = u64;
/// A grant at the provider; all providers of a run share the numbers.
pub(crate) type GrantNo = u32;
/// A token pair of a grant, from 0: the node of its issue tree. At a provider that does not rotate, only the access token
/// is new.
pub(crate) type Issue = u32;
/// A credential of the run.
pub(crate) type CredentialNo = u32;
/// A replica.
pub(crate) type Replica = usize;

/// How a provider treats a refresh token that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rules {
    /// It is dead; presenting it again ends the grant.
    Strict,
    /// It may be presented again for so long; after that as above.
    Grace(Micros),
    /// It stays good.
    Steady,
}

/// What a provider does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProviderFault {
    /// Takes its time, though the caller may still be there.
    Slow,
    /// Answers when the caller has given up.
    Hang,
    /// Closes the connection without a look at the request.
    LostRequest,
    /// Does its work and closes the connection.
    LostAnswer,
    /// Resets the connection without a look at the request.
    Reset,
    /// Does its work and resets the connection.
    ResetAfter,
    /// Says 500 without a look at the request.
    ServerError,
    /// Says 429 without a look at the request.
    RateLimited,
}

impl ProviderFault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Slow,
        Self::Hang,
        Self::LostRequest,
        Self::LostAnswer,
        Self::Reset,
        Self::ResetAfter,
        Self::ServerError,
        Self::RateLimited,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow answer",
            Self::Hang => "answer after the caller's deadline",
            Self::LostRequest => "lost request",
            Self::LostAnswer => "lost answer",
            Self::Reset => "reset before the work",
            Self::ResetAfter => "reset after the work",
            Self::ServerError => "500",
            Self::RateLimited => "429",
        }
    }
}

/// What the provider made of a presented refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new pair.
    Issued(Issue),
    /// It had been spent: the grant is ended.
    Reuse,
    /// The grant was dead.
    Dead,
    /// It did not look.
    Untouched,
}

/// A refresh token at the provider's door.
#[derive(Debug, Clone)]
pub(crate) struct Presentation {
    pub(crate) grant: GrantNo,
    pub(crate) issue: Issue,
    /// The request was read.
    pub(crate) began: Micros,
    /// The answer was written, or the connection closed.
    pub(crate) ended: Micros,
    pub(crate) outcome: Outcome,
    pub(crate) fault: Option<ProviderFault>,
}

/// How a grant came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made for an import.
    Import,
    /// A code was exchanged.
    Consent,
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// This spent refresh token was presented again.
    Reuse(Issue),
    /// RFC 7009.
    Revoked,
}

/// A pair as the provider gave it out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    /// The pair whose refresh token was presented; `None`: the first.
    pub(crate) parent: Option<Issue>,
    pub(crate) at: Micros,
    /// Of the access token.
    pub(crate) expires: Micros,
    /// Whether its refresh token was used (never, at a provider that does not rotate).
    pub(crate) spent: bool,
}

/// A grant as the provider knows it.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) rules: Rules,
    pub(crate) credential: CredentialNo,
    pub(crate) origin: Origin,
    pub(crate) issues: Vec<Issued>,
    pub(crate) end: Option<(Micros, End)>,
}

impl Grant {
    /// Whether presenting this pair's refresh token now would give a new pair by right, not by grace.
    pub(crate) fn is_live(&self, issue: Issue) -> bool {
        self.end.is_none() && self.issues.get(issue as usize).is_some_and(|issued| !issued.spent)
    }

    /// Whether `older` is `issue` or one of those that it descends from.
    fn descends(&self, issue: Issue, older: Issue) -> bool {
        let mut at = Some(issue);
        while let Some(issue) = at {
            if issue == older {
                return true;
            }
            at = self.issues.get(issue as usize).and_then(|issued| issued.parent);
        }
        false
    }
}

/// What a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// GetCredential, any valid token.
    Read,
    /// Refresh, if the generation is still this.
    Refresh(i64),
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A token.
    Token { grant: GrantNo, issue: Issue, generation: i64 },
    /// The user has to consent.
    Reauthorize,
    /// A status, by its name or the reason in its details.
    Failed(&'static str),
}

/// A call of a client.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Makes one call at a time.
    pub(crate) client: u32,
    pub(crate) replica: Replica,
    pub(crate) credential: CredentialNo,
    pub(crate) question: Question,
    pub(crate) invoked: Micros,
    pub(crate) returned: Micros,
    pub(crate) answer: Answer,
}

/// What was done to a credential. One at a time for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// An import or a consent stored this grant.
    Stored(GrantNo),
    /// Revoked, until the broker acknowledged it.
    Revoked,
}

/// A deed with its time.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) credential: CredentialNo,
    pub(crate) deed: Deed,
    /// Who did it, or was asked last.
    pub(crate) replica: Replica,
    pub(crate) invoked: Micros,
    /// The acknowledgement, or when it was given up.
    pub(crate) returned: Micros,
    /// Whether it was acknowledged.
    pub(crate) done: bool,
}

/// One run of a replica's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) replica: Replica,
    pub(crate) number: u32,
}

/// A step of the protocol that a run has reached.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    pub(crate) run: Run,
    pub(crate) at: Micros,
    /// As `Step::name` writes it.
    pub(crate) step: String,
    /// `None`: a credential whose row is gone.
    pub(crate) credential: Option<CredentialNo>,
}

/// What the harness did to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    /// SIGKILL to a replica, at a step or at random.
    Killed(Run),
    /// SIGSTOP, then SIGCONT.
    Paused(Run),
    /// FLUSHALL.
    RedisFlushed,
    /// Ended and started again, empty.
    RedisRestarted,
    /// SIGSTOP, then SIGCONT.
    RedisPaused,
    /// Ended at once without a checkpoint, and started again.
    PostgresRestarted,
    /// Many answers came too late.
    ProviderHung,
}

/// A disturbance with its time.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) what: Disturbance,
    pub(crate) from: Micros,
    /// When the harness knew it to be over: a killed replica serves again, a database answers.
    pub(crate) to: Micros,
}

/// How a row stands at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowState {
    Active,
    Refreshing,
    NeedsReauth,
    Revoked,
}

/// A row at rest.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) credential: CredentialNo,
    pub(crate) state: RowState,
    pub(crate) generation: i64,
    /// The stored refresh token, unless revoked.
    pub(crate) refresh: Option<(GrantNo, Issue)>,
    /// The stored access token, unless revoked.
    pub(crate) access: Option<(GrantNo, Issue)>,
}

/// What the run was set up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A request to the provider ends within this.
    pub(crate) http_deadline: Micros,
    /// From the claim to the request.
    pub(crate) dispatch_within: Micros,
    /// From the claim until an unknown outcome may be settled.
    pub(crate) settle: Micros,
    /// How long a read of a valid token may take on a loaded machine.
    pub(crate) read: Micros,
}

/// Everything.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) limits: Limits,
    pub(crate) grants: BTreeMap<GrantNo, Grant>,
    pub(crate) presentations: Vec<Presentation>,
    pub(crate) calls: Vec<Call>,
    pub(crate) changes: Vec<Change>,
    pub(crate) reached: Vec<Reached>,
    pub(crate) windows: Vec<Window>,
    /// At rest; empty if the run has not come to rest.
    pub(crate) rows: Vec<Row>,
}

impl History {
    /// Everything, a line each.
    pub(crate) fn lines(&self) -> String {
        let mut lines: Vec<String> =
            self.grants.iter().map(|(number, grant)| format!("{number} {grant:?}")).collect();
        lines.extend(self.presentations.iter().map(|one| format!("{one:?}")));
        lines.extend(self.calls.iter().map(|one| format!("{one:?}")));
        lines.extend(self.changes.iter().map(|one| format!("{one:?}")));
        lines.extend(self.reached.iter().map(|one| format!("{one:?}")));
        lines.extend(self.windows.iter().map(|one| format!("{one:?}")));
        lines.extend(self.rows.iter().map(|one| format!("{one:?}")));
        lines.join("\n")
    }
}

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// Presentations of one refresh token never overlap.
    H1,
    /// The stored refresh tokens form a path in the provider's issue tree.
    H2,
    /// Nothing after Revoke's acknowledgement; no orphan grant at rest.
    H3,
    /// Generations seen by one client never go back.
    H4,
    /// Every killed grant has its own fault inside its own window.
    H5,
    /// Reads of valid tokens do not wait.
    H6,
    /// At rest the stored refresh token is the live one.
    H7,
}

impl Check {
    pub(crate) const ALL: [Self; 7] = [Self::H1, Self::H2, Self::H3, Self::H4, Self::H5, Self::H6, Self::H7];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::H1 => "H1 calls presenting one refresh token never overlap",
            Self::H2 => "H2 stored refresh tokens form a path in the issue tree",
            Self::H3 => "H3 nothing after Revoke's ack, no orphan grant at rest",
            Self::H4 => "H4 generations seen by one client never go back",
            Self::H5 => "H5 every killed grant has its fault inside its window",
            Self::H6 => "H6 reads of valid tokens do not wait",
            Self::H7 => "H7 at rest the stored refresh token is the live one",
        }
    }

    /// What breaks it.
    pub(crate) fn run(self, history: &History) -> Vec<Violation> {
        let found = match self {
            Self::H1 => presentations::check(history),
            Self::H2 => lineage::check(history),
            Self::H3 => revocation::check(history),
            Self::H4 => generations::check(history),
            Self::H5 => losses::check(history),
            Self::H6 => latency::check(history),
            Self::H7 => rest::check(history),
        };
        found.into_iter().map(|text| Violation { check: self, text }).collect()
    }
}

/// A broken check, with what a person needs to find it in the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) check: Check,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.text)
    }
}

/// Milliseconds, for texts.
fn ms(at: Micros) -> String {
    format!("{}.{:03} ms", at / 1000, at % 1000)
}
