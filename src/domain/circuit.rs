//! The circuit of one app: a [`Breaker`] for all who share it, and one for each tenant to whom the provider has said no.
//!
//! The operator's app is every tenant's, and what a tenant sends can make the provider refuse the client or ask to be left alone:
//! refresh tokens of another client, imported, are enough at some providers. So such a word shuts out the tenant that got it, and
//! all others only when a second one gets it too, with no answer of the provider's between the two.

use std::collections::HashMap;
use std::time::Duration;

use super::breaker::{Admission, Breaker, Signal};
use super::credential::RefreshFailure;
use super::key::TenantId;

/// How long a tenant's word counts for the others'.
const WORD_COUNTS: Duration = Duration::from_secs(60);
/// So many tenants' are remembered before old ones are forgotten.
const MOST_WORDS: usize = 1_000;

/// Why a call may not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shut {
    /// What was the matter.
    pub why: RefreshFailure,
    /// When to ask again, from now.
    pub retry_after: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Circuit {
    everybodys: Opened,
    /// Whether tenants share the app.
    shared: bool,
    tenants: HashMap<TenantId, Word>,
}

/// A breaker, and why it opened.
#[derive(Debug, Clone, Copy)]
struct Opened {
    breaker: Breaker,
    why: RefreshFailure,
}

/// What the provider said to one tenant.
#[derive(Debug)]
struct Word {
    opened: Opened,
    said_at: Duration,
    /// Another tenant has had an answer since.
    doubted: bool,
}

impl Opened {
    fn new(threshold: u32) -> Self {
        Self { breaker: Breaker::new(threshold), why: RefreshFailure::ProviderUnavailable }
    }

    fn admit(&mut self, now: Duration) -> Result<(), Shut> {
        match self.breaker.admit(now) {
            Admission::Pass => Ok(()),
            Admission::Refused { retry_after } => Err(Shut { why: self.why, retry_after }),
        }
    }

    fn record(&mut self, now: Duration, signal: Signal, why: RefreshFailure) {
        self.breaker.record(now, signal);
        if self.breaker.is_open() {
            self.why = why;
        }
    }
}

impl Circuit {
    /// A closed one that opens after so many troubles in a row, at least 1.
    #[must_use]
    pub fn new(threshold: u32, shared: bool) -> Self {
        Self { everybodys: Opened::new(threshold), shared, tenants: HashMap::new() }
    }

    /// Whether a tenant's call may go out. Looks without becoming the probe.
    pub fn admits(&self, tenant: &TenantId, now: Duration) -> Result<(), Shut> {
        // Copies ask, so that the real ones' probe is left to whoever makes a call.
        let mut everybodys = self.everybodys;
        everybodys.admit(now)?;
        match self.tenants.get(tenant) {
            Some(word) => {
                let mut tenants = word.opened;
                tenants.admit(now)
            }
            None => Ok(()),
        }
    }

    /// Whether anybody's call may go out.
    pub fn admits_some(&self, now: Duration) -> Result<(), Shut> {
        let mut everybodys = self.everybodys;
        everybodys.admit(now)
    }

    /// Lets a tenant's call out. True: it is a probe, and others wait for what it finds out.
    pub fn admit(&mut self, tenant: &TenantId, now: Duration) -> Result<bool, Shut> {
        self.admits(tenant, now)?;
        let mut probes = self.everybodys.breaker.is_open();
        self.everybodys.admit(now)?;
        if let Some(word) = self.tenants.get_mut(tenant) {
            probes |= word.opened.breaker.is_open();
            word.opened.admit(now)?;
        }
        Ok(probes)
    }

