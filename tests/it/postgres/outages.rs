//! A database that is away, ends connections, only reads, or is silent: every call says "unavailable", never "not
//! connected", and all is well again without a new pool.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _};
use token_broker::domain::ports::{
    CredentialStore as _, DueRequest, FlowStore as _, OutboxStore as _, StoreError, StoreHealth as _,
};
use token_broker::infra::storage::postgres::{PgSettings, RowClock};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Place, asked, connected};
use crate::contract::samples::{
    at, claim_request, flow, key, lineage, new_grant, provider, release, revoke_write,
};
use crate::engines::postgres::{self, Options, Postgres, Stop};

fn impatient(url: &str) -> PgSettings {
    PgSettings {
        connect_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(1),
        ..postgres::settings(url)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_unavailable_to_every_call_and_comes_back() {
    let server = Postgres::start(Options::default());
    let settings = impatient(&server.url(&server.migrated_database().await));
    let store = postgres::open(&settings, RowClock::Caller).await;
    let row = connected(&store, "alice", 1).await;
    let claim = claim_request(&row, 1, at(5));
    for how in [Stop::Immediate, Stop::Fast] {
        // Several connections, so that several are dead afterwards.
        let reads = (0..6).map(|_| store.load(&row.key));
        futures_util::future::try_join_all(reads).await.unwrap();
        server.stop(how);
        for (method, error) in asked::everything(&store, &claim).await {
            let error =
                error.unwrap_or_else(|| panic!("{method} got an answer from a server that is not there"));
            assert!(matches!(error, StoreError::Unavailable(_)), "{method}: {error:?}");
        }
        server.start_again();
        // No restart, no second try; what was acknowledged is there.
        let claimed = store.load(&row.key).await.unwrap().unwrap();
        assert_eq!(claimed, row);
        store.ping().await.unwrap();
    }
    assert_eq!(store.claim_for_refresh(claim).await.unwrap(), Some(row.epoch + 1));
}

impl Place {
    /// Ends all connections of the database but the one that does it.
    async fn end_connections(&self) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
            self.database
        );
        self.server.backdoor("postgres").await.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_connections_are_replaced_without_an_error() {
    let place = Place::new().await;
    let row = connected(&place.store, "alice", 1).await;
    let mut epoch = row.epoch;
    for round in 0..4 {
        let reads = (0..6).map(|_| place.store.load(&row.key));
        futures_util::future::try_join_all(reads).await.unwrap();
        place.end_connections().await;
        // The first call is one that may be sent again. It warns the others: a claim may not be.
        match round % 4 {
            0 => assert!(place.store.load(&row.key).await.unwrap().is_some()),
            1 => place.store.ping().await.unwrap(),
            2 => place.store.mark_used(&[row.id], at(9)).await.unwrap(),
            _ => assert!(place.store.insert_flow(&flow(row.key.clone(), 1, 0), 9).await.unwrap()),
        }
        let current = place.store.load(&row.key).await.unwrap().unwrap();
        epoch += 1;
        assert_eq!(
            place.store.claim_for_refresh(claim_request(&current, 1, at(5))).await.unwrap(),
            Some(epoch)
        );
        assert!(place.store.release_claim(release(row.id, epoch, 1, None, at(6))).await.unwrap());
    }
}

#[tokio::test]
async fn an_answer_that_is_stored_twice_over_a_broken_connection_is_stored_once() {
    let place = Place::new().await;
    let row = connected(&place.store, "alice", 1).await;
    let epoch = place.store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap().unwrap();
    place.end_connections().await;
    place.store.persist_lineage(lineage(&row, epoch, 2, at(6))).await.unwrap();
    let stored = place.store.load(&row.key).await.unwrap().unwrap();
    assert_eq!((stored.generation, stored.epoch), (2, epoch));
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_unavailable_until_it_writes_again() {
    let place = Place::new().await;
    let row = connected(&place.store, "alice", 1).await;
    let set = async |value| {
        let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", place.database);
        place.server.backdoor("postgres").await.execute(AssertSqlSafe(sql)).await.unwrap();
        place.end_connections().await;
    };
    set("on").await;
    // What can be read is read; readiness says that it is not enough.
    assert_eq!(place.store.load(&row.key).await.unwrap().as_ref(), Some(&row));
    for error in [
        place.store.ping().await.unwrap_err(),
        place.store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap_err(),
        place.store.store_grant(new_grant(key("bob"), 2)).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    // Connections that were refused a write are not kept: the next ones find the server that writes.
    let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = off", place.database);
    place.server.backdoor("postgres").await.execute(AssertSqlSafe(sql)).await.unwrap();
    while place.store.ping().await.is_err() {}
    assert_eq!(
        place.store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap(),
        Some(row.epoch + 1)
    );
}

#[tokio::test]
async fn a_row_that_somebody_keeps_locked_is_waited_for_so_long_and_no_longer() {
    let server = postgres::shared();
    let database = server.migrated_database().await;
    let store = postgres::open(&impatient(&server.url(&database)), RowClock::Caller).await;
    let row = connected(&store, "alice", 1).await;
    let due = DueRequest {
        provider: provider("google"),
        configuration: None,
        now: at(900),
        until: at(960),
        limit: 9,
    };
    store.reschedule(row.id, Some(at(100))).await.unwrap();
    let other = connected(&store, "bob", 2).await;
    store.reschedule(other.id, Some(at(200))).await.unwrap();
    let mut locker = server.backdoor(&database).await;
    locker.execute("BEGIN; SELECT * FROM credentials WHERE user_id = 'alice' FOR UPDATE").await.unwrap();
    // Readers do not wait, and the due scan passes it by.
    assert!(store.load(&row.key).await.unwrap().is_some());
    let reserved = store.reserve_due(due).await.unwrap();
    assert_eq!(reserved.iter().map(|due| due.id).collect::<Vec<_>>(), [other.id]);
    let error = store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let error = store.revoke_with_outbox(revoke_write(&row.key, None, at(5))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    locker.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap(), Some(row.epoch + 1));
}

#[tokio::test]
async fn a_sweep_passes_locked_rows_by_and_comes_back_for_them() {
    let place = Place::new().await;
    for n in 1..=3 {
        assert!(place.store.insert_flow(&flow(key(&format!("user {n}")), n, 0), 9).await.unwrap());
    }
    let mut locker = place.server.backdoor(&place.database).await;
    locker.execute("BEGIN; SELECT * FROM flows WHERE user_id = 'user 2' FOR UPDATE").await.unwrap();
    assert_eq!(place.store.sweep_flows(at(9000), at(0), at(0)).await.unwrap(), 2);
    locker.execute("ROLLBACK").await.unwrap();
    assert_eq!(place.store.sweep_flows(at(9000), at(0), at(0)).await.unwrap(), 1);
    // More than fit in a batch.
    let sql = "INSERT INTO revocations (id, tenant, provider, user_id, grant_name, account, grant_id, attempts,
                   created_at, next_attempt_at, finished_at, outcome)
               SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 't', 'p', 'u', 'g', 'a', decode(lpad('', 32, '0'), 'hex'),
                   1, 0, 0, n, 'revoked' FROM generate_series(1, 1700) AS n";
    locker.execute(sql).await.unwrap();
    let before = jiff::Timestamp::from_microsecond(1601).unwrap();
    assert_eq!(place.store.delete_finished_revocations(before).await.unwrap(), 1600);
}

#[tokio::test]
async fn damaged_rows_are_damaged_and_not_away() {
    let place = Place::new().await;
    let row = connected(&place.store, "alice", 1).await;
    let mut backdoor = place.server.backdoor(&place.database).await;
    for sql in [
        "UPDATE credentials SET scopes = '[1]'",
        "UPDATE credentials SET scopes = '[]', access_expires_at = 9223372036854775807",
        "UPDATE credentials SET access_expires_at = NULL, user_id = E'\\t'",
    ] {
        backdoor.execute(sql).await.unwrap();
        let error = place.store.load_by_id(row.id).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{sql}: {error:?}");
    }
}

/// A way to the server that can go dead: what is on it then is never heard of again, in either direction.
struct Way {
    port: u16,
    /// Connections made before this round are dead.
    round: watch::Sender<u32>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let round = watch::Sender::new(0);
        let way = Self { port: listener.local_addr().unwrap().port(), round: round.clone() };
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut changes = round.subscribe();
                changes.mark_unchanged();
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                        // Held open and never read again.
                        _ = changes.changed() => std::future::pending().await,
                    }
                });
            }
        });
        way
    }

    fn dies(&self) {
        self.round.send_modify(|round| *round += 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_is_left_for_a_new_connection() {
    let server = postgres::shared();
    let database = server.migrated_database().await;
    let way = Way::to(server.port()).await;
    let url = format!("postgres://broker@127.0.0.1:{}/{database}?sslmode=disable", way.port);
    // Patient enough for a machine that is busy with other tests: only what is silent must time out.
    let settings = PgSettings {
        max_connections: 3,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(2),
        ..impatient(&url)
    };
    let store = postgres::open(&settings, RowClock::Caller).await;
    let row = connected(&store, "alice", 1).await;
    futures_util::future::try_join_all((0..3).map(|_| store.load(&row.key))).await.unwrap();
    way.dies();
    // More calls than connections, of both kinds: those that may be sent again find the new way.
    let reads = (0..9).map(|_| store.load(&row.key));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap().is_some());
    }
    // At once, so that it dies under connections that are on their way back into the pool.
    way.dies();
    let claim = || store.claim_for_refresh(claim_request(&row, 1, at(5)));
    let claimed = match claim().await {
        // It was sent, and nobody knows what became of it. (Nothing: it was lost on the way.)
        Err(StoreError::Unavailable(_)) => claim().await,
        other => other,
    };
    assert_eq!(claimed.unwrap(), Some(row.epoch + 1));
}
