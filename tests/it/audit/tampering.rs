//! Somebody with the database: what is refused, what is found, and what only a head that was noted elsewhere shows.

use std::fmt::Write as _;

use token_broker::application::audit::AuditArchive;
use token_broker::domain::audit::{Audit as _, Flaw, FlawKind, Head, Row, link};

use super::{LONG, World, entry, tamper, tenant};

/// Ten rows, and the way to read them.
async fn ten() -> (World, AuditArchive, Vec<Row>) {
    let world = World::new().await;
    let log = world.log(LONG, vec![]);
    for n in 1..=10 {
        log.record(entry(&n.to_string())).await.unwrap();
    }
    let archive = world.archive(&log);
    let rows = world.rows().await;
    (world, archive, rows)
}

const WITHOUT_TRIGGERS: &str =
    "DROP TRIGGER audit_log_no_update; DROP TRIGGER audit_log_no_delete; DROP TRIGGER audit_log_no_replace; ";

async fn found_after(sql: &str) -> Option<Flaw> {
    let (world, archive, _) = ten().await;
    tamper(&world, &format!("{WITHOUT_TRIGGERS}{sql}")).await.unwrap();
    archive.verify(&tenant(), None).await.unwrap().flaw
}

fn flaw(sequence: u64, kind: FlawKind) -> Flaw {
    Flaw { sequence, kind }
}

fn hex(bytes: &[u8]) -> String {
    format!("x'{}'", hex::encode(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_row_is_detected() {
    assert_eq!(
        found_after("DELETE FROM audit_log WHERE sequence = 4").await,
        Some(flaw(4, FlawKind::Missing))
    );
    assert_eq!(
        found_after("DELETE FROM audit_log WHERE sequence < 4").await,
        Some(flaw(1, FlawKind::Missing))
    );
    assert_eq!(
        found_after("DELETE FROM audit_log WHERE sequence > 8").await,
        Some(flaw(9, FlawKind::Missing))
    );
    assert_eq!(found_after("DELETE FROM audit_log").await, Some(flaw(1, FlawKind::Missing)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_row_is_detected() {
    for change in [
        "outcome = 'denied'",
        "user_id = 'bob'",
        "caller = 'root'",
        "created_at = created_at - 1",
        "purpose = 'a better one'",
        "request_id = '5'",
    ] {
        let sql = format!("UPDATE audit_log SET {change} WHERE sequence = 4");
        assert_eq!(found_after(&sql).await, Some(flaw(4, FlawKind::Changed)), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reordered_and_inserted_rows_are_detected() {
    let swap = "UPDATE audit_log SET sequence = 99 WHERE sequence = 4; UPDATE audit_log SET sequence = 4 WHERE sequence = 5;
        UPDATE audit_log SET sequence = 5 WHERE sequence = 99";
    assert_eq!(found_after(swap).await, Some(flaw(4, FlawKind::Changed)));
    let insert = "UPDATE audit_log SET sequence = -sequence WHERE sequence > 4";
    // The table refuses numbers below one, so that is done in two steps upwards.
    let insert = insert.replace("-sequence", "sequence + 100");
    let insert = format!(
        "{insert}; UPDATE audit_log SET sequence = sequence - 99 WHERE sequence > 100;
        CREATE TABLE copy AS SELECT * FROM audit_log WHERE sequence = 4; UPDATE copy SET sequence = 5;
        INSERT INTO audit_log SELECT * FROM copy"
    );
    assert_eq!(found_after(&insert).await, Some(flaw(5, FlawKind::Changed)));
}

/// With the public rules of the chain and the database, but without the vault's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rehashed_rows_lack_the_seal() {
    let (world, archive, mut rows) = ten().await;
    let mut sql = WITHOUT_TRIGGERS.to_owned();
    let mut at = rows[2].head();
    rows[3].entry.request_id = Some("forged".to_owned());
    sql += "UPDATE audit_log SET request_id = 'forged' WHERE sequence = 4;";
    for row in &rows[3..] {
        at = link(&at, &row.entry);
        let hash = hex(&at.hash.0);
        writeln!(sql, "UPDATE audit_log SET hash = {hash} WHERE sequence = {};", at.sequence).unwrap();
    }
    write!(sql, "UPDATE audit_heads SET hash = {}", hex(&at.hash.0)).unwrap();
    tamper(&world, &sql).await.unwrap();
    let verdict = archive.verify(&tenant(), None).await.unwrap();
    assert_eq!(verdict.flaw, Some(flaw(4, FlawKind::Unsealed)));
    assert_eq!(verdict.head.sequence, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tail_shows_by_a_noted_head_alone() {
    let (world, archive, rows) = ten().await;
    let noted = rows[9].head();
    assert_eq!(archive.verify(&tenant(), Some(noted)).await.unwrap().flaw, None);
    let cut = format!(
        "{WITHOUT_TRIGGERS} DELETE FROM audit_log WHERE sequence > 7;
        UPDATE audit_heads SET sequence = 7, hash = {}",
        hex(&rows[6].hash.0)
    );
    tamper(&world, &cut).await.unwrap();
    // What is left is a chain in order: this is what exported heads are for.
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
    let noted_before = Some(rows[4].head());
    assert_eq!(archive.verify(&tenant(), noted_before).await.unwrap().flaw, None);
    assert_eq!(
        archive.verify(&tenant(), Some(noted)).await.unwrap().flaw,
        Some(flaw(10, FlawKind::NotTheHead))
    );
    let another = Head { sequence: 5, hash: rows[5].hash };
    assert_eq!(
        archive.verify(&tenant(), Some(another)).await.unwrap().flaw,
        Some(flaw(5, FlawKind::NotTheHead))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_refuses_to_change_or_remove_rows() {
    let (world, archive, _) = ten().await;
    for sql in [
        "UPDATE audit_log SET user_id = 'bob' WHERE sequence = 4",
        "DELETE FROM audit_log WHERE sequence = 4",
        "DELETE FROM audit_log",
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log WHERE sequence = 4",
    ] {
        let refused = tamper(&world, sql).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{sql}: {refused}");
    }
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_another_tenant_or_key_does_not_pass() {
    let (world, archive, _) = ten().await;
    let sql = "INSERT INTO audit_log (tenant, sequence, created_at, action, outcome, services, hash, seal)
        SELECT 'bolt', sequence, created_at, action, outcome, services, hash, seal FROM audit_log;
        INSERT INTO audit_heads SELECT 'bolt', sequence, hash FROM audit_heads";
    tamper(&world, sql).await.unwrap();
    let bolt = token_broker::domain::key::TenantId::new("bolt").unwrap();
    assert_eq!(archive.verify(&bolt, None).await.unwrap().flaw, Some(flaw(1, FlawKind::Changed)));
    assert_eq!(archive.verify(&tenant(), None).await.unwrap().flaw, None);
}
