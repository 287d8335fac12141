//! Chains don't wait for each other: a tenant whose key is not to be had is held up, and refused, alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::audit::{AuditLog, AuditSettings, OnFailure};
use token_broker::domain::audit::{
    Audit as _, AuditSealer, AuditStore as _, AuditUnavailable, Entry, GAP, Hash, Mark, Row,
};
use token_broker::domain::key::TenantId;

use super::scripted::{Script, ScriptedSealer, ScriptedSink, ScriptedStore};
use super::{LONG, World, entry, entry_of, tamper, tenant, until, vault};

/// Short enough to wait for, and long enough for a commit.
const WAIT: AuditSettings =
    AuditSettings { on_failure: OnFailure::Refuse, wait: Duration::from_secs(1), queue: 10_000 };

fn other() -> TenantId {
    TenantId::new("globex").unwrap()
}

fn others(request: &impl ToString) -> Entry {
    entry_of(other(), &request.to_string())
}

/// A sealer that does what the script says for one tenant.
fn sealer(world: &World, script: Script) -> Arc<ScriptedSealer> {
    Arc::new(ScriptedSealer { inner: world.sealer.clone(), tenant: tenant(), script })
}

async fn rows_of(world: &World, tenant: &TenantId) -> Vec<Row> {
    world.store.audit_after(tenant, 0, 10_000).await.unwrap()
}

async fn is_in_order(world: &World, log: &Arc<AuditLog>, tenant: &TenantId) {
    assert_eq!(world.archive(log).verify(tenant, None).await.unwrap().flaw, None);
}

/// The number in the one gap of these rows.
fn gap(rows: &[Row]) -> u64 {
    let gaps: Vec<_> = rows.iter().filter(|row| row.entry.action == GAP).collect();
    assert_eq!(gaps.len(), 1);
    let Some(Mark::Gap(count)) = gaps[0].entry.mark else { panic!("{:?}", gaps[0]) };
    count
}

