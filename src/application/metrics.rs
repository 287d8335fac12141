//! What the use cases count. The names' help texts are in `telemetry/metrics.rs`; labels are few and never
//! a user's.

use crate::domain::key::ProviderId;

/// How a presentation of a refresh token, or the write after it, ended.
pub(super) fn refresh(provider: &ProviderId, outcome: &'static str) {
    metrics::counter!("token_broker_refreshes_total", "provider" => provider.to_string(), "outcome" => outcome)
        .increment(1);
}

/// How a consent ended.
pub(super) fn consent(provider: &ProviderId, outcome: &'static str) {
    metrics::counter!("token_broker_consents_total", "provider" => provider.to_string(), "outcome" => outcome)
        .increment(1);
}

/// How an attempt to revoke at a provider ended.
pub(super) fn revocation(provider: &ProviderId, outcome: &'static str) {
    metrics::counter!("token_broker_revocations_total", "provider" => provider.to_string(), "outcome" => outcome)
        .increment(1);
}

/// What a token request was answered with.
pub(super) fn token_answer(outcome: &'static str) {
    metrics::counter!("token_broker_token_answers_total", "outcome" => outcome).increment(1);
}

/// What became of a lease.
pub(super) fn lease(outcome: &'static str) {
    metrics::counter!("token_broker_leases_total", "outcome" => outcome).increment(1);
}
