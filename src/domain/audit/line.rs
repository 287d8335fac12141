//! A row as JSON: what sinks and exports write, and what is verified without the database.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Actor, Entry, Hash, Head, Mark, Outcome, Row, Seal, Subject, Target, TokenMark};
use crate::domain::credential::Fingerprint;
use crate::domain::key::{Account, CallerId, FlowId, ProviderId, ServiceId, TenantId, UserId};

/// A row in its written form. Absent fields are left out; hashes are lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The layout of this line.
    pub version: u32,
    /// [`Row::sequence`].
    pub sequence: u64,
    /// RFC 3339, in UTC, with microseconds.
    pub time: String,
    /// The tenant.
    pub tenant: String,
    /// The caller.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caller: Option<String>,
    /// How the caller was identified.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identified_by: Option<String>,
    /// What was asked for, or happened.
    pub action: String,
    /// allowed, denied or failed.
    pub outcome: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// The services.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub services: Vec<String>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// The consent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flow: Option<String>,
    /// What an operator's call acted on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Of the token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<i64>,
    /// Of the token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token_fingerprint: Option<String>,
    /// What the caller said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purpose: Option<String>,
    /// The call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// Of `AuditGap`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<u64>,
    /// Of `AuditPrune`: the last removed row.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruned_through: Option<u64>,
    /// Of `AuditPrune`: its hash.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruned_hash: Option<String>,
    /// The hash of the row before.
    pub previous_hash: String,
    /// [`Row::hash`].
    pub hash: String,
    /// [`Row::seal`].
    pub seal: String,
}

/// The layout that this version writes and reads.
const VERSION: u32 = 1;

/// Something that is no line of an audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field {0} is not what an audit log has there")]
pub struct BadLine(&'static str);

impl Line {
    /// A row behind `over`.
    #[must_use]
    pub fn new(over: Head, row: &Row) -> Self {
        let Row { sequence, entry, hash, seal } = row;
        let (dropped, pruned) = match entry.mark {
            None => (None, None),
            Some(Mark::Gap(dropped)) => (Some(dropped), None),
            Some(Mark::Pruned(head)) => (None, Some(head)),
        };
        let subject = &entry.subject;
        Self {
            version: VERSION,
            sequence: *sequence,
            time: format!("{:.6}", entry.at),
            tenant: entry.tenant.to_string(),
            caller: entry.actor.caller.as_ref().map(ToString::to_string),
            identified_by: entry.actor.identified_by.as_deref().map(str::to_owned),
            action: entry.action.to_string(),
            outcome: entry.outcome.name().to_owned(),
            reason: entry.reason.as_deref().map(str::to_owned),
            user: subject.user.as_ref().map(ToString::to_string),
            provider: subject.provider.as_ref().map(ToString::to_string),
            services: subject.services.iter().map(ToString::to_string).collect(),
            account: subject.account.as_ref().map(ToString::to_string),
            flow: subject.flow.as_ref().map(ToString::to_string),
            target: subject.target.as_ref().map(|target| target.as_str().to_owned()),
            generation: entry.token.map(|token| token.generation),
            token_fingerprint: entry.token.map(|token| hex::encode(token.fingerprint.0)),
            purpose: entry.purpose.clone(),
            request_id: entry.request_id.clone(),
            dropped,
            pruned_through: pruned.map(|head| head.sequence),
            pruned_hash: pruned.map(|head| hex::encode(head.hash.0)),
            previous_hash: hex::encode(over.hash.0),
            hash: hex::encode(hash.0),
            seal: hex::encode(seal.0),
        }
    }

    /// The head that the row stands behind, and the row.
    pub fn read(self) -> Result<(Head, Row), BadLine> {
        if self.version != VERSION {
            return Err(BadLine("version"));
        }
        let at: Timestamp = self.time.parse().map_err(|_| BadLine("time"))?;
        let mark = match (self.dropped, self.pruned_through, &self.pruned_hash) {
            (None, None, None) => None,
            (Some(dropped), None, None) => Some(Mark::Gap(dropped)),
            (None, Some(sequence), Some(hash)) => {
                Some(Mark::Pruned(Head { sequence, hash: Hash(bytes(hash, "pruned_hash")?) }))
            }
            _ => return Err(BadLine("pruned_through")),
        };
        let token = match (self.generation, &self.token_fingerprint) {
            (None, None) => None,
            (Some(generation), Some(hash)) => {
                Some(TokenMark { generation, fingerprint: Fingerprint(bytes(hash, "token_fingerprint")?) })
            }
            _ => return Err(BadLine("generation")),
        };
        let entry = Entry {
            at,
            tenant: TenantId::new(self.tenant).map_err(|_| BadLine("tenant"))?,
            actor: Actor {
                caller: optional(self.caller, CallerId::new, "caller")?,
                identified_by: self.identified_by.map(Cow::Owned),
            },
            action: Cow::Owned(self.action),
            subject: Subject {
                user: optional(self.user, UserId::new, "user")?,
                provider: optional(self.provider, ProviderId::new, "provider")?,
                services: self
                    .services
                    .into_iter()
                    .map(|id| ServiceId::new(id).map_err(|_| BadLine("services")))
                    .collect::<Result<BTreeSet<_>, _>>()?,
                account: optional(self.account, Account::new, "account")?,
                flow: optional(self.flow, |text| FlowId::parse(&text).ok_or(()), "flow")?,
                target: self.target.map(Target::stored),
            },
            outcome: Outcome::from_name(&self.outcome).ok_or(BadLine("outcome"))?,
            reason: self.reason.map(Cow::Owned),
            token,
            purpose: self.purpose,
            request_id: self.request_id,
            mark,
        };
        let over = Head {
            sequence: self.sequence.checked_sub(1).ok_or(BadLine("sequence"))?,
            hash: Hash(bytes(&self.previous_hash, "previous_hash")?),
        };
        let row = Row {
            sequence: self.sequence,
            entry,
            hash: Hash(bytes(&self.hash, "hash")?),
            seal: Seal(bytes(&self.seal, "seal")?),
        };
        Ok((over, row))
    }
}

fn optional<T, E>(
    text: Option<String>,
    parse: impl FnOnce(String) -> Result<T, E>,
    field: &'static str,
) -> Result<Option<T>, BadLine> {
    text.map(parse).transpose().map_err(|_| BadLine(field))
}

fn bytes(text: &str, field: &'static str) -> Result<[u8; 32], BadLine> {
    let mut bytes = [0; 32];
    // One way to write each hash, so that one line is one row.
    let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
        return Err(BadLine(field));
    }
    Ok(bytes)
}
