//! Rows of what happens without a call: a browser's return, a refresh token that is presented, a revocation at the provider.
//! All of it has happened when its row is written, so none waits.

use super::decision::subject_of;
use crate::application::Broker;
use crate::domain::audit::{Actor, Entry, Outcome, Subject};
use crate::domain::credential::Credential;
use crate::domain::flow::Flow;
use crate::domain::key::CredentialKey;

/// A browser's return from a provider.
const CONSENT: &str = "Consent";
/// A refresh token was presented to its provider.
const PRESENT_REFRESH_TOKEN: &str = "PresentRefreshToken";
/// A provider was told that a grant is revoked.
const REVOKE_AT_PROVIDER: &str = "RevokeAtProvider";

impl Broker {
    /// A consent ended. `why` is the outcome as metrics name it.
    pub(in crate::application) fn audit_consent(&self, flow: &Flow, outcome: Outcome, why: &'static str) {
        let mut entry = self.event(&flow.key, CONSENT, outcome, why);
        entry.actor = Actor { caller: Some(flow.caller.clone()), identified_by: Some("browser".into()) };
        entry.subject = Subject { services: flow.services.clone(), flow: Some(flow.id), ..entry.subject };
        self.ports.audit.note(entry);
    }

    /// A refresh token was presented.
    pub(in crate::application) fn audit_presentation(&self, row: &Credential, ok: bool, why: &'static str) {
        let outcome = if ok { Outcome::Allowed } else { Outcome::Failed };
        self.ports.audit.note(self.event(&row.key, PRESENT_REFRESH_TOKEN, outcome, why));
    }

    /// A provider was told of a revocation.
    pub(in crate::application) fn audit_revocation(&self, key: &CredentialKey, ok: bool, why: &'static str) {
        let outcome = if ok { Outcome::Allowed } else { Outcome::Failed };
        self.ports.audit.note(self.event(key, REVOKE_AT_PROVIDER, outcome, why));
    }

    fn event(&self, key: &CredentialKey, action: &'static str, outcome: Outcome, why: &str) -> Entry {
        let mut entry = Entry::new(self.ports.clock.now(), key.tenant.clone(), action, outcome);
        entry.subject = subject_of(key);
        entry.reason = Some(why.to_ascii_uppercase().into());
        entry
    }
}
