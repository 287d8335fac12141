//! The row that each call has in the audit log, seen from the door: what the caller says that it is for, and what its answer
//! means.

use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::observe::Method;
use super::status::{self, RATE_LIMITED};
use crate::application::audit::{Auditor, Decision};
use crate::domain::access_policy::Caller;
use crate::domain::audit::{AuditUnavailable, Outcome, is_purpose};

/// The metadata entry with what a call is for, in the caller's own words. Recorded, and nothing else.
const PURPOSE: &str = "tokenbroker-purpose";

/// Begins the row of a call, if it is one that has a row. With it comes the reason why the call is not to be begun, if there
/// is one.
pub(super) fn begin(
    auditor: &Auditor,
    method: Method,
    (caller, identified_by): (&Caller, &'static str),
    request_id: &HeaderValue,
    headers: &HeaderMap,
) -> (Option<Decision>, Option<Status>) {
    if !method.is_rpc() {
        return (None, None);
    }
    let request_id = request_id.to_str().ok();
    let mut decision = auditor.begin(caller, identified_by, method.name(), method.takes_away(), request_id);
    let refusal = match purpose(headers) {
        Ok(purpose) => {
            if let Some(purpose) = purpose {
                decision.purpose(purpose);
            }
            decision.is_stuck().then(status::audit_unavailable)
        }
        Err(MalformedPurpose) => Some(status::malformed_purpose()),
    };
    (Some(decision), refusal)
}

/// Ends the row of a call with its answer.
pub(super) async fn end(decision: Decision, status: Option<&Status>) -> Result<(), AuditUnavailable> {
    let outcome = match status.map(Status::code) {
        None => Outcome::Allowed,
        // The caller is known: what is not good is the user's token, or what it was known by is so no more.
        Some(Code::PermissionDenied | Code::Unauthenticated) => Outcome::Denied,
        Some(_) => Outcome::Failed,
    };
    let reason = status.and_then(StatusExt::get_details_error_info).map(|info| info.reason);
    if reason.as_deref() == Some(RATE_LIMITED) {
        // A flood of calls must not become a flood of rows: the metric counts them.
        decision.forget();
        return Ok(());
    }
    decision.end(outcome, reason).await
}

#[derive(Debug, PartialEq, Eq)]
struct MalformedPurpose;

fn purpose(headers: &HeaderMap) -> Result<Option<String>, MalformedPurpose> {
    let mut entries = headers.get_all(PURPOSE).iter();
    let Some(entry) = entries.next() else { return Ok(None) };
    if entries.next().is_some() || !is_purpose(entry.as_bytes()) {
        return Err(MalformedPurpose);
    }
    entry.to_str().map(|text| Some(text.to_owned())).map_err(|_| MalformedPurpose)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[&[u8]]) -> Result<Option<String>, MalformedPurpose> {
        let mut headers = HeaderMap::new();
        for entry in entries {
            headers.append(PURPOSE, HeaderValue::from_bytes(entry).unwrap());
        }
        purpose(&headers)
    }

    #[test]
    fn a_purpose_is_one_entry_of_printable_text() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"summarise the inbox (run 7)"]).unwrap().unwrap(), "summarise the inbox (run 7)");
        assert!(read(&[&[b'a'; 128]]).is_ok());
        let bad: &[&[&[u8]]] =
            &[&[b""], &[&[b'a'; 129]], &[b"a\tb"], &[b"\xff"], &["\u{e9}".as_bytes()], &[b"a", b"a"]];
        for entries in bad {
            assert_eq!(read(entries), Err(MalformedPurpose), "{entries:?}");
        }
    }
}
