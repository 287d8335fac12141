//! A row of `audit_log`, between columns and domain.

use std::borrow::Cow;

use super::codec::{array, list, tenant, time};
use crate::domain::audit::{
    Actor, Entry, GAP, Hash, Head, Mark, Outcome, PRUNE, Row, Seal, Subject, Target, TokenMark,
};
use crate::domain::credential::Fingerprint;
use crate::domain::key::{Account, CallerId, FlowId, ProviderId, ServiceId, UserId};
use crate::domain::ports::StoreError;

/// The columns of [`AuditRow`], in the order of the table.
macro_rules! audit_columns {
    () => {
        "tenant, sequence, created_at, caller, identified_by, action, outcome, reason, user_id, provider, services, account, \
         flow_id, generation, fingerprint, purpose, request_id, mark, mark_hash, hash, seal, target"
    };
}
pub(super) use audit_columns;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct AuditRow {
    tenant: String,
    sequence: i64,
    created_at: i64,
    caller: Option<String>,
    identified_by: Option<String>,
    action: String,
    outcome: String,
    reason: Option<String>,
    user_id: Option<String>,
    provider: Option<String>,
    services: String,
    account: Option<String>,
    flow_id: Option<Vec<u8>>,
    generation: Option<i64>,
    fingerprint: Option<Vec<u8>>,
    purpose: Option<String>,
    request_id: Option<String>,
    mark: Option<i64>,
    mark_hash: Option<Vec<u8>>,
    hash: Vec<u8>,
    seal: Vec<u8>,
    target: Option<String>,
}

const DAMAGED: StoreError = StoreError::Corrupt("a row of the audit log");

/// A number of a row.
pub(super) fn number(column: i64) -> Result<u64, StoreError> {
    u64::try_from(column).map_err(|_| DAMAGED)
}

/// A number of a row, for a column.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn head(sequence: i64, hash: &[u8]) -> Result<Head, StoreError> {
    Ok(Head { sequence: number(sequence)?, hash: Hash(array(hash)?) })
}

/// The columns `mark` and `mark_hash`.
pub(super) fn mark_columns(mark: Option<&Mark>) -> (Option<i64>, Option<&[u8]>) {
    match mark {
        None => (None, None),
        Some(Mark::Gap(dropped)) => (Some(column(*dropped)), None),
        Some(Mark::Pruned(head)) => (Some(column(head.sequence)), Some(&head.hash.0)),
    }
}

fn part<T, E>(
    text: Option<String>,
    new: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>, StoreError> {
    text.map(new).transpose().map_err(|_| DAMAGED)
}

impl TryFrom<AuditRow> for Row {
    type Error = StoreError;

    fn try_from(row: AuditRow) -> Result<Self, StoreError> {
        let mark = match (row.action.as_str(), row.mark, row.mark_hash) {
            (_, None, None) => None,
            (GAP, Some(dropped), None) => Some(Mark::Gap(number(dropped)?)),
            (PRUNE, Some(sequence), Some(hash)) => Some(Mark::Pruned(head(sequence, &hash)?)),
            _ => return Err(DAMAGED),
        };
        let token = match (row.generation, row.fingerprint) {
            (None, None) => None,
            (Some(generation), Some(hash)) => {
                Some(TokenMark { generation, fingerprint: Fingerprint(array(&hash)?) })
            }
            _ => return Err(DAMAGED),
        };
        let services = list(&row.services)?.into_iter().map(|id| ServiceId::new(id).map_err(|_| DAMAGED));
        let entry = Entry {
            at: time(row.created_at)?,
            tenant: tenant(row.tenant)?,
            actor: Actor {
                caller: part(row.caller, CallerId::new)?,
                identified_by: row.identified_by.map(Cow::Owned),
            },
            action: Cow::Owned(row.action),
            subject: Subject {
                user: part(row.user_id, UserId::new)?,
                provider: part(row.provider, ProviderId::new)?,
                services: services.collect::<Result<_, _>>()?,
                account: part(row.account, Account::new)?,
                flow: row.flow_id.map(|id| array(&id).map(FlowId::from_bytes)).transpose()?,
                target: row.target.map(Target::stored),
            },
            outcome: Outcome::from_name(&row.outcome).ok_or(DAMAGED)?,
            reason: row.reason.map(Cow::Owned),
            token,
            purpose: row.purpose,
            request_id: row.request_id,
            mark,
        };
        let (hash, seal) = (Hash(array(&row.hash)?), Seal(array(&row.seal)?));
        Ok(Self { sequence: number(row.sequence)?, entry, hash, seal })
    }
}

/// Binds what a query asks about beside tenant and user, from the third parameter on: provider, service, caller, action,
/// outcome, since, until, before, limit. A macro, since the two databases' queries are of two types.
macro_rules! bind_audit_filters {
    ($query:expr, $asked:expr) => {{
        use $crate::infra::storage::audit_row::column;
        use $crate::infra::storage::codec::micros;
        $query
            .bind($asked.provider.as_ref().map($crate::domain::key::ProviderId::as_str))
            .bind($asked.service.as_ref().map($crate::domain::key::ServiceId::as_str))
            .bind($asked.caller.as_ref().map($crate::domain::key::CallerId::as_str))
            .bind($asked.action.as_deref())
            .bind($asked.outcome.map($crate::domain::audit::Outcome::name))
            .bind($asked.since.map(micros))
            .bind($asked.until.map(micros))
            .bind($asked.before.map_or(i64::MAX, column))
            .bind(i64::from($asked.limit))
    }};
}
pub(super) use bind_audit_filters;