    /// Learns how a tenant's call went.
    pub fn record(&mut self, tenant: &TenantId, now: Duration, signal: Signal, why: RefreshFailure) {
        match signal {
            Signal::Answered => {
                self.everybodys.record(now, signal, why);
                self.tenants.remove(tenant);
                for word in self.tenants.values_mut() {
                    word.doubted = true;
                }
            }
            Signal::Trouble => {
                self.everybodys.record(now, signal, why);
                if let Some(word) = self.tenants.get_mut(tenant) {
                    word.opened.record(now, signal, word.opened.why);
                }
            }
            Signal::ClientRejected | Signal::RetryAfter(_) if !self.shared => {
                self.everybodys.record(now, signal, why);
            }
            Signal::ClientRejected | Signal::RetryAfter(_) => {
                // Whatever it says, the provider is there.
                let signal_to_all =
                    if self.is_said_to_another(tenant, now) { signal } else { Signal::Answered };
                self.everybodys.record(now, signal_to_all, why);
                self.remember(tenant, now, signal, why);
            }
        }
    }

    /// A probe ended without a call: the next may probe.
    pub fn give_back(&mut self, tenant: &TenantId, now: Duration) {
        self.everybodys.breaker.give_back(now);
        if let Some(word) = self.tenants.get_mut(tenant) {
            word.opened.breaker.give_back(now);
        }
    }

