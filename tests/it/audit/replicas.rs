//! Several replicas write one chain.

use std::sync::Arc;

use token_broker::application::audit::{AuditArchive, AuditLog};
use token_broker::domain::audit::{Audit as _, AuditStore as _};
use token_broker::infra::storage::postgres::RowClock;

use super::{LONG, entry, tenant, vault};
use crate::engines;
use crate::support::clock::ManualClock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_write_at_one_time_make_one_chain() {
    let server = engines::postgres::shared();
    let settings = engines::postgres::settings(&server.url(&server.migrated_database().await));
    let mut logs = Vec::new();
    let mut archives = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(engines::postgres::open(&settings, RowClock::Caller).await);
        let sealer = vault(store.clone());
        let clock = Arc::new(ManualClock::new());
        let log = AuditLog::start(store.clone(), sealer.clone(), vec![], clock.clone(), LONG);
        archives.push((store.clone(), AuditArchive::new(store, sealer, log.clone(), clock, None)));
        logs.push(log);
    }
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let log = logs[caller % 2].clone();
            tokio::spawn(async move {
                for n in 0..25 {
                    log.record(entry(&format!("{caller}-{n}"))).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    for (store, archive) in &archives {
        let verdict = archive.verify(&tenant(), None).await.unwrap();
        assert_eq!((verdict.flaw, verdict.head.sequence), (None, 400));
        let mut ids: Vec<_> = store.audit_after(&tenant(), 0, 1_000).await.unwrap();
        ids.sort_by(|a, b| a.entry.request_id.cmp(&b.entry.request_id));
        ids.dedup_by(|a, b| a.entry.request_id == b.entry.request_id);
        assert_eq!(ids.len(), 400);
    }
}
