//! One call's row: begun when the caller is known, ended with the answer. However the call ends, it has one row.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::application::Broker;
use crate::application::types::{AccessGrant, ServiceKey};
use crate::domain::access_policy::Caller;
use crate::domain::audit::{
    Actor, Audit, AuditUnavailable, Entry, Name, Outcome, Subject, Target, TokenMark,
};
use crate::domain::key::{CredentialKey, FlowId, ProviderId, ServiceId, UserId};
use crate::domain::ports::Clock;

/// The reason of a call whose caller did not wait for the answer.
const HUNG_UP: &str = "CALLER_HUNG_UP";

/// What a call is found to be about while it is worked on.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Clone, Default)]
struct Noted {
    subject: Subject,
    token: Option<TokenMark>,
    reason: Option<Name>,
}

impl Notes {
    fn with(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// It is about this service of a user.
    pub fn about(&self, key: &ServiceKey) {
        self.with(|noted| {
            noted.subject = Subject {
                user: Some(key.user.clone()),
                provider: Some(key.provider.clone()),
                services: [key.service.clone()].into(),
                account: Some(key.account.clone()),
                flow: noted.subject.flow,
                target: None,
            };
        });
    }

    /// It is about a user or a provider, or both, or all.
    pub fn about_user(&self, user: Option<&UserId>, provider: Option<&ProviderId>) {
        self.with(|noted| {
            noted.subject.user = user.cloned();
            noted.subject.provider = provider.cloned();
        });
    }

    /// It is about all of this.
    pub fn about_subject(&self, subject: Subject) {
        self.with(|noted| noted.subject = subject);
    }

    /// An operator acts on this.
    pub fn acts_on(&self, target: Target) {
        self.with(|noted| noted.subject.target = Some(target));
    }

    /// It is about this consent.
    pub fn about_flow(&self, flow: FlowId) {
        self.with(|noted| noted.subject.flow = Some(flow));
    }

    /// The consent is for this key.
    pub fn flow_is_for(&self, key: &CredentialKey, services: &BTreeSet<ServiceId>) {
        self.with(|noted| {
            let flow = noted.subject.flow;
            noted.subject = Subject { services: services.clone(), flow, ..subject_of(key) };
        });
    }

    /// The answer has this token.
    pub fn gave(&self, grant: &AccessGrant) {
        self.with(|noted| {
            noted.token = Some(TokenMark { generation: grant.generation, fingerprint: grant.fingerprint });
        });
    }

    /// It was allowed, and there was a reason why it gave nothing.
    pub fn because(&self, reason: impl Into<Name>) {
        self.with(|noted| noted.reason = Some(reason.into()));
    }
}

/// A key's parts that an audit row names.
pub(super) fn subject_of(key: &CredentialKey) -> Subject {
    Subject {
        user: Some(key.user.clone()),
        provider: Some(key.provider.clone()),
        account: Some(key.account.clone()),
        ..Subject::default()
    }
}

/// A call that has to have its row. Dropped before its end, it writes that the caller hung up.
pub struct Decision {
    audit: Arc<dyn Audit>,
    entry: Option<Entry>,
    notes: Notes,
    /// It takes access away, and is not held up for want of a record.
    takes_away: bool,
}

/// Begins rows.
#[derive(Clone)]
pub struct Auditor {
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
}

impl Auditor {
    /// Rows go to `audit`, dated by `clock`.
    #[must_use]
    pub fn new(audit: Arc<dyn Audit>, clock: Arc<dyn Clock>) -> Self {
        Self { audit, clock }
    }

    /// Begins a call's row. `takes_away`: it takes access away rather than giving it.
    #[must_use]
    pub fn begin(
        &self,
        caller: &Caller,
        identified_by: &'static str,
        action: &'static str,
        takes_away: bool,
        request_id: Option<&str>,
    ) -> Decision {
        let mut entry = Entry::new(self.clock.now(), caller.tenant.clone(), action, Outcome::Failed);
        entry.actor = Actor { caller: Some(caller.id.clone()), identified_by: Some(identified_by.into()) };
        entry.request_id = request_id.map(str::to_owned);
        Decision { audit: Arc::clone(&self.audit), entry: Some(entry), notes: Notes::default(), takes_away }
    }
}

impl Broker {
    /// For the rows of calls.
    #[must_use]
    pub fn auditor(&self) -> Auditor {
        Auditor::new(Arc::clone(&self.ports.audit), Arc::clone(&self.ports.clock))
    }
}

impl Decision {
    /// For whoever works on the call.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// The user's own token came along: the caller can act for nobody else.
    pub fn by_users_token(&mut self) {
        if let Some(identified_by) = self.entry.as_mut().and_then(|entry| entry.actor.identified_by.as_mut())
        {
            *identified_by = format!("{identified_by}+user").into();
        }
    }

    /// What the caller says that the call is for.
    pub fn purpose(&mut self, purpose: String) {
        if let Some(entry) = &mut self.entry {
            entry.purpose = Some(purpose);
        }
    }

    /// Whether the call should not be begun, since its answer could not be recorded.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        !self.takes_away && self.entry.as_ref().is_some_and(|entry| self.audit.is_stuck(&entry.tenant))
    }

    /// The call was refused before anything was decided.
    pub fn forget(mut self) {
        self.entry = None;
    }

    /// The call has this answer; `reason` of one that is not a success. An error: the answer must not be given.
    pub async fn end(mut self, outcome: Outcome, reason: Option<String>) -> Result<(), AuditUnavailable> {
        let Some(entry) = self.entry.take().map(|entry| self.filled(entry, outcome, reason.map(Name::Owned)))
        else {
            return Ok(());
        };
        if outcome == Outcome::Allowed && !self.takes_away {
            self.audit.record(entry).await
        } else {
            self.audit.note(entry);
            Ok(())
        }
    }

    fn filled(&self, mut entry: Entry, outcome: Outcome, reason: Option<Name>) -> Entry {
        let noted = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        entry.subject = noted.subject;
        entry.outcome = outcome;
        entry.reason = reason;
        if outcome == Outcome::Allowed {
            entry.token = noted.token;
            entry.reason = noted.reason;
        }
        entry
    }
}

impl Drop for Decision {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let entry = self.filled(entry, Outcome::Failed, Some(HUNG_UP.into()));
            self.audit.note(entry);
        }
    }
}
