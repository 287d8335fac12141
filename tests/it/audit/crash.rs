//! A process that is killed while it writes rows: every answer that got out is on record once, and the chain is in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use token_broker::r#gen::v1 as pb;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::Request;

use crate::engines::postgres;
use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker, answered};
use crate::support::consent::key_at;
use crate::support::hostile::HostileServer;

const ROUNDS: usize = 4;
const CALLERS: usize = 8;
/// So many answers of a round are waited for before the process is killed.
const ANSWERS: usize = 50;

/// Asks until the process is gone. Answers the ids of the calls that were answered.
async fn ask(
    broker: Arc<TestBroker>,
    name: String,
    all: Arc<AtomicUsize>,
    enough: Arc<Notify>,
) -> Vec<String> {
    let mut client = broker.client("agent").await;
    let mut ids = Vec::new();
    loop {
        let id = format!("{name}-{}", ids.len());
        let message = pb::GetCredentialRequest {
            key: Some(key_at("hostile", "alice", "files")),
            ..pb::GetCredentialRequest::default()
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        if client.get_credential(request).await.is_err() {
            return ids;
        }
        ids.push(id);
        if all.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS {
            enough.notify_one();
        }
    }
}

/// How often each request id is on record.
async fn on_record(broker: &TestBroker) -> BTreeMap<String, usize> {
    let mut ops = broker.admin("ops").await;
    let verdict = answered(ops.verify_audit(pb::VerifyAuditRequest::default()).await);
    assert_eq!((verdict.flawed_sequence, verdict.flaw.as_str()), (0, ""));
    let mut counts = BTreeMap::new();
    let mut query = pb::QueryAuditRequest { page_size: 1_000, ..pb::QueryAuditRequest::default() };
    loop {
        let page = answered(ops.query_audit(query.clone()).await);
        for row in page.rows {
            *counts.entry(row.request_id).or_default() += 1;
        }
        if page.next_page_token.is_empty() {
            return counts;
        }
        query.page_token = page.next_page_token;
    }
}

async fn what_was_answered_is_on_record(builder: BrokerBuilder) {
    let server = HostileServer::start().await;
    let builder = builder.hostile(&server).caller("ops", CallerRights::none("acme").admin(false));
    let broker = Arc::new(builder.spawn_process().await);
    let import = pb::ImportCredentialRequest {
        key: Some(key_at("hostile", "alice", "files")),
        access_token: "imported".to_owned(),
        ..pb::ImportCredentialRequest::default()
    };
    answered(broker.client("agent").await.import_credential(import).await);
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        let (all, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let name = format!("call-{round}-{caller}");
            callers.spawn(ask(Arc::clone(&broker), name, Arc::clone(&all), Arc::clone(&enough)));
        }
        enough.notified().await;
        broker.kill().await;
        answers.extend(callers.join_all().await.into_iter().flatten());
        broker.restart().await;
    }
    assert!(answers.len() >= ROUNDS * ANSWERS);
    let on_record = on_record(&broker).await;
    for id in &answers {
        assert_eq!(on_record.get(id), Some(&1), "{id} was answered");
    }
    let twice: Vec<_> = on_record.iter().filter(|(id, n)| id.starts_with("call-") && **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_no_answer_without_its_row() {
    what_was_answered_is_on_record(BrokerBuilder::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_no_answer_without_its_row_in_postgres() {
    let database = postgres::shared().url(&postgres::shared().migrated_database().await);
    what_was_answered_is_on_record(BrokerBuilder::new().set("storage.url", database)).await;
}