async fn is_held_up_alone(script: Script, repair: impl Fn(&Script)) {
    let world = World::new().await;
    let sealer = sealer(&world, script);
    let sink = Arc::new(ScriptedSink::default());
    let log = world.log_by(Arc::new(world.store.clone()), sealer.clone(), WAIT, vec![sink.clone()]);
    assert_eq!(log.record(entry("1")).await, Err(AuditUnavailable));
    until(async || log.is_stuck(&tenant())).await;
    assert_eq!(log.record(entry("2")).await, Err(AuditUnavailable));
    for n in 0..3 {
        log.record(others(&n)).await.unwrap();
    }
    assert!(!log.is_stuck(&other()));
    assert!(log.is_stuck(&tenant()));
    assert!(world.rows().await.is_empty());

    repair(&sealer.script);
    until(async || !log.is_stuck(&tenant()) && log.record(entry("3")).await.is_ok()).await;
    log.close().await;
    assert_eq!(world.requests().await[..2], ["1", "2"]);
    for tenant in [tenant(), other()] {
        is_in_order(&world, &log, &tenant).await;
        let copied = sink.got.lock().unwrap().clone();
        let copied: Vec<_> = copied.into_iter().filter(|row| row.entry.tenant == tenant).collect();
        assert_eq!(copied, rows_of(&world, &tenant).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_key_is_not_to_be_had_is_refused_alone_and_recorded_when_it_is() {
    let away = Script::default();
    away.down.store(true, Ordering::SeqCst);
    is_held_up_alone(away, |script| script.down.store(false, Ordering::SeqCst)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_key_service_hangs_is_refused_alone_and_recorded_when_it_answers() {
    is_held_up_alone(Script::blocked(), Script::unblock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_key_is_not_to_be_had_leaves_the_queue_to_the_others() {
    let world = World::new().await;
    let sealer = sealer(&world, Script::default());
    sealer.script.down.store(true, Ordering::SeqCst);
    // An eighth of it is 10.
    let settings = AuditSettings { queue: 80, ..LONG };
    let log = world.log_by(Arc::new(world.store.clone()), sealer.clone(), settings, vec![]);
    log.note(entry("0"));
    // At the second attempt the first has failed.
    sealer.script.has_begun(2).await;
    for n in 1..=100 {
        log.note(entry(&n.to_string()));
    }
    for n in 0..69 {
        log.note(others(&n));
    }
    log.record(others(&"last")).await.unwrap();
    assert_eq!(rows_of(&world, &other()).await.len(), 70);

    sealer.script.down.store(false, Ordering::SeqCst);
    log.close().await;
    let expected: Vec<_> = (0..=10).map(|n| n.to_string()).collect();
    assert_eq!(world.requests().await, expected);
    assert_eq!(gap(&world.rows().await), 90);
    is_in_order(&world, &log, &tenant()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_full_when_the_key_was_lost_has_room_for_the_others_again() {
    let world = World::new().await;
    let sealer = sealer(&world, Script::default());
    let script = Arc::new(Script::blocked());
    let store = ScriptedStore { inner: Arc::new(world.store.clone()), script: script.clone() };
    // An eighth of it is 100.
    let settings = AuditSettings { queue: 800, ..LONG };
    let log = world.log_by(Arc::new(store), sealer.clone(), settings, vec![]);
    // While the others' key is read for the first time, their chain has no more than a share, either.
    sealer.seal(&other(), &[Hash([0; 32])]).await.unwrap();
    log.note(entry("0"));
    script.has_begun(1).await;
    for n in 1..=800 {
        log.note(entry(&n.to_string()));
    }
    sealer.script.down.store(true, Ordering::SeqCst);
    let before = sealer.script.begun();
    script.unblock();
    // The next batch is sealed in vain, and then again: by then the rest has been cut.
    sealer.script.has_begun(before + 2).await;
    for n in 0..700 {
        log.note(others(&n));
    }
    sealer.script.down.store(false, Ordering::SeqCst);
    log.close().await;
    // The first row, the batch behind it, and its share; all that were lost are told of.
    assert_eq!(world.requests().await.len(), 1 + 256 + 100);
    assert_eq!(gap(&world.rows().await), 444);
    assert_eq!(rows_of(&world, &other()).await.len(), 700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_all_others_are_written_though_one_is_not() {
    let world = World::new().await;
    let sealer = sealer(&world, Script::blocked());
    let log = world.log_by(Arc::new(world.store.clone()), sealer.clone(), LONG, vec![]);
    log.note(entry("1"));
    log.note(others(&"1"));
    log.note(others(&"2"));
    let closing = tokio::spawn({
        let log = log.clone();
        async move { log.close().await }
    });
    until(async || rows_of(&world, &other()).await.len() == 2).await;
    assert!(!closing.is_finished());
    sealer.script.unblock();
    closing.await.unwrap();
    assert_eq!(world.requests().await, ["1"]);
    assert_eq!(log.record_for_certain(others(&"late")).await, Err(AuditUnavailable));
}

/// The real vault, and a row of it that does not open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_key_is_damaged_is_refused_alone() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    log.record(entry("1")).await.unwrap();
    log.record(others(&"1")).await.unwrap();
    log.close().await;
    let damage = "CREATE TABLE kept AS SELECT id, wrapped FROM data_keys;
        UPDATE data_keys SET wrapped = zeroblob(length(wrapped)) WHERE tenant = 'acme' AND purpose = 'fingerprint'";
    tamper(&world, damage).await.unwrap();

    // Another replica, with no key in memory.
    let fresh: Arc<dyn AuditSealer> = vault(Arc::new(world.store.clone()));
    let log = world.log_by(Arc::new(world.store.clone()), fresh, WAIT, vec![]);
    assert_eq!(log.record(entry("2")).await, Err(AuditUnavailable));
    log.record(others(&"2")).await.unwrap();
    until(async || log.is_stuck(&tenant())).await;
    assert!(!log.is_stuck(&other()));
    let repair = "UPDATE data_keys SET wrapped = (SELECT wrapped FROM kept WHERE kept.id = data_keys.id)";
    tamper(&world, repair).await.unwrap();
    until(async || log.record(entry("3")).await.is_ok()).await;
    assert_eq!(world.requests().await[..2], ["1", "2"]);
    for tenant in [tenant(), other()] {
        is_in_order(&world, &log, &tenant).await;
    }
}
