//! What happens to every call, whatever its method:
//!
//! 1. its request id is taken or made, and echoed;
//! 2. the deadline is read and capped;
//! 3. the caller is authenticated, unless it asks for health; from here on the call has its row in the audit log (`audit.rs`).
//!    The caller's rate limits are asked, then whether it may call at all, and last the user's token is verified;
//! 4. the method runs; a panic in it is this call's failure only, and at the deadline it is given up;
//! 5. errors that the framework made get the broker's own reasons;
//! 6. the decision is recorded: an answer that can't be, where the operator demands it, is withheld;
//! 7. the call is logged and counted, also if the caller has hung up.
//!
//! All of it is about the head of the answer. The messages of a stream come behind it: see `watch.rs`.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::Instrument as _;

use super::audit;
use super::deadline::Deadline;
use super::identify::{Identifier, Known, KnownUser, OtherEnd};
use super::incoming::ConnectionInfo;
use super::observe::{CallMetrics, Method, REQUEST_ID, RequestIds};
use super::status;
use super::status::code_name;
use crate::application::Identified;
use crate::application::audit::{Auditor, Decision, Notes};
use crate::application::error::BrokerError;
use crate::application::limits::Admission as Admitted;
use crate::application::types::ServiceKey;
use crate::domain::access_policy::{Caller, Principal, Question};
use crate::domain::key::UserId;
use crate::domain::ports::Entropy;
use crate::transport::proxies::Proxies;

/// What the guard needs to know.
pub(super) struct Guard {
    identifier: Identifier,
    auditor: Auditor,
    proxies: Proxies,
    request_ids: RequestIds,
    max_deadline: Duration,
    metrics: CallMetrics,
    calls: TaskTracker,
}

/// What the guard found out about a call, for the service.
#[derive(Clone)]
pub(super) struct Call {
    /// Who calls.
    pub(super) principal: Arc<Principal>,
    /// Whether that is so still, for calls that go on for long.
    pub(super) identified: Identified,
    /// Until when what it presented is good; `None`: for good.
    pub(super) identity_until: Option<Instant>,
    /// Until when.
    pub(super) deadline: Deadline,
    /// When its connection was accepted; when it came, if that is not known.
    pub(super) connected_at: Instant,
    /// For its row in the audit log.
    pub(super) notes: Notes,
    /// The rate limits, to be asked when it is known whom the call is for.
    admission: Option<Admitted>,
}

