//! The book of the providers: every grant with its issue tree, every presentation, and which fault is whose turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::{Settings, waits};
use crate::clock::{self, micros};
use crate::dice::Dice;
use crate::history::{
    CredentialNo, End, Grant, GrantNo, Issue, Issued, Origin, Outcome, Presentation, ProviderFault, Rules,
};

/// What a client gets.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) access: String,
    /// `None`: the old one stays good.
    pub(crate) refresh: Option<String>,
    pub(crate) expires_in: Duration,
}

/// A presentation under way.
pub(super) struct Visit {
    grant: GrantNo,
    issue: Issue,
    began: u64,
    /// Which presentation of this token it is, from 0.
    nth: u64,
}

#[derive(Default)]
struct State {
    grants: BTreeMap<GrantNo, Grant>,
    spent_at: BTreeMap<(GrantNo, Issue), u64>,
    presentations: Vec<Presentation>,
    seen: BTreeMap<(GrantNo, Issue), u64>,
    codes: BTreeSet<String>,
    under_way: u32,
    next_code: u64,
}

/// How the providers behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Without a fault.
    Calm,
    /// Now and then a fault.
    Bad,
    /// Most refreshes are answered too late, or never.
    Hanging,
}

pub(crate) struct Book {
    settings: Settings,
    state: Mutex<State>,
    mood: watch::Sender<Mood>,
}

