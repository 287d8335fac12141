//! What the use cases count. The names' help texts are in `telemetry/metrics.rs`; labels are few and never
//! a user's.

use crate::domain::flow::Flow;
use crate::domain::key::{ConfigId, ProviderId};
use crate::domain::provider::{AppKey, Provider};
use crate::domain::rate_limit::RateLimit;

/// A provider as a label. Tenants' own share one: there is no end of them, and each label is memory.
fn label(provider: &ProviderId, configuration: Option<ConfigId>) -> String {
    if configuration.is_some() { "(own)".to_owned() } else { provider.to_string() }
}

/// How a presentation of a refresh token, or the write after it, ended.
pub(super) fn refresh(provider: &Provider, outcome: &'static str) {
    let provider = label(&provider.id, provider.configuration());
    metrics::counter!("token_broker_refreshes_total", "provider" => provider, "outcome" => outcome)
        .increment(1);
}

/// How a consent ended.
pub(super) fn consent(flow: &Flow, outcome: &'static str) {
    let provider = label(&flow.key.provider, flow.configuration);
    metrics::counter!("token_broker_consents_total", "provider" => provider, "outcome" => outcome)
        .increment(1);
}

/// How an attempt to revoke at a provider ended.
pub(super) fn revocation(provider: &Provider, outcome: &'static str) {
    let provider = label(&provider.id, provider.configuration());
    metrics::counter!("token_broker_revocations_total", "provider" => provider, "outcome" => outcome)
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

/// A pair that an earlier presentation had left elsewhere came into its row.
pub(super) fn adoption(source: &'static str) {
    metrics::counter!("token_broker_adoptions_total", "source" => source).increment(1);
}

/// The permit store did not do what the protocol asked of it.
pub(super) fn permit_store_error(operation: &'static str) {
    metrics::counter!("token_broker_permit_store_errors_total", "operation" => operation).increment(1);
}

/// The journal did not take a record.
pub(super) fn journal_error() {
    metrics::counter!("token_broker_journal_errors_total").increment(1);
}

/// Whether one of the operator's providers answers nobody, as far as is known. Tenants' own are told of in the log alone.
pub(super) fn circuit(app: &AppKey, in_doubt: bool) {
    if app.configuration.is_some() {
        return;
    }
    metrics::gauge!("token_broker_circuit_open", "provider" => app.provider.to_string()).set(if in_doubt {
        1.0
    } else {
        0.0
    });
}

/// From a claim to the row's new pair, the provider's own time included.
pub(super) fn refresh_duration(seconds: f64) {
    metrics::histogram!("token_broker_refresh_duration_seconds").record(seconds);
}

/// How long after its time the background began a refresh.
pub(super) fn refresh_lag(seconds: f64) {
    metrics::histogram!("token_broker_refresh_lag_seconds").record(seconds);
}

/// Decisions found no room in the audit queue.
pub(super) fn audit_dropped(count: u64) {
    metrics::counter!("token_broker_audit_dropped_total").increment(count);
}

/// The vault, the database or a sink did not take a batch of audit rows.
pub(super) fn audit_error(place: &'static str) {
    metrics::counter!("token_broker_audit_errors_total", "place" => place).increment(1);
}

/// A sink has no room for audit rows.
pub(super) fn audit_sink_dropped(sink: &'static str, rows: usize) {
    let rows = u64::try_from(rows).unwrap_or(u64::MAX);
    metrics::counter!("token_broker_audit_sink_dropped_total", "sink" => sink).increment(rows);
}

/// A chain's head is older than it was.
pub(super) fn audit_set_back() {
    metrics::counter!("token_broker_audit_set_back_total").increment(1);
}

/// A call or page was refused by a rate limit.
pub(super) fn rate_limited(limit: RateLimit) {
    metrics::counter!("token_broker_rate_limited_total", "limit" => limit.name()).increment(1);
}

/// A call was counted by this replica alone.
pub(super) fn limits_alone() {
    metrics::counter!("token_broker_rate_limits_alone_total").increment(1);
}

/// Rows of a step of a pass that were sealed under the active data key, and those that somebody else was changing.
pub(super) fn reencrypted(renewed: u64, skipped: u64) {
    metrics::counter!("token_broker_reencrypted_rows_total", "outcome" => "renewed").increment(renewed);
    metrics::counter!("token_broker_reencrypted_rows_total", "outcome" => "skipped").increment(skipped);
}

/// About how many rows the pass that is under way will still look at.
pub(super) fn reencryption_left(rows: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("token_broker_reencryption_rows_left").set(rows as f64);
}
