//! Events in Postgres, where transactions do not commit in the order in which they began.

use std::time::Duration;

use sqlx::{Executor as _, PgConnection};
use token_broker::domain::event::{EventPosition, EventQuery, EventStore as _};
use token_broker::domain::ports::CredentialStore as _;
use token_broker::infra::storage::postgres::{PgStore, RowClock};

use crate::contract::samples::{key, new_grant, tenant};
use crate::engines;

const INSERT: &str = "
    INSERT INTO events (tenant, provider, user_id, grant_name, account, subject, old_status, new_status, generation, created_at)
    VALUES ('acme', 'google', 'early', 'mail', 'default', 'credential', 'not_connected', 'connected', 1, 0)";

struct Stage {
    store: PgStore,
    settings: token_broker::infra::storage::postgres::PgSettings,
    /// Past the store.
    other: PgConnection,
}

async fn stage() -> Stage {
    let server = engines::postgres::shared();
    let database = server.migrated_database().await;
    let settings = engines::postgres::settings(&server.url(&database));
    let store = engines::postgres::open(&settings, RowClock::Caller).await;
    Stage { store, settings, other: server.backdoor(&database).await }
}

async fn grant(store: &PgStore, user: &str, n: u32) {
    store.store_grant(new_grant(key(user), n)).await.unwrap();
}

/// As many events as there are to come. They may be held back a little by what else runs at the server.
async fn read_all(store: &PgStore, after: EventPosition, count: usize) -> (Vec<String>, EventPosition) {
    let look = async {
        loop {
            let found = read(store, after).await;
            if found.0.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("older transactions end")
}

/// Whose events are read, and where to read on.
async fn read(store: &PgStore, after: EventPosition) -> (Vec<String>, EventPosition) {
    let query = EventQuery { tenant: tenant("acme"), user: None, after, limit: 10 };
    let page = store.events_after(query).await.unwrap();
    (page.events.into_iter().map(|event| event.told.key.user.to_string()).collect(), page.reached)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_written_first_and_committed_last_is_not_passed_over() {
    let Stage { store, mut other, .. } = stage().await;
    grant(&store, "before", 1).await;
    let (seen, place) = read_all(&store, EventPosition::default(), 1).await;
    assert_eq!(seen, ["before"]);

    other.execute("BEGIN").await.unwrap();
    other.execute(INSERT).await.unwrap();
    grant(&store, "late", 2).await;
    // The later number is committed, the earlier is not: the reader has to wait for both.
    assert_eq!(read(&store, place).await, (vec![], place));
    assert!(store.newest_position().await.unwrap() <= place, "who begins now does not begin behind it");
    other.execute("COMMIT").await.unwrap();
    let (seen, place) = read_all(&store, place, 2).await;
    assert_eq!(seen, ["early", "late"]);
    assert_eq!(read(&store, place).await, (vec![], place));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_that_of_transactions_and_not_of_numbers() {
    let Stage { store, mut other, .. } = stage().await;
    other.execute("BEGIN").await.unwrap();
    // Has its id from here on; its event gets its number only after the other transaction's.
    other.execute("SELECT pg_current_xact_id()").await.unwrap();
    grant(&store, "late", 1).await;
    other.execute(INSERT).await.unwrap();
    assert_eq!(read(&store, EventPosition::default()).await.0, Vec::<String>::new());
    other.execute("COMMIT").await.unwrap();
    assert_eq!(read_all(&store, EventPosition::default(), 2).await.0, ["early", "late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_rolled_back_holds_up_nobody_for_longer() {
    let Stage { store, mut other, .. } = stage().await;
    other.execute("BEGIN").await.unwrap();
    other.execute(INSERT).await.unwrap();
    grant(&store, "late", 1).await;
    assert_eq!(read(&store, EventPosition::default()).await.0, Vec::<String>::new());
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(read_all(&store, EventPosition::default(), 1).await.0, ["late"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_another_cluster_tells_its_events_again() {
    let Stage { store, settings, mut other } = stage().await;
    grant(&store, "alice", 1).await;
    grant(&store, "bob", 2).await;
    // As a dump from a cluster that has had many more transactions brings them.
    other.execute("UPDATE events SET xact = xact + 1000000000").await.unwrap();
    assert_eq!(read(&store, EventPosition::default()).await.0, Vec::<String>::new());
    let foreign = EventPosition { transaction: 1_000_000_001, sequence: 1 };
    assert!(!store.may_follow(foreign).await.unwrap());
    let again = engines::postgres::open(&settings, RowClock::Caller).await;
    let (seen, place) = read_all(&again, EventPosition::default(), 2).await;
    assert_eq!(seen, ["alice", "bob"]);
    grant(&again, "carol", 3).await;
    assert_eq!(read_all(&again, place, 1).await.0, ["carol"]);
    assert!(again.may_follow(place).await.unwrap());
}