/// What a token says of itself: grant and issue. Tokens of tests may: nobody guesses them here, and the checks read them.
pub(crate) fn token_names(token: &str) -> Option<(GrantNo, Issue)> {
    let mut parts = token.split('.');
    let _kind = parts.next()?;
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Book {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default(), mood: watch::Sender::new(Mood::Calm) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// The grants as they are now.
    pub(crate) fn grants(&self) -> BTreeMap<GrantNo, Grant> {
        self.lock().grants.clone()
    }

    /// The presentations that have ended.
    pub(crate) fn presentations(&self) -> Vec<Presentation> {
        self.lock().presentations.clone()
    }

    /// How many presentations have ended.
    pub(crate) fn presented(&self) -> usize {
        self.lock().presentations.len()
    }

    pub(super) fn latency(&self) -> Duration {
        self.settings.latency
    }

    /// Presentations that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        self.lock().under_way
    }

    /// A grant made elsewhere, for an import.
    pub(crate) fn make(&self, provider: &str, credential: CredentialNo) -> (GrantNo, Pair) {
        let mut state = self.lock();
        let number = self.found(&mut state, provider, credential, Origin::Import);
        (number, self.issue(&mut state, number, None))
    }

    /// The grants of a credential that a consent made, the newest last.
    pub(crate) fn consents(&self, credential: CredentialNo) -> Vec<GrantNo> {
        let of = |grant: &Grant| grant.credential == credential && grant.origin == Origin::Consent;
        self.lock().grants.iter().filter(|(_, grant)| of(grant)).map(|(number, _)| *number).collect()
    }

    fn found(&self, state: &mut State, provider: &str, credential: CredentialNo, origin: Origin) -> GrantNo {
        let rules = match provider {
            "strict" => Rules::Strict,
            "grace" => Rules::Grace(micros(self.settings.grace)),
            _ => Rules::Steady,
        };
        let number = GrantNo::try_from(state.grants.len()).unwrap();
        state.grants.insert(number, Grant { rules, credential, origin, issues: Vec::new(), end: None });
        number
    }

    fn issue(&self, state: &mut State, number: GrantNo, parent: Option<Issue>) -> Pair {
        let grant = state.grants.get_mut(&number).unwrap();
        let issue = Issue::try_from(grant.issues.len()).unwrap();
        let mut dice = Dice::new(self.settings.seed, &format!("life {number} {issue}"));
        // Whole seconds: that is what the answer can say.
        let life = Duration::from_secs(dice.between(self.settings.life.0, self.settings.life.1).as_secs());
        let at = clock::now();
        grant.issues.push(Issued { parent, at, expires: at + micros(life), spent: false });
        let keep = grant.rules == Rules::Steady && parent.is_some();
        let salt = dice.roll(u64::MAX);
        Pair {
            access: format!("at.{number}.{issue}.{salt:016x}"),
            refresh: (!keep).then(|| format!("rt.{number}.{issue}.{salt:016x}")),
            expires_in: life,
        }
    }

    /// A code for a user who has said yes.
    pub(super) fn code(&self, provider: &str, credential: CredentialNo) -> String {
        let mut state = self.lock();
        state.next_code += 1;
        let code = format!("{provider}.{credential}.{}", state.next_code);
        state.codes.insert(code.clone());
        code
    }

    pub(super) fn exchange(&self, provider: &str, code: &str) -> Option<Pair> {
        let mut state = self.lock();
        let credential = code.strip_prefix(provider)?.split('.').nth(1)?.parse().ok()?;
        state.codes.remove(code).then_some(())?;
        let number = self.found(&mut state, provider, credential, Origin::Consent);
        Some(self.issue(&mut state, number, None))
    }

    /// A refresh token is presented. `None`: it was never given out here.
    pub(super) fn arrived(&self, provider: &str, token: &str, began: u64) -> Option<Visit> {
        let (grant, issue) = token_names(token)?;
        let mut state = self.lock();
        let known = state.grants.get(&grant)?;
        let right = matches!(
            (known.rules, provider),
            (Rules::Strict, "strict") | (Rules::Grace(_), "grace") | (Rules::Steady, "steady")
        );
        if !right || known.issues.len() <= issue as usize {
            return None;
        }
        state.under_way += 1;
        let nth = state.seen.entry((grant, issue)).or_default();
        *nth += 1;
        Some(Visit { grant, issue, began, nth: *nth - 1 })
    }

    /// Which fault this presentation meets, and how long it waits. The same for a seed, a token and a count, whatever the
    /// processes' timing.
    pub(super) fn fault(&self, visit: &Visit) -> Option<(ProviderFault, Duration)> {
        let purpose = format!("fault {} {} {}", visit.grant, visit.issue, visit.nth);
        let mut dice = Dice::new(self.settings.seed, &purpose);
        let fault = match *self.mood.borrow() {
            Mood::Calm => return None,
            Mood::Hanging if dice.permille(250) => ProviderFault::LostAnswer,
            Mood::Hanging => ProviderFault::Hang,
            Mood::Bad => match dice.roll(1000) {
                0..120 => ProviderFault::Slow,
                120..126 => ProviderFault::Hang,
                126..141 => ProviderFault::LostRequest,
                141..147 => ProviderFault::LostAnswer,
                147..157 => ProviderFault::Reset,
                157..162 => ProviderFault::ResetAfter,
                162..180 => ProviderFault::ServerError,
                180..200 => ProviderFault::RateLimited,
                _ => return None,
            },
        };
        Some((fault, waits(&mut dice, self.settings.deadline, fault)))
    }

    /// The provider looks at the token.
    pub(super) fn rotate(&self, visit: &Visit) -> (Outcome, Option<Pair>) {
        let now = clock::now();
        let mut state = self.lock();
        let State { grants, spent_at, .. } = &mut *state;
        let grant = grants.get_mut(&visit.grant).unwrap();
        if grant.end.is_some() {
            return (Outcome::Dead, None);
        }
        let spent = spent_at.get(&(visit.grant, visit.issue)).copied();
        let good = match (grant.rules, spent) {
            (_, None) | (Rules::Steady, _) => true,
            (Rules::Strict, Some(_)) => false,
            (Rules::Grace(grace), Some(at)) => now < at + grace,
        };
        if !good {
            grant.end = Some((now, End::Reuse(visit.issue)));
            return (Outcome::Reuse, None);
        }
        if grant.rules != Rules::Steady {
            grant.issues[visit.issue as usize].spent = true;
            spent_at.entry((visit.grant, visit.issue)).or_insert(now);
        }
        let pair = self.issue(&mut state, visit.grant, Some(visit.issue));
        let issue = Issue::try_from(state.grants[&visit.grant].issues.len() - 1).unwrap();
        (Outcome::Issued(issue), Some(pair))
    }

    /// The presentation is over. `None`: the provider did not look.
    pub(super) fn left(&self, visit: &Visit, fault: Option<ProviderFault>, outcome: Option<Outcome>) {
        let mut state = self.lock();
        state.under_way -= 1;
        state.presentations.push(Presentation {
            grant: visit.grant,
            issue: visit.issue,
            began: visit.began,
            ended: clock::now(),
            outcome: outcome.unwrap_or(Outcome::Untouched),
            fault,
        });
    }

    /// RFC 7009: any token of a grant ends it, a spent one too.
    pub(super) fn revoke(&self, token: &str) {
        let Some((number, _)) = token_names(token) else { return };
        if let Some(grant) = self.lock().grants.get_mut(&number).filter(|grant| grant.end.is_none()) {
            grant.end = Some((clock::now(), End::Revoked));
        }
    }
}