    /// Whether it is open for everybody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.everybodys.breaker.is_open()
    }

    /// Whether there is no sign that anybody's call would be answered: it is open for everybody, or the last that was heard was a
    /// tenant's refusal. The latter may be that tenant's alone, so that it shuts out nobody; but nobody need hurry, either.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.is_open() || self.tenants.values().any(|word| !word.doubted)
    }

    fn is_said_to_another(&self, tenant: &TenantId, now: Duration) -> bool {
        self.tenants.iter().any(|(other, word)| {
            other != tenant && !word.doubted && now.saturating_sub(word.said_at) <= WORD_COUNTS
        })
    }

    fn remember(&mut self, tenant: &TenantId, now: Duration, signal: Signal, why: RefreshFailure) {
        if self.tenants.len() >= MOST_WORDS && !self.tenants.contains_key(tenant) {
            self.tenants.retain(|_, word| now.saturating_sub(word.said_at) <= WORD_COUNTS);
        }
        // Opened at once, so that its threshold is of no account.
        let new = || Word { opened: Opened::new(1), said_at: now, doubted: false };
        let word = self.tenants.entry(tenant.clone()).or_insert_with(new);
        (word.said_at, word.doubted) = (now, false);
        word.opened.record(now, signal, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REJECTED: RefreshFailure = RefreshFailure::ClientRejected;
    const AWAY: RefreshFailure = RefreshFailure::ProviderUnavailable;
    const NOW: Duration = Duration::from_secs(1_000);

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    struct Shared(Circuit);

    impl Shared {
        fn new() -> Self {
            Self(Circuit::new(3, true))
        }

        fn said(&mut self, to: &str, signal: Signal) {
            let why = if signal == Signal::Trouble { AWAY } else { REJECTED };
            self.0.record(&tenant(to), NOW, signal, why);
        }

        /// Of these tenants, those whose calls may go out.
        fn admitted(&self) -> Vec<&'static str> {
            let all = ["acme", "globex", "initech"];
            all.into_iter().filter(|name| self.0.admits(&tenant(name), NOW).is_ok()).collect()
        }
    }

    #[test]
    fn what_is_said_to_one_tenant_is_no_others_however_often() {
        let mut circuit = Shared::new();
        for _ in 0..100 {
            circuit.said("globex", Signal::ClientRejected);
            circuit.said("globex", Signal::RetryAfter(Duration::from_secs(30)));
        }
        assert_eq!(circuit.admitted(), ["acme", "initech"]);
        assert!(!circuit.0.is_open());
        let shut = circuit.0.admits(&tenant("globex"), NOW).unwrap_err();
        assert_eq!((shut.why, shut.retry_after), (REJECTED, Duration::from_secs(60)));
    }

    #[test]
    fn what_is_said_to_two_is_everybodys_and_an_answer_ends_it() {
        let mut circuit = Shared::new();
        circuit.said("acme", Signal::ClientRejected);
        circuit.said("globex", Signal::ClientRejected);
        assert!(circuit.admitted().is_empty() && circuit.0.is_open());
        circuit.said("initech", Signal::Answered);
        assert_eq!(circuit.admitted(), ["initech"], "the others have not been answered yet");
        circuit.said("acme", Signal::Answered);
        assert_eq!(circuit.admitted(), ["acme", "initech"]);
    }

    #[test]
    fn an_answer_between_makes_a_word_one_tenants_again() {
        let mut circuit = Shared::new();
        circuit.said("acme", Signal::ClientRejected);
        circuit.said("initech", Signal::Answered);
        circuit.said("globex", Signal::ClientRejected);
        assert_eq!(circuit.admitted(), ["initech"]);
        assert!(!circuit.0.is_open());
    }

    #[test]
    fn the_last_refusal_leaves_a_doubt_until_anybody_is_answered() {
        let mut circuit = Shared::new();
        assert!(!circuit.0.is_in_doubt());
        circuit.said("globex", Signal::ClientRejected);
        assert!(circuit.0.is_in_doubt() && !circuit.0.is_open());
        circuit.said("acme", Signal::Trouble);
        assert!(circuit.0.is_in_doubt(), "that is no answer");
        circuit.said("acme", Signal::Answered);
        assert!(!circuit.0.is_in_doubt());
        assert_eq!(circuit.admitted(), ["acme", "initech"]);
        for _ in 0..3 {
            circuit.said("acme", Signal::Trouble);
        }
        assert!(circuit.0.is_in_doubt() && circuit.0.is_open());
    }

    #[test]
    fn a_word_is_forgotten_for_others_after_a_minute() {
        let mut circuit = Shared::new();
        circuit.0.record(&tenant("acme"), Duration::ZERO, Signal::ClientRejected, REJECTED);
        circuit.said("globex", Signal::ClientRejected);
        assert!(!circuit.0.is_open());
    }

    #[test]
    fn trouble_is_everybodys_and_a_refusal_says_that_it_is_over() {
        let mut circuit = Shared::new();
        for name in ["acme", "globex", "acme"] {
            circuit.said(name, Signal::Trouble);
        }
        assert!(circuit.admitted().is_empty());
        let later = NOW + Duration::from_secs(1);
        assert!(circuit.0.admit(&tenant("globex"), later).unwrap(), "the probe");
        assert!(circuit.0.admits(&tenant("acme"), later).is_err());
        circuit.0.record(&tenant("globex"), later, Signal::ClientRejected, REJECTED);
        assert!(circuit.0.admits(&tenant("acme"), later).is_ok());
        assert!(circuit.0.admits(&tenant("globex"), later).is_err());
    }

    #[test]
    fn a_tenants_own_app_opens_at_its_word() {
        let mut circuit = Circuit::new(3, false);
        circuit.record(&tenant("acme"), NOW, Signal::ClientRejected, REJECTED);
        assert!(circuit.is_open());
    }

    #[test]
    fn a_tenants_probe_is_one_at_a_time_and_can_be_given_back() {
        let mut circuit = Shared::new();
        circuit.said("globex", Signal::ClientRejected);
        let (globex, later) = (tenant("globex"), NOW + Duration::from_secs(1));
        assert!(circuit.0.admit(&globex, later).unwrap());
        assert!(circuit.0.admit(&globex, later).is_err());
        circuit.0.give_back(&globex, later);
        assert!(circuit.0.admit(&globex, later).unwrap());
    }

    #[test]
    fn tenants_that_were_refused_long_ago_are_not_remembered() {
        let mut circuit = Circuit::new(3, true);
        for n in 0..10 * MOST_WORDS {
            // With an answer between, so that none is everybody's.
            circuit.record(&tenant("acme"), NOW, Signal::Answered, AWAY);
            let now = Duration::from_secs(u64::try_from(n).unwrap());
            circuit.record(&tenant(&format!("t{n}")), now, Signal::ClientRejected, REJECTED);
        }
        assert!(circuit.tenants.len() <= MOST_WORDS, "{}", circuit.tenants.len());
    }
}
