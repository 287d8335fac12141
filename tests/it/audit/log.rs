//! What happens when rows can't be written: fail closed and fail open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use token_broker::application::audit::{AuditSettings, Auditor, OnFailure};
use token_broker::domain::access_policy::{Caller, Principal};
use token_broker::domain::audit::{Audit as _, AuditStore as _, AuditUnavailable, GAP, Mark, Outcome};
use token_broker::domain::key::{CallerId, TenantId};

use super::scripted::{Script, ScriptedSink, ScriptedStore};
use super::{LONG, SHORT, World, entry, tenant, until};

fn scripted(world: &World, script: Script) -> (Arc<ScriptedStore>, Arc<Script>) {
    let script = Arc::new(script);
    (Arc::new(ScriptedStore { inner: Arc::new(world.store.clone()), script: script.clone() }), script)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_is_in_the_database_when_the_answer_leaves() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    log.record(entry("1")).await.unwrap();
    assert_eq!(world.requests().await, ["1"]);
    // Without closing anything: as after a crash.
    let archive = world.archive(&log);
    drop(log);
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_one_time_share_a_commit() {
    let world = World::new().await;
    let (store, script) = scripted(&world, Script::blocked());
    let log = world.log_over(store, LONG, vec![]);
    let first = tokio::spawn({
        let log = log.clone();
        async move { log.record(entry("first")).await }
    });
    script.has_begun(1).await;
    let others: Vec<_> = (0..50)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.record(entry(&n.to_string())).await })
        })
        .collect();
    tokio::task::yield_now().await;
    script.unblock();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(world.rows().await.len(), 51);
    assert!(script.begun() < 40, "{} commits", script.begun());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_closed_withholds_answers_while_the_database_is_away_and_loses_no_row() {
    let world = World::new().await;
    let (store, script) = scripted(&world, Script::default());
    let log = world.log_over(store, SHORT, vec![]);
    script.down.store(true, Ordering::SeqCst);
    assert_eq!(log.record(entry("1")).await, Err(AuditUnavailable));
    until(async || log.is_stuck(&tenant())).await;
    // It is also for those who have not tried yet.
    until(async || log.is_stuck(&TenantId::new("globex").unwrap())).await;
    assert_eq!(log.record(entry("2")).await, Err(AuditUnavailable));
    log.note(entry("3"));
    script.down.store(false, Ordering::SeqCst);
    until(async || !log.is_stuck(&tenant()) && log.record(entry("4")).await.is_ok()).await;
    let requests = world.requests().await;
    assert_eq!(requests[..3], ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_one_row() {
    let world = World::new().await;
    let (store, script) = scripted(&world, Script::default());
    let log = world.log_over(store, LONG, vec![]);
    log.record(entry("1")).await.unwrap();
    script.lost_answers.store(3, Ordering::SeqCst);
    log.record(entry("2")).await.unwrap();
    log.record(entry("3")).await.unwrap();
    assert_eq!(world.requests().await, ["1", "2", "3"]);
    assert_eq!(world.archive(&log).verify(&tenant(), None).await.unwrap().flaw, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_open_answers_at_once_and_tells_of_what_found_no_room() {
    let world = World::new().await;
    let (store, script) = scripted(&world, Script::blocked());
    let settings = AuditSettings { on_failure: OnFailure::GoOn, queue: 5, ..SHORT };
    let log = world.log_over(store, settings, vec![]);
    log.record(entry("0")).await.unwrap();
    script.has_begun(1).await;
    for n in 1..=12 {
        log.record(entry(&n.to_string())).await.unwrap();
    }
    assert!(!log.is_stuck(&tenant()));
    assert_eq!(world.rows().await.len(), 0);
    script.unblock();
    log.close().await;
    let rows = world.rows().await;
    assert_eq!(world.requests().await, ["0", "1", "2", "3", "4", "5"]);
    let gaps: Vec<_> = rows.iter().filter(|row| row.entry.action == GAP).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].entry.mark, Some(Mark::Gap(7)));
    // And what comes after the end is not taken.
    log.note(entry("late"));
    assert_eq!(log.record_for_certain(entry("late")).await, Err(AuditUnavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_closed_withholds_answers_while_a_sink_blocks_though_the_database_has_the_rows() {
    let world = World::new().await;
    let sink = Arc::new(ScriptedSink { script: Script::blocked(), ..ScriptedSink::default() });
    let log = world.log(SHORT, vec![sink.clone()]);
    assert_eq!(log.record(entry("1")).await, Err(AuditUnavailable));
    assert_eq!(world.requests().await, ["1"]);
    until(async || log.is_stuck(&tenant())).await;
    sink.script.unblock();
    until(async || !log.is_stuck(&tenant()) && log.record(entry("2")).await.is_ok()).await;
    let rows = world.rows().await;
    assert_eq!(sink.got.lock().unwrap()[..], rows[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_sink_gets_its_rows_later_and_holds_up_no_other() {
    let world = World::new().await;
    let bad = Arc::new(ScriptedSink::default());
    bad.script.down.store(true, Ordering::SeqCst);
    let good = Arc::new(ScriptedSink::default());
    let settings = AuditSettings { on_failure: OnFailure::GoOn, ..SHORT };
    let log = world.log(settings, vec![bad.clone(), good.clone()]);
    for n in 0..10 {
        log.record(entry(&n.to_string())).await.unwrap();
    }
    until(async || good.got.lock().unwrap().len() == 10).await;
    assert!(bad.got.lock().unwrap().is_empty());
    bad.script.down.store(false, Ordering::SeqCst);
    log.close().await;
    let rows = world.rows().await;
    assert_eq!(bad.got.lock().unwrap()[..], rows[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_has_its_row() {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    let auditor = Auditor::new(log.clone(), world.clock.clone());
    let principal = Principal::from(Caller::new(CallerId::new("agents").unwrap(), tenant(), vec![]));
    drop(auditor.begin(&principal.caller, "api_key", "GetCredential", false, Some("gone")));
    let ended = auditor.begin(&principal.caller, "api_key", "GetCredential", false, Some("ended"));
    ended.end(Outcome::Denied, Some("PERMISSION_DENIED".to_owned())).await.unwrap();
    log.close().await;
    let rows = world.store.audit_after(&tenant(), 0, 10).await.unwrap();
    let told: Vec<_> =
        rows.iter().map(|row| (row.entry.outcome, row.entry.reason.as_deref().unwrap())).collect();
    assert_eq!(told, [(Outcome::Failed, "CALLER_HUNG_UP"), (Outcome::Denied, "PERMISSION_DENIED")]);
}
