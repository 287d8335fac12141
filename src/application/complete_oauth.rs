//! The callback.
use std::sync::Arc;

use super::Broker;
use super::types::{CallbackInput, CallbackOutcome};

impl Broker {
    /// Takes what the browser brought from the provider. Runs to its end even if the browser hangs up.
    pub async fn complete_oauth(self: &Arc<Self>, input: CallbackInput) -> CallbackOutcome {
        let _ = input;
        todo!()
    }
}
