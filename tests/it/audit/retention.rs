//! Old rows go, and what is left can be verified.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::domain::audit::{Audit as _, AuditStore as _, Entry, FlawKind, Mark, Outcome, PRUNE};
use token_broker::domain::key::TenantId;
use token_broker::domain::ports::Clock as _;

use super::scripted::{Script, ScriptedSealer};
use super::{LONG, SHORT, World, tamper, tenant, until};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn record(world: &World, log: &token_broker::application::audit::AuditLog, count: u32) {
    for _ in 0..count {
        let entry = Entry::new(world.clock.now(), tenant(), "GetCredential", Outcome::Allowed);
        log.record(entry).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_are_removed_and_the_rest_is_a_chain_that_says_so() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    let archive = world.archive(&log);
    record(&world, &log, 600).await;
    archive.prune().await.unwrap();
    assert_eq!(world.rows().await.len(), 600);

    world.clock.advance(5 * DAY);
    record(&world, &log, 3).await;
    world.clock.advance(3 * DAY);
    archive.prune().await.unwrap();
    let rows = world.rows().await;
    let sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [601, 602, 603, 604]);
    assert_eq!(rows[3].entry.action, PRUNE);
    let Some(Mark::Pruned(end)) = rows[3].entry.mark else { panic!("{:?}", rows[3]) };
    assert_eq!(end.sequence, 600);
    let verdict = archive.verify(&tenant(), None).await.unwrap();
    assert_eq!((verdict.base, verdict.head, verdict.flaw), (end, rows[3].head(), None));

    // Soon again nothing is said anew; a day later it is.
    archive.prune().await.unwrap();
    assert_eq!(world.rows().await, rows);
    world.clock.advance(8 * DAY);
    archive.prune().await.unwrap();
    let rows = world.rows().await;
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [605]);
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_interrupted_is_verified_and_ended() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    let archive = world.archive(&log);
    record(&world, &log, 5).await;
    let end = world.rows().await[2].head();
    let mut said = Entry::new(world.clock.now(), tenant(), PRUNE, Outcome::Allowed);
    said.mark = Some(Mark::Pruned(end));
    // The process dies behind the word, or between the batches.
    log.record_for_certain(said).await.unwrap();
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
    world.store.delete_audit_through(&tenant(), 3, 1).await.unwrap();
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
    archive.prune().await.unwrap();
    assert_eq!(world.rows().await[0].sequence, 4);
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
}

/// The first tenant's chain can't be written, so nothing of it is removed. The others' rows go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_key_is_not_to_be_had_keeps_its_rows_alone() {
    let world = World::new().await;
    let other = TenantId::new("globex").unwrap();
    let sealer = ScriptedSealer { inner: world.sealer.clone(), tenant: tenant(), script: Script::default() };
    let sealer = Arc::new(sealer);
    let log = world.log_by(Arc::new(world.store.clone()), sealer.clone(), SHORT, vec![]);
    for tenant in [tenant(), other.clone()] {
        let entry = Entry::new(world.clock.now(), tenant, "GetCredential", Outcome::Allowed);
        until(async || log.record(entry.clone()).await.is_ok()).await;
    }
    sealer.script.down.store(true, Ordering::SeqCst);
    world.clock.advance(8 * DAY);
    let archive = world.archive(&log);
    let kept = world.rows().await;
    until(async || {
        archive.prune().await.unwrap_err();
        let rows = world.store.audit_after(&other, 0, 10).await.unwrap();
        rows[0].entry.action == PRUNE
    })
    .await;
    assert_eq!(world.rows().await, kept);
}

/// Somebody with the database says himself that rows are removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_the_broker_did_not_say_is_detected() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    let archive = world.archive(&log);
    record(&world, &log, 5).await;
    let forged = "INSERT INTO audit_log (tenant, sequence, created_at, action, outcome, services, mark, mark_hash, hash, seal)
        SELECT tenant, 6, created_at, 'AuditPrune', 'allowed', '[]', 3, hash, hash, seal FROM audit_log WHERE sequence = 3;
        UPDATE audit_heads SET sequence = 6;
        DELETE FROM audit_log WHERE sequence <= 3";
    tamper(&world, forged).await.unwrap();
    let verdict = archive.verify(&tenant(), None).await.unwrap();
    assert_eq!(verdict.flaw.map(|flaw| (flaw.sequence, flaw.kind)), Some((6, FlawKind::Changed)));
}
