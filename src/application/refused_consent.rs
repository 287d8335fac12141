//! Consents that were refused since it was not shown that the browser is the user's: the one place that tells of them.

use super::{Broker, metrics};
use crate::domain::audit::Outcome;
use crate::domain::flow::Flow;

/// What did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another browser came back from the provider than the one that was let in.
    OtherBrowser,
    /// Another user signed in than the flow's.
    OtherUserSignedIn,
    /// The application named another user than the flow's.
    OtherUserNamed,
    /// A half of CompleteOAuth was wrong.
    WrongHalf,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::OtherBrowser => "other_browser",
            Self::OtherUserSignedIn => "other_user_signed_in",
            Self::OtherUserNamed => "other_user_named",
            Self::WrongHalf => "wrong_half",
        }
    }
}

impl Broker {
    /// Tells operators, and the audit log. Says nothing of what was brought.
    pub(super) fn refused(&self, flow: &Flow, refusal: Refusal) {
        let refusal = refusal.as_str();
        metrics::consent(flow, refusal);
        self.audit_consent(flow, Outcome::Denied, refusal);
        tracing::warn!(
            tenant = %flow.key.tenant,
            caller = %flow.caller,
            flow = %flow.id,
            provider = %flow.key.provider,
            binding = flow.proof.binding.as_str(),
            refusal,
            "consent refused: it was not shown that the browser is the user's"
        );
    }
}
