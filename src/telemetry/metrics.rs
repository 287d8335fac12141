//! Prometheus metrics: their names, their help texts, their buckets.
//!
//! Names are written where the thing happens; this list gives each its help text and is printed in
//! `docs/CONFIGURATION.md`. No label ever holds a user, a tenant, a scope or anything a caller made up.

use std::sync::OnceLock;

use metrics::Unit;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A value now.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// A metric that the broker exports.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// With unit and `_total` as Prometheus wants them.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Help text.
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, help }
}

/// 1 while the database answers, 0 while it does not.
pub const STORE_UP: &str = "token_broker_store_up";
/// 1 while the permit store answers, 0 while it does not.
pub const PERMIT_STORE_UP: &str = "token_broker_permit_store_up";
/// 1, with the version.
pub const BUILD_INFO: &str = "token_broker_build_info";

/// All of them.
pub const METRICS: &[Metric] = &[
    counter("token_broker_grpc_requests_total", "gRPC calls, by method and status code."),
    histogram("token_broker_grpc_request_duration_seconds", "How long gRPC calls took, by method."),
    counter("token_broker_pages_total", "Pages shown to browsers, by page."),
    counter("token_broker_token_answers_total", "Answers to GetCredential and Refresh, by outcome."),
    counter("token_broker_refreshes_total", "Refreshes, by provider and outcome."),
    counter("token_broker_consents_total", "Consents that ended, by provider and outcome."),
    counter("token_broker_revocations_total", "Revocations at providers, by provider and outcome."),
    counter(
        "token_broker_adoptions_total",
        "Token pairs that a row took over from the journal or the permit store, by source.",
    ),
    counter(
        "token_broker_permit_store_errors_total",
        "What the permit store did not do, by operation. The claim alone keeps tokens safe.",
    ),
    counter("token_broker_journal_errors_total", "Records that the journal did not take."),
    counter("token_broker_journal_flushes_total", "Flushes of the journal; several records may share one."),
    counter(
        "token_broker_journal_damaged_records_total",
        "Records of former runs' journals that could not be read.",
    ),
    gauge(
        "token_broker_circuit_open",
        "1 while a provider is left alone after failures, or its last answer was that it refuses the client or asks to be left alone; by provider.",
    ),
    histogram(
        "token_broker_refresh_duration_seconds",
        "From the claim of a refresh to its new token pair in the database.",
    ),
    histogram("token_broker_refresh_lag_seconds", "How late the background began refreshes."),
    counter("token_broker_leases_total", "Leases, by what became of them."),
    gauge("token_broker_watches", "Streams of WatchCredentials that are open."),
    counter("token_broker_watch_events_total", "Events told by WatchCredentials."),
    counter(
        "token_broker_audit_dropped_total",
        "Decisions that were not recorded: the audit queue had no room. A row of the log says how many.",
    ),
    counter(
        "token_broker_audit_errors_total",
        "Batches of audit rows that were not taken at once, by place.",
    ),
    counter("token_broker_audit_sink_dropped_total", "Audit rows that are missing in a sink, by sink."),
    counter("token_broker_audit_set_back_total", "Audit chains whose head was found older than before."),
    counter("token_broker_rate_limited_total", "Calls and pages that a rate limit refused, by limit."),
    counter(
        "token_broker_rate_limits_alone_total",
        "Calls that this replica counted alone, since Redis did not answer.",
    ),
    gauge(STORE_UP, "1 while the database answers."),
    gauge(PERMIT_STORE_UP, "1 while the permit store answers; without it refreshes go by claim alone."),
    gauge("token_broker_redis_up", "1 while Redis is connected; of a cluster, while all of it answers."),
    counter("token_broker_redis_errors_total", "Calls to Redis without a usable answer, by operation."),
    counter(
        "token_broker_key_service_calls_total",
        "Calls to services that hold key-encryption keys, by key, operation and outcome.",
    ),
    counter(
        "token_broker_reencrypted_rows_total",
        "Rows that were moved to the active data key, or left for the next pass, by outcome.",
    ),
    gauge(
        "token_broker_reencryption_rows_left",
        "Rows that the pass to the active data keys will still look at, on the replica that works.",
    ),
    gauge(BUILD_INFO, "1, with the version."),
];

/// From a token out of memory (1 ms) to a provider that takes all its time (30 s).
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("another metrics recorder is set up already")]
pub struct MetricsError;

/// Sets up metrics for the process, once: later calls answer the same handle.
pub fn install() -> Result<PrometheusHandle, MetricsError> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(build).clone().ok_or(MetricsError)
}

fn build() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().set_buckets(&SECONDS).ok()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    for &Metric { name, kind, help } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram => metrics::describe_histogram!(name, Unit::Seconds, help),
        }
    }
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Some(handle)
}
