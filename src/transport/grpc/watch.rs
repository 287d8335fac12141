//! The stream of WatchCredentials, and what ends it:
//!
//! - the caller, by hanging up;
//! - the caller's own deadline (`grpc-timeout`), with `DEADLINE_EXCEEDED`. The broker's limit for calls does not apply;
//! - what the caller presented, by expiring: with `UNAUTHENTICATED`; by being revoked, or the caller's by being deleted,
//!   disabled or allowed no longer: as a call would, and as soon (`application/watch.rs`);
//! - the age of its connection, and the broker's stop: without an error, since the caller goes on by its last cursor;
//! - the database, by failing: with `UNAVAILABLE`.
//!
//! A stream is asked for its next message only when the one before has room on its way, so a slow reader holds up nobody
//! and nothing grows. It does not count as a call under way: shutdown would wait for a reader that does not read.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt as _, Stream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert::answers;
use super::status;
use crate::application::Watch;
use crate::r#gen::v1::WatchCredentialsResponse;

/// What ends a watch beside its caller.
pub(super) struct Ends {
    /// The caller's deadline.
    pub(super) deadline: Option<Instant>,
    /// When the token or certificate that the caller presented, or the user's token, expires.
    pub(super) expires: Option<Instant>,
    /// When its connection is old enough.
    pub(super) old_at: Instant,
    /// The broker stops.
    pub(super) stop: CancellationToken,
}

/// Messages until one of the ends.
pub(super) fn stream(
    watch: Watch,
    ends: Ends,
) -> impl Stream<Item = Result<WatchCredentialsResponse, Status>> {
    let state = Some(Running { watch, ends, end: Ended::new() });
    futures_util::stream::unfold(state, |state| async move {
        let mut running = state?;
        match running.next().await {
            Some(Ok(message)) => Some((Ok(message), Some(running))),
            Some(Err(status)) => Some((Err(status), None)),
            None => None,
        }
    })
}

struct Running {
    watch: Watch,
    ends: Ends,
    end: Ended,
}

impl Running {
    async fn next(&mut self) -> Option<Result<WatchCredentialsResponse, Status>> {
        let Self { watch, ends, end } = self;
        let (deadline, expired) = (reached(ends.deadline), reached(ends.expires));
        tokio::select! {
            biased;
            () = ends.stop.cancelled() => {
                end.why = "the broker stops";
                None
            }
            () = deadline => {
                end.why = "the caller's deadline";
                Some(Err(status::deadline_exceeded()))
            }
            () = expired => {
                end.why = "what the caller presented has expired";
                Some(Err(status::identity_expired()))
            }
            () = sleep_until(ends.old_at) => {
                end.why = "the age of the connection";
                None
            }
            // A panic must not take the connection with it, and so the calls of others.
            message = AssertUnwindSafe(watch.next()).catch_unwind() => Some(match message {
                Ok(Ok(message)) => {
                    end.events += u64::from(message.event.is_some());
                    Ok(answers::watch_message(message))
                }
                Ok(Err(error)) => {
                    end.why = "an error";
                    Err(error.into())
                }
                Err(_panic) => {
                    tracing::error!("a watch panicked");
                    end.why = "an error";
                    Err(status::internal())
                }
            }),
        }
    }
}

/// `None` never is.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Logs the end, whatever it is.
struct Ended {
    span: tracing::Span,
    began: Instant,
    events: u64,
    why: &'static str,
}

impl Ended {
    fn new() -> Self {
        let span = tracing::Span::current();
        Self { span, began: Instant::now(), events: 0, why: "the caller hung up" }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let lasted_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(why = self.why, events = self.events, lasted_ms, "watch ended");
    }
}
