//! The audit trail's messages.

use super::check::Check;
use super::number;
use super::time::{parse_timestamp, timestamp};
use crate::application::error::BrokerError;
use crate::domain::audit::{AuditQuery, Hash, Head, Outcome, Row};
use crate::domain::key::{CallerId, ProviderId, ServiceId, TenantId, UserId};
use crate::r#gen::v1 as pb;

const DEFAULT_PAGE_SIZE: u32 = 50;
/// The longest action: longer than any name of an RPC.
const MAX_ACTION_BYTES: usize = 64;

fn outcome(check: &mut Check, number: i32) -> Option<Outcome> {
    match pb::AuditOutcome::try_from(number) {
        Ok(pb::AuditOutcome::Unspecified) => None,
        Ok(pb::AuditOutcome::Allowed) => Some(Outcome::Allowed),
        Ok(pb::AuditOutcome::Denied) => Some(Outcome::Denied),
        Ok(pb::AuditOutcome::Failed) => Some(Outcome::Failed),
        Err(_) => check.fail("outcome", "is not one that the broker knows"),
    }
}

fn time(check: &mut Check, field: &str, time: Option<prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    match parse_timestamp(time?) {
        Some(time) => Some(time),
        None => check.fail(field, "must be a point in time between the years 1 and 9999"),
    }
}

/// QueryAudit: the tenant, if one is named, and what is asked.
pub(in super::super) fn query(
    message: pb::QueryAuditRequest,
    own: &TenantId,
) -> Result<(Option<TenantId>, AuditQuery), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let limit = check.page_size(message.page_size, DEFAULT_PAGE_SIZE);
    let before = match message.page_token.as_str() {
        "" => None,
        text => match text.parse::<u64>() {
            Ok(before) if before.to_string() == text => Some(before),
            _ => check.fail("page_token", "must be `next_page_token` of an answer"),
        },
    };
    let asked = AuditQuery {
        user: check.optional("user_id", message.user_id, UserId::new),
        provider: check.optional("provider", message.provider, ProviderId::new),
        service: check.optional("service", message.service, ServiceId::new),
        caller: check.optional("caller", message.caller, CallerId::new),
        action: check.text("action", message.action, MAX_ACTION_BYTES).map(Into::into),
        outcome: outcome(&mut check, message.outcome),
        since: time(&mut check, "start_time", message.start_time),
        until: time(&mut check, "end_time", message.end_time),
        before,
        ..AuditQuery::all(own.clone(), limit.unwrap_or_default())
    };
    check.finish(|| Some((tenant, asked)))
}

/// VerifyAudit: the tenant, if one is named, and the noted head.
pub(in super::super) fn verify(
    message: pb::VerifyAuditRequest,
) -> Result<(Option<TenantId>, Option<Head>), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let noted = message.noted_head.and_then(|head| {
        let mut hash = [0; 32];
        let sequence = u64::try_from(head.sequence).ok().filter(|sequence| *sequence > 0);
        match (sequence, hex::decode_to_slice(&head.hash, &mut hash)) {
            (Some(sequence), Ok(())) => Some(Head { sequence, hash: Hash(hash) }),
            _ => check.fail("noted_head", "must be a `head` of an answer: a number from 1 and 64 hex digits"),
        }
    });
    check.finish(|| Some((tenant, noted)))
}

/// ExportAudit: the tenant, if one is named, and behind which row.
pub(in super::super) fn export(
    message: pb::ExportAuditRequest,
) -> Result<(Option<TenantId>, u64), BrokerError> {
    let mut check = Check::default();
    let tenant = check.tenant(message.tenant);
    let after = u64::try_from(message.after_sequence).ok();
    if after.is_none() {
        check.fail::<()>("after_sequence", "must not be negative");
    }
    check.finish(|| Some((tenant, after?)))
}

/// A head for a message.
pub(in super::super) fn heads(head: Head) -> pb::AuditHead {
    pb::AuditHead { sequence: number(head.sequence), hash: hex::encode(head.hash.0) }
}

fn text<T: ToString>(part: Option<T>) -> String {
    part.map(|part| part.to_string()).unwrap_or_default()
}

/// A row for a message.
pub(in super::super) fn row(row: Row) -> pb::AuditRow {
    let Row { sequence, entry, hash, seal: _ } = row;
    let outcome = match entry.outcome {
        Outcome::Allowed => pb::AuditOutcome::Allowed,
        Outcome::Denied => pb::AuditOutcome::Denied,
        Outcome::Failed => pb::AuditOutcome::Failed,
    };
    pb::AuditRow {
        sequence: number(sequence),
        time: Some(timestamp(entry.at)),
        caller: text(entry.actor.caller),
        identified_by: text(entry.actor.identified_by),
        action: entry.action.into_owned(),
        outcome: outcome.into(),
        reason: text(entry.reason),
        user_id: text(entry.subject.user),
        provider: text(entry.subject.provider),
        services: entry.subject.services.iter().map(ToString::to_string).collect(),
        account: text(entry.subject.account),
        flow_id: text(entry.subject.flow),
        generation: entry.token.map_or(0, |token| token.generation),
        token_fingerprint: text(entry.token.map(|token| hex::encode(token.fingerprint.0))),
        purpose: text(entry.purpose),
        request_id: text(entry.request_id),
        hash: hex::encode(hash.0),
        target: entry.subject.target.map(|target| target.as_str().to_owned()).unwrap_or_default(),
    }
}
