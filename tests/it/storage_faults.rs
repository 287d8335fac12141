//! The `SQLite` file in bad company: what `open` refuses, and what stays undisturbed. Damage is in `storage_damage.rs`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::task::Poll;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore, FlowStore as _, OutboxStore as _, StoreError, StoreHealth as _,
    StoredGrant,
};
use token_broker::infra::storage::sqlite::{OpenError, SqliteStore};

use crate::contract::samples::{
    at, claim_request, flow, key, new_grant, outbox_id, revocation, revoke_write,
};

/// A place for a database.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("broker.db");
    (home, path)
}

pub(crate) async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

async fn refused(path: &Path) -> OpenError {
    let error = SqliteStore::open(path).await.expect_err("must not open");
    let text = error.to_string();
    assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "names the file: {text}");
    error
}

/// A way past the store, for damage.
pub(crate) async fn backdoor(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

/// Runs a statement on a database that nobody has open.
pub(crate) async fn tamper(path: &Path, sql: &'static str) {
    let mut connection = backdoor(path).await;
    connection.execute("PRAGMA ignore_check_constraints = ON").await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let (_home, path) = place();
    let store = open(&path).await;
    let StoredGrant::Stored(row) = store.store_grant(new_grant(key("alice"), 1)).await.unwrap() else {
        panic!("stored")
    };
    // Not closed: dropped, as by a crash. The lock goes with it.
    drop(store);
    let store = reopened(&path).await;
    assert_eq!(store.load(&key("alice")).await.unwrap().unwrap(), *row);
    store.close().await;
    let store = open(&path).await;
    assert_eq!(store.load(&key("alice")).await.unwrap().unwrap(), *row);
}

/// As on a full disk, which a test can't have everywhere: `SQLite` ends the transaction by itself.
#[tokio::test]
async fn after_a_transaction_that_sqlite_ended_by_itself_others_begin() {
    let (_home, path) = place();
    let store = open(&path).await;
    let mut backdoor = backdoor(&path).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON credentials BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    backdoor.execute(full).await.unwrap();
    let grant = || store.store_grant(new_grant(key("alice"), 1));
    for _ in 0..3 {
        let error = grant().await.unwrap_err();
        assert!(error.to_string().contains("full"), "each time the same, and it says why: {error}");
    }
    backdoor.execute("DROP TRIGGER full").await.unwrap();
    let StoredGrant::Stored(row) = grant().await.unwrap() else { panic!("stored") };
    assert_eq!(store.load(&key("alice")).await.unwrap(), Some(*row));
}

/// What is written into a file without a name is gone with the process; and where the lock is another file, somebody else may
/// have opened the database.
#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_writes_until_it_is_back() {
    let (home, path) = place();
    let store = open(&path).await;
    let grant = |n: u32| store.store_grant(new_grant(key(&format!("user {n}")), n));
    assert!(matches!(grant(1).await.unwrap(), StoredGrant::Stored(_)));
    let aside = home.path().join("aside");
    for file in [path.clone(), home.path().join("broker.db.lock")] {
        for replaced in [false, true] {
            std::fs::rename(&file, &aside).unwrap();
            if replaced {
                std::fs::write(&file, "").unwrap();
            }
            for error in [
                grant(2).await.unwrap_err(),
                store.mark_used(&[], at(1)).await.unwrap_err(),
                store.ping().await.unwrap_err(),
            ] {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                assert!(error.to_string().contains("removed or replaced"), "{error}");
            }
            std::fs::rename(&aside, &file).unwrap();
            store.ping().await.unwrap();
        }
    }
    assert!(matches!(grant(2).await.unwrap(), StoredGrant::Stored(_)));
}

