//! The subscriber: JSON or for people, on standard error.

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, registry};

/// How to log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// One JSON object a line, else for people.
    pub json: bool,
    /// What is logged of this crate, and of others down to `info`.
    pub level: Targets,
}

/// There is a subscriber already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySetUp;

/// Sets up logging for the process.
pub fn init(options: &LogOptions) -> Result<(), AlreadySetUp> {
    let filter = options.level.clone().and(filter_fn(is_safe));
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if options.json {
        Box::new(
            fmt::layer()
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .with_writer(std::io::stderr)
                .with_filter(filter),
        )
    } else {
        Box::new(
            fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .with_filter(filter),
        )
    };
    registry().with(layer).try_init().map_err(|_| AlreadySetUp)
}

/// Whether an event or span can be logged without showing a secret.
///
/// Below `info`, hyper and h2 log header lists (`authorization: Bearer …`) and frames, reqwest and hyper-util URLs, sqlx
/// statements, rustls handshakes. None of them needs to be named here, and no new dependency can be forgotten: only this
/// crate's own events, whose secrets are typed, get through. That holds for spans too: h2 puts frames in span fields.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target() == OWN || metadata.target().starts_with("token_broker::");
    own || *metadata.level() <= Level::INFO
}

/// This crate's target.
const OWN: &str = "token_broker";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_setting_makes_other_crates_log_below_info() {
        let captured = Captured::default();
        let writer = captured.clone();
        let level: Targets = "trace,h2=trace,hyper=trace,token_brokerage=trace".parse().unwrap();
        let layer =
            fmt::layer().with_writer(move || writer.clone()).with_filter(level.and(filter_fn(is_safe)));
        tracing::subscriber::with_default(registry().with(layer), || {
            tracing::trace!(target: "token_broker", "own-trace");
            tracing::trace!(target: "token_broker::infra", "own-module-trace");
            tracing::trace!(target: "token_brokerage", "foreign-lookalike");
            tracing::debug!(target: "hyper::client", "foreign-debug");
            tracing::info!(target: "sqlx", "foreign-info");
            let span = tracing::debug_span!(target: "h2::codec", "frames", header = "foreign-field");
            span.in_scope(|| tracing::info!(target: "token_broker", "inside"));
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        for seen in ["own-trace", "own-module-trace", "foreign-info", "inside"] {
            assert!(text.contains(seen), "{seen} is missing in {text}");
        }
        for hidden in ["foreign-lookalike", "foreign-debug", "foreign-field"] {
            assert!(!text.contains(hidden), "{hidden} is in {text}");
        }
    }
}
