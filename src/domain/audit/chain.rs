//! The chain: what is hashed, and the walk that finds where it is broken.

use sha2::{Digest as _, Sha256};

use super::{Entry, Mark, PRUNE};
use crate::domain::key::{Account, CallerId, ProviderId, UserId};

/// In front of everything that is hashed; another layout gets another one.
const DOMAIN: &[u8] = b"token-broker audit row v1";

/// The SHA-256 of a row and of all rows before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

/// The MAC of a [`Hash`] under the tenant's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal(pub [u8; 32]);

/// The end of a chain. The default one, number 0, is the end of the empty chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// The number of the newest row.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// A decision in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number in the tenant's chain, from 1, without gaps.
    pub sequence: u64,
    /// What was decided.
    pub entry: Entry,
    /// Of this row and all before it.
    pub hash: Hash,
    /// Of the hash.
    pub seal: Seal,
}

impl Row {
    /// The chain's end, if this is its newest row.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }
}

/// The head that an entry makes behind another one.
#[must_use]
pub fn link(over: &Head, entry: &Entry) -> Head {
    let sequence = over.sequence.saturating_add(1);
    let mut bytes = Bytes(Vec::with_capacity(512));
    bytes.0.extend_from_slice(DOMAIN);
    bytes.0.extend_from_slice(&over.hash.0);
    bytes.number(sequence);
    bytes.entry(entry);
    Head { sequence, hash: Hash(Sha256::digest(&bytes.0).into()) }
}

/// Everything has a length or a fixed one, so that no two entries have the same bytes.
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.push(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let Entry { at, tenant, actor, action, subject, outcome, reason, token, purpose, request_id, mark } =
            entry;
        self.0.extend_from_slice(&at.as_microsecond().to_be_bytes());
        self.text(tenant.as_str());
        self.optional(actor.caller.as_ref().map(CallerId::as_str));
        self.optional(actor.identified_by.as_deref());
        self.text(action);
        self.optional(subject.user.as_ref().map(UserId::as_str));
        self.optional(subject.provider.as_ref().map(ProviderId::as_str));
        self.number(u64::try_from(subject.services.len()).unwrap_or(u64::MAX));
        for service in &subject.services {
            self.text(service.as_str());
        }
        self.optional(subject.account.as_ref().map(Account::as_str));
        self.optional(subject.flow.as_ref().map(ToString::to_string).as_deref());
        self.text(outcome.name());
        self.optional(reason.as_deref());
        self.0.push(u8::from(token.is_some()));
        if let Some(token) = token {
            self.0.extend_from_slice(&token.generation.to_be_bytes());
            self.0.extend_from_slice(&token.fingerprint.0);
        }
        self.optional(purpose.as_deref());
        self.optional(request_id.as_deref());
        match mark {
            None => self.0.push(0),
            Some(Mark::Gap(dropped)) => {
                self.0.push(1);
                self.number(*dropped);
            }
            Some(Mark::Pruned(head)) => {
                self.0.push(2);
                self.number(head.sequence);
                self.0.extend_from_slice(&head.hash.0);
            }
        }
        // Behind all that rows had before there were targets: theirs are the same bytes as ever.
        if let Some(target) = &subject.target {
            self.optional(Some(target.as_str()));
        }
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row {sequence}: {kind}")]
pub struct Flaw {
    /// The first number that is not as it was written.
    pub sequence: u64,
    /// How so.
    pub kind: FlawKind,
}

/// How a chain is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlawKind {
    /// There is no such row, but a later one.
    #[error("is missing")]
    Missing,
    /// There is a row of this number too many.
    #[error("is there twice, or out of order")]
    OutOfOrder,
    /// Its content is not what was hashed, or the row before it is another one.
    #[error("does not fit its hash: it, or what came before it, was changed")]
    Changed,
    /// Its hash is right, its seal is not: somebody without the tenant's key made it.
    #[error("was not sealed with the tenant's key")]
    Unsealed,
    /// It says that rows were removed that the chain has, with other hashes.
    #[error("names another end of the removed rows than the chain has")]
    WrongPrune,
    /// The chain ends before the head that was written down elsewhere, or has another hash there.
    #[error("is not the head that was noted: rows were cut off or replaced")]
    NotTheHead,
}

/// Goes along a chain, row by row, from a head on.
#[derive(Debug, Clone)]
pub struct Walk {
    base: Head,
    at: Head,
}

impl Walk {
    /// From behind this head: the empty chain's, or the one that a removal of old rows left.
    #[must_use]
    pub fn from(base: Head) -> Self {
        Self { base, at: base }
    }

    /// How far it has come.
    #[must_use]
    pub fn head(&self) -> Head {
        self.at
    }

    /// The next row. Its seal is for the caller to compare, who has the key.
    pub fn step(&mut self, row: &Row) -> Result<(), Flaw> {
        let next = self.at.sequence.saturating_add(1);
        let flaw = |sequence, kind| Err(Flaw { sequence, kind });
        if row.sequence > next {
            return flaw(next, FlawKind::Missing);
        }
        if row.sequence < next {
            return flaw(row.sequence, FlawKind::OutOfOrder);
        }
        let head = link(&self.at, &row.entry);
        if head != row.head() {
            return flaw(next, FlawKind::Changed);
        }
        let is_prune = row.entry.action == PRUNE;
        match row.entry.mark {
            // A later removal names a later end; one of the same end names the same hash.
            Some(Mark::Pruned(end)) if is_prune && end.sequence == self.base.sequence && end != self.base => {
                return flaw(next, FlawKind::WrongPrune);
            }
            Some(_) | None => {}
        }
        self.at = head;
        Ok(())
    }
}