/// Opens a database whose last owner was dropped a moment ago: its connections end in their own time.
async fn reopened(path: &Path) -> SqliteStore {
    loop {
        match SqliteStore::open(path).await {
            Ok(store) => return store,
            Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn the_files_are_the_owners_alone() {
    let (home, path) = place();
    let store = open(&path).await;
    store.store_grant(new_grant(key("alice"), 1)).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["broker.db", "broker.db-shm", "broker.db-wal", "broker.db.lock"]);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let (home, path) = place();
    let store = open(&path).await;
    assert!(matches!(refused(&path).await, OpenError::Locked { .. }));
    // Under another name as well.
    let link = home.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = SqliteStore::open(&link).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    store.close().await;
    open(&link).await;
}

#[tokio::test]
async fn a_missing_directory_is_named_and_not_created() {
    let (home, _) = place();
    let path = home.path().join("nowhere/broker.db");
    assert!(matches!(refused(&path).await, OpenError::DirectoryMissing { .. }));
    assert!(matches!(SqliteStore::migrations(&path).await, Err(OpenError::DirectoryMissing { .. })));
    assert!(!home.path().join("nowhere").exists());
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    let (_home, path) = place();
    open(&path).await.close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(matches!(refused(&path).await, OpenError::NotWritable { .. }));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    open(&path).await;
}

#[tokio::test]
async fn a_directory_is_no_database() {
    let (home, _) = place();
    let error = SqliteStore::open(home.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(error.to_string().contains("directory"), "{error}");
}

#[tokio::test]
async fn another_files_content_is_left_as_it_is() {
    let (_home, path) = place();
    let text = "Dear diary, this is not a database. ".repeat(40);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(refused(&path).await, OpenError::NotADatabase { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn another_programs_database_is_left_as_it_is() {
    for sql in ["CREATE TABLE theirs (a)", "PRAGMA application_id = 7; CREATE TABLE theirs (a)"] {
        let (_home, path) = place();
        tamper(&path, sql).await;
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(refused(&path).await, OpenError::NotADatabase { .. }));
        assert!(matches!(SqliteStore::migrations(&path).await, Err(OpenError::NotADatabase { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn a_newer_versions_database_is_left_as_it_is() {
    let (_home, path) = place();
    open(&path).await.close().await;
    tamper(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(refused(&path).await, OpenError::NewerSchema { version: 9999, .. }));
    assert!(matches!(SqliteStore::migrations(&path).await, Err(OpenError::NewerSchema { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_migration_of_another_form_is_refused() {
    let (_home, path) = place();
    open(&path).await.close().await;
    tamper(&path, "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    assert!(matches!(refused(&path).await, OpenError::ChangedSchema { version: 1, .. }));
}

#[tokio::test]
async fn migrations_are_told_without_touching_anything() {
    let (home, path) = place();
    let pending = SqliteStore::migrations(&path).await.unwrap();
    assert!(!pending.is_empty() && pending.iter().all(|migration| !migration.applied));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was created");
    let store = open(&path).await;
    // While it is open elsewhere, too.
    let applied = SqliteStore::migrations(&path).await.unwrap();
    assert!(applied.iter().all(|migration| migration.applied));
    assert_eq!(applied.len(), pending.len());
    store.close().await;
    assert_eq!(SqliteStore::migrations(&path).await.unwrap(), applied);
    // An empty file is a new database, and so is one that crashed before its first migration.
    let (_home, path) = place();
    std::fs::write(&path, "").unwrap();
    assert_eq!(SqliteStore::migrations(&path).await.unwrap(), pending);
    tamper(
        &path,
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
         execution_time BIGINT NOT NULL)",
    )
    .await;
    assert_eq!(SqliteStore::migrations(&path).await.unwrap(), pending);
    open(&path).await;
}

/// A database with one credential, one flow, one revocation and no connection.
pub(crate) async fn filled(path: &Path) {
    let store = open(path).await;
    store.store_grant(new_grant(key("alice"), 1)).await.unwrap();
    assert!(store.insert_flow(&flow(key("alice"), 1, 0), 9).await.unwrap());
    store.enqueue_revocation(revocation(key("alice"), 1, 0)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let (_home, path) = place();
    filled(&path).await;
    let store = open(&path).await;
    // Another connection holds the write lock and has changed the row.
    let mut writer = backdoor(&path).await;
    writer.execute("BEGIN IMMEDIATE; UPDATE credentials SET epoch = 99").await.unwrap();
    for _ in 0..20 {
        assert_eq!(store.load(&key("alice")).await.unwrap().unwrap().epoch, 1, "what is committed");
    }
    store.ping().await.unwrap();
    // A write waits for its turn, and gets it.
    let claim = {
        let store = store.clone();
        let row = store.load(&key("alice")).await.unwrap().unwrap();
        tokio::spawn(async move { store.claim_for_refresh(claim_request(&row, 1, at(10))).await })
    };
    writer.execute("ROLLBACK").await.unwrap();
    assert_eq!(claim.await.unwrap().unwrap(), Some(2));
}

#[tokio::test]
async fn a_database_locked_for_too_long_is_unavailable() {
    let (_home, path) = place();
    filled(&path).await;
    let store = open(&path).await;
    let row = store.load(&key("alice")).await.unwrap().unwrap();
    let mut writer = backdoor(&path).await;
    writer.execute("BEGIN IMMEDIATE").await.unwrap();
    let request: ClaimRequest = claim_request(&row, 1, at(10));
    let error = store.claim_for_refresh(request.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    writer.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.claim_for_refresh(request).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let (_home, path) = place();
    filled(&path).await;
    let store = open(&path).await;
    store.close().await;
    store.close().await;
    for error in [
        store.load(&key("alice")).await.unwrap_err(),
        store.store_grant(new_grant(key("bob"), 2)).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

/// Every point at which a caller can hang up, one after the other: the call is polled `n` times and dropped, at once or
/// when it could have gone on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_leaves_all_or_nothing() {
    let (_home, path) = place();
    let store = open(&path).await;
    for at_once in [true, false] {
        let mut undone = 0;
        for n in 0_u32.. {
            let finished = hang_up(&store, n, at_once).await;
            if finished {
                break;
            }
            undone +=
                u32::from(store.load(&key(&name(n, at_once))).await.unwrap().unwrap().tokens().is_some());
        }
        assert!(undone > 0);
    }
}

fn name(polls: u32, at_once: bool) -> String {
    format!("{polls} {at_once}")
}

/// Whether the call came to its end.
async fn hang_up(store: &SqliteStore, polls: u32, at_once: bool) -> bool {
    let user = key(&name(polls, at_once));
    let id = polls * 2 + u32::from(at_once);
    let StoredGrant::Stored(row) = store.store_grant(new_grant(user.clone(), id)).await.unwrap() else {
        panic!("stored")
    };
    assert!(store.insert_flow(&flow(user.clone(), id, 0), 9).await.unwrap());
    let mut call = store.revoke_with_outbox(revoke_write(&user, Some(outbox_id(id)), at(5)));
    let mut left = polls;
    let finished = std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(answer.unwrap().deleted),
            Poll::Pending if left == 0 && at_once => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    drop(call);
    // The next statement of the one writing connection comes after whatever is left of the dropped call.
    store.delete_finished_revocations(at(0)).await.unwrap();
    let after = store.load(&user).await.unwrap().unwrap();
    let flow = store.latest_flow(&user).await.unwrap().unwrap();
    let outbox = store.take_revocation(outbox_id(id), at(5), at(6)).await.unwrap();
    let revoked = after.tokens().is_none();
    assert_eq!(revoked, outbox.is_some(), "after {polls} polls");
    assert_eq!(revoked, flow.ended_at.is_some(), "after {polls} polls");
    assert_eq!(after.epoch, row.epoch + i64::from(revoked), "after {polls} polls");
    assert!(revoked || !finished, "after {polls} polls: what was acknowledged is there");
    finished
}
