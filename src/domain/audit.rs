//! The audit log: who asked for what, for whom, and what the broker decided. One row for each decision, never changed,
//! never with a secret in it.
//!
//! The rows of a tenant are a chain: each has a hash of its content and of the hash before it, and a seal, which is a MAC of
//! that hash under a key of the tenant's. Whoever changes, removes, inserts or swaps rows breaks the hashes, and whoever
//! makes new hashes lacks the key for the seals. What a chain can't show by itself is that its newest rows were cut off:
//! for that its head has to be written down elsewhere. See `docs/AUDIT.md`.

mod chain;
mod line;
mod ports;

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::credential::{Fingerprint, Generation};
use super::key::{Account, CallerId, FlowId, ProviderId, ServiceId, TenantId, UserId};

pub use chain::{Flaw, FlawKind, Hash, Head, Row, Seal, Walk, link};
pub use line::{BadLine, Line};
pub use ports::{
    Audit, AuditQuery, AuditSealer, AuditSink, AuditStore, AuditUnavailable, NoAudit, SinkError,
};

/// The longest [`Entry::purpose`], in bytes.
pub const MAX_PURPOSE_BYTES: usize = 128;

/// What the rows of the log itself are called: decisions that were not recorded for want of room.
pub const GAP: &str = "AuditGap";
/// And the removal of old rows.
pub const PRUNE: &str = "AuditPrune";

/// A short name: fixed where it is made, owned where it was stored.
pub type Name = Cow<'static, str>;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, or the answer was given.
    Allowed,
    /// The policy, or the user, said no.
    Denied,
    /// It could not be done.
    Failed,
}

impl Outcome {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// As it was written.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Allowed, Self::Denied, Self::Failed].into_iter().find(|outcome| outcome.name() == name)
    }
}

/// Who asked. Neither: the broker itself, in the background.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// The caller; of a browser's return, the caller that began the consent.
    pub caller: Option<CallerId>,
    /// How it was identified, such as `api_key`; `browser` for a return from a provider.
    pub identified_by: Option<Name>,
}

/// What it was about, as far as the request said so and could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Whose.
    pub user: Option<UserId>,
    /// Where.
    pub provider: Option<ProviderId>,
    /// What for. Several of a consent.
    pub services: BTreeSet<ServiceId>,
    /// Which account.
    pub account: Option<Account>,
    /// The consent.
    pub flow: Option<FlowId>,
    /// What an operator's call acted on.
    pub target: Option<Target>,
}

/// What an operator's call acted on beside users and providers, as `tenant:globex caller:agents key:…`. Ids have no spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// As it was written.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// With one thing more.
    #[must_use]
    pub fn and(mut self, kind: &str, id: &impl std::fmt::Display) -> Self {
        let gap = if self.0.is_empty() { "" } else { " " };
        self.0 = format!("{}{gap}{kind}:{id}", self.0);
        self
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An access token that was given away or obtained. Never the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenMark {
    /// Of the pair.
    pub generation: Generation,
    /// The keyed hash of the access token.
    pub fingerprint: Fingerprint,
}

/// What a row of the log itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// So many decisions were not recorded.
    Gap(u64),
    /// The rows up to this one were removed, or are about to be.
    Pruned(Head),
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, in whole microseconds. Replicas have clocks of their own: the order is that of the sequence.
    pub at: Timestamp,
    /// Whose log.
    pub tenant: TenantId,
    /// Who asked.
    pub actor: Actor,
    /// The RPC by its name in the proto, or what happened without one.
    pub action: Name,
    /// What it was about.
    pub subject: Subject,
    /// What was decided.
    pub outcome: Outcome,
    /// Why: the reason that the caller was told, in capitals.
    pub reason: Option<Name>,
    /// The token.
    pub token: Option<TokenMark>,
    /// What the caller said that it is for.
    pub purpose: Option<String>,
    /// The call, as in logs.
    pub request_id: Option<String>,
    /// Of a row of the log itself.
    pub mark: Option<Mark>,
}

impl Entry {
    /// An entry with nothing but what all have.
    #[must_use]
    pub fn new(at: Timestamp, tenant: TenantId, action: impl Into<Name>, outcome: Outcome) -> Self {
        Self {
            // Stores keep microseconds, and what is hashed must be what is stored.
            at: Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at),
            tenant,
            actor: Actor::default(),
            action: action.into(),
            subject: Subject::default(),
            outcome,
            reason: None,
            token: None,
            purpose: None,
            request_id: None,
            mark: None,
        }
    }
}

/// Whether a text can be a purpose: 1 to 128 bytes of printable ASCII.
#[must_use]
pub fn is_purpose(text: &[u8]) -> bool {
    (1..=MAX_PURPOSE_BYTES).contains(&text.len()) && text.iter().all(|b| (b' '..=b'~').contains(b))
}

#[cfg(test)]
mod tests;
