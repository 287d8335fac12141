//! The audit log over its database and sinks.

use std::sync::Arc;

use super::StartError;
use crate::application::audit::{AuditArchive, AuditLog, AuditSettings, OnFailure};
use crate::config;
use crate::domain::audit::{AuditSealer, AuditSink, AuditStore};
use crate::domain::ports::Clock;
use crate::infra::audit::{FileSink, FileSinkSettings, StdoutSink};

/// The log, and the way to read it.
pub(super) struct Audit {
    pub(super) log: Arc<AuditLog>,
    pub(super) archive: Arc<AuditArchive>,
}

pub(super) fn start(
    config: &config::Audit,
    store: Arc<dyn AuditStore>,
    sealer: Arc<dyn AuditSealer>,
    clock: Arc<dyn Clock>,
) -> Result<Audit, StartError> {
    let mut sinks: Vec<Arc<dyn AuditSink>> = Vec::new();
    if config.stdout {
        sinks.push(Arc::new(StdoutSink::start().map_err(StartError::AuditStdout)?));
    }
    if let Some(file) = &config.file {
        let config::AuditFile { path, max_bytes, kept } = file.clone();
        sinks.push(Arc::new(FileSink::open(FileSinkSettings { path, max_bytes, kept })?));
    }
    let settings = AuditSettings {
        on_failure: if config.refuse { OnFailure::Refuse } else { OnFailure::GoOn },
        wait: config.wait,
        queue: config.queue,
    };
    let log = AuditLog::start(Arc::clone(&store), Arc::clone(&sealer), sinks, Arc::clone(&clock), settings);
    let archive = Arc::new(AuditArchive::new(store, sealer, log.clone(), clock, config.keep));
    Ok(Audit { log, archive })
}