impl Call {
    /// What it is about is known: notes it, and asks all rate limits. `asked`: what the policy has to allow.
    pub(super) async fn is_about(&self, key: &ServiceKey, asked: &[Question<'_>]) -> Result<(), BrokerError> {
        self.notes.about(key);
        self.limited(asked).await
    }

    /// Asks all rate limits, before any work is done; the user's own only if the policy allows what is asked.
    pub(super) async fn limited(&self, asked: &[Question<'_>]) -> Result<(), BrokerError> {
        match &self.admission {
            Some(admission) => admission.ask_for(&self.principal, asked).await,
            None => Ok(()),
        }
    }
}

/// What the guard found out, and the message. Without a caller nothing is done, even if somebody takes the guard away.
pub(super) fn open<T>(request: tonic::Request<T>) -> Result<(Call, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let call = extensions.remove::<Call>().ok_or_else(status::unauthenticated)?;
    Ok((call, message))
}

impl Guard {
    /// `identifier` knows who calls; no call takes longer than `max_deadline`; `calls` counts those under way.
    pub(super) fn new(
        identifier: Identifier,
        auditor: Auditor,
        proxies: Proxies,
        entropy: &dyn Entropy,
        max_deadline: Duration,
        calls: TaskTracker,
    ) -> Self {
        Self {
            identifier,
            auditor,
            proxies,
            request_ids: RequestIds::new(entropy),
            max_deadline,
            metrics: CallMetrics::new(),
            calls,
        }
    }

    /// Steps 2 and 3. A method that is open to everybody asks nobody who they are.
    async fn admit(
        &self,
        (headers, request_id): (&HeaderMap, &HeaderValue),
        connection: Option<&ConnectionInfo>,
        method: Method,
        now: Instant,
    ) -> Admission {
        let deadline = Deadline::from_headers(headers, now, self.max_deadline);
        let malformed = deadline.is_err().then(status::malformed_timeout);
        let deadline = deadline.ok();
        if method.is_open() {
            return Admission { deadline, refusal: malformed, ..Admission::default() };
        }
        let cut_off_at = deadline.map_or(now + self.max_deadline, Deadline::cut_off_at);
        let address = self.proxies.client(connection.and_then(|info| info.address), headers);
        let peer = connection.and_then(|info| info.peer.as_ref());
        let identified = self.identifier.caller(headers, OtherEnd { peer, address });
        let mut known = match by(cut_off_at, identified).await {
            Ok(known) => known,
            Err(refusal) => {
                let refusal = Some(self.to_stranger(refusal, address));
                return Admission { deadline, refusal, ..Admission::default() };
            }
        };
        let who = (&*known.caller, known.identity.kind());
        let (mut decision, unrecorded) = audit::begin(&self.auditor, method, who, request_id, headers);
        let (admitted, over) = match self.within_limits(&known.caller, method).await {
            Ok(admitted) => (Some(admitted), None),
            Err(error) => (None, Some(error.into())),
        };
        let suspended = known.caller.suspension.map(|why| BrokerError::Suspended(why).into());
        let mut refusal = over.or(suspended).or(malformed).or(unrecorded);
        let mut user = None;
        if refusal.is_none() {
            // The dearest comes last: it costs a signature.
            match by(cut_off_at, self.identifier.user(headers)).await {
                Ok(None) => {}
                Ok(Some(KnownUser { id, until })) => {
                    known.until = [known.until, until].into_iter().flatten().min();
                    user = Some(id);
                    if let Some(decision) = &mut decision {
                        decision.by_users_token();
                    }
                }
                Err(bad) => refusal = Some(bad),
            }
        }
        Admission { known: Some((known, user)), decision, admitted, deadline, refusal }
    }

    /// The limits of whom the call is from. Whom it is for, only its message says: see [`Call::limited`].
    async fn within_limits(&self, caller: &Arc<Caller>, method: Method) -> Result<Admitted, BrokerError> {
        let admitted = self.identifier.limits.at_the_door(caller, method.class())?;
        if method.is_operators() {
            admitted.ask().await?;
        }
        Ok(admitted)
    }

    /// Guessing is bounded; whoever is remembered is never held up by strangers at the same address.
    fn to_stranger(&self, refusal: Status, address: Option<IpAddr>) -> Status {
        if refusal.code() != Code::Unauthenticated {
            return refusal;
        }
        self.identifier.limits.stranger(address).err().map_or(refusal, Status::from)
    }
}

/// What steps 2 and 3 found out.
#[derive(Default)]
struct Admission {
    /// The caller, and the user whose token came along. `None`: nobody who is known, or nobody was asked.
    known: Option<(Known, Option<UserId>)>,
    decision: Option<Decision>,
    admitted: Option<Admitted>,
    deadline: Option<Deadline>,
    refusal: Option<Status>,
}

/// Identifies, at most until the call is cut off.
async fn by<T>(
    cut_off_at: Instant,
    identified: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let cut_off = |_elapsed| Err(status::deadline_exceeded());
    tokio::time::timeout_at(cut_off_at, identified).await.unwrap_or_else(cut_off)
}

/// The middleware.
pub(super) async fn run(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let _under_way = guard.calls.token();
    let started = Instant::now();
    let method = Method::of(request.uri().path());
    let request_id = guard.request_ids.of(request.headers());
    let span = tracing::info_span!(
        "call",
        method = method.name(),
        request_id = request_id.to_str().unwrap_or("-"),
        caller = tracing::field::Empty,
    );
    let record = Record { guard: &guard, method, started, span: span.clone(), ended: false };
    let connection = request.extensions().get::<ConnectionInfo>().cloned();
    let presented = (request.headers(), &request_id);
    let admission = guard.admit(presented, connection.as_ref(), method, started);
    let Admission { known, decision, admitted, deadline, refusal } = admission.instrument(span.clone()).await;
    span.record("caller", known.as_ref().map_or("-", |(known, _)| known.caller.id.as_str()));
    if let (Some((known, user)), Some(deadline)) = (known, deadline) {
        let Known { caller, until: identity_until, identity } = known;
        let identified = Identified::new(Arc::clone(&guard.identifier.callers), identity);
        let connected_at = connection.map_or(started, |info| info.opened_at);
        let notes = decision.as_ref().map(Decision::notes).unwrap_or_default();
        request.extensions_mut().insert(Call {
            principal: Arc::new(Principal { caller, user }),
            identified,
            identity_until,
            deadline,
            connected_at,
            notes,
            admission: admitted.clone(),
        });
    }
    let mut response = match (refusal, deadline) {
        (Some(refusal), _) => refusal.into_http(),
        (None, Some(deadline)) => answer(next.run(request).instrument(span), deadline).await,
        (None, None) => status::malformed_timeout().into_http(),
    };
    if method.is_own() {
        response = with_own_reason(response);
    }
    if let Some(admitted) = admitted {
        admitted.end().await;
    }
    let mut outcome = status_of(&response);
    if let Some(decision) = decision
        && audit::end(decision, outcome.as_ref()).await.is_err()
    {
        let withheld = status::audit_unavailable();
        outcome = Some(withheld.clone());
        response = withheld.into_http();
    }
    record.end(outcome.as_ref());
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

/// Step 4.
async fn answer(method: impl Future<Output = Response>, deadline: Deadline) -> Response {
    let guarded = AssertUnwindSafe(method).catch_unwind();
    match tokio::time::timeout_at(deadline.cut_off_at(), guarded).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            // The payload stays out of the log: it may quote anything. The panic hook has named the line.
            tracing::error!("a call panicked");
            status::internal().into_http()
        }
        Err(_elapsed) => status::deadline_exceeded().into_http(),
    }
}

/// Step 5. What the framework refuses (a body that is no message, one too large, an unknown method or compression) it
/// answers by a code alone, and not always the caller's kind of code.
fn with_own_reason(response: Response) -> Response {
    let Some(made) = status_of(&response) else { return response };
    if made.get_details_error_info().is_some() {
        return response;
    }
    let mut own = match made.code() {
        Code::Ok | Code::Cancelled => return response,
        // Nothing of the broker's answers INTERNAL without a reason, so it is the decoder that speaks.
        Code::Internal | Code::InvalidArgument => status::malformed_request(),
        Code::OutOfRange | Code::ResourceExhausted => status::request_too_large(),
        Code::Unimplemented => status::unimplemented(),
        Code::DeadlineExceeded => status::deadline_exceeded(),
        Code::Unauthenticated => status::unauthenticated(),
        Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::DataLoss => {
            tracing::error!(code = code_name(made.code()), "an error without a reason");
            status::internal()
        }
    };
    // `grpc-accept-encoding` goes with an unknown compression.
    *own.metadata_mut() = made.metadata().clone();
    own.into_http()
}

/// The error that a response tells. `None`: it is a success, as far as its head says.
fn status_of(response: &Response) -> Option<Status> {
    let kept = response.extensions().get::<Status>().cloned();
    // An unknown method is answered by headers alone.
    kept.or_else(|| Status::from_header_map(response.headers())).filter(|status| status.code() != Code::Ok)
}

/// Step 7.
struct Record<'a> {
    guard: &'a Guard,
    method: Method,
    started: Instant,
    span: tracing::Span,
    ended: bool,
}

impl Record<'_> {
    fn end(mut self, status: Option<&Status>) {
        self.ended = true;
        let reason = status.and_then(StatusExt::get_details_error_info).map(|info| info.reason);
        self.write(status.map_or(Code::Ok, Status::code), reason.as_deref().unwrap_or_default());
    }

    fn write(&self, code: Code, reason: &str) {
        let took = self.started.elapsed();
        self.guard.metrics.record(self.method, code, took);
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let code = code_name(code);
        let _entered = self.span.enter();
        if self.method.is_open() {
            // Probes come every few seconds.
            tracing::debug!(code, reason, duration_us, "answered");
        } else {
            tracing::info!(code, reason, duration_us, "answered");
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.write(Code::Cancelled, "CALLER_HUNG_UP");
        }
    }
}

#[cfg(test)]
mod strangers;
#[cfg(test)]
mod tests;
