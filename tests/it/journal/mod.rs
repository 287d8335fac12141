//! What [`Journal`] promises, of the journal on the disk, through its public door.
//!
//! [`Journal`]: token_broker::domain::coordination::Journal

mod damage;
mod disk;
mod faults;
mod forgetting;
mod processes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use token_broker::domain::coordination::Journal as _;
use token_broker::domain::credential::{Sealed, StoredRefreshToken};
use token_broker::domain::ports::LineageWrite;
use token_broker::infra::journal::{FileJournal, Former};

use crate::contract::samples::{at, credential_id, fingerprint, grant_id, owner, tokens};
use crate::support::clock::ManualClock;

/// The answer number `n`: its row, its parent's fingerprint and its epoch have that number too.
fn write(n: u32) -> LineageWrite {
    successor(n, n, i64::from(n))
}

/// The answer number `n` to token number `parent` of row number `parent`.
fn successor(n: u32, parent: u32, epoch: i64) -> LineageWrite {
    let mut tokens = tokens(n);
    tokens.refresh = Some(StoredRefreshToken {
        sealed: Sealed(format!("refresh {n}").into_bytes()),
        fingerprint: fingerprint(n + 1_000_000),
        parent_fingerprint: Some(fingerprint(parent)),
        epoch,
    });
    LineageWrite {
        id: credential_id(parent),
        grant_id: grant_id(parent),
        epoch,
        parent_fingerprint: fingerprint(parent),
        tokens,
        now: at(i64::from(n)),
    }
}

/// Opens it as process run number `run`.
fn open(directory: &Path, run: u32) -> (Arc<FileJournal>, Vec<Former>) {
    FileJournal::open(directory, owner(run), Arc::new(ManualClock::new())).unwrap()
}

/// The records of a former run, by number.
fn numbers(former: &Former) -> Vec<i64> {
    former.run().records.iter().map(|record| record.epoch).collect()
}

/// All files below, but for the locks.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_new_start() {
    let home = tempfile::tempdir().unwrap();
    let base = home.path().join("journal");
    let (journal, former) = open(&base, 1);
    assert!(former.is_empty());
    journal.ready().await.unwrap();
    for n in 1..=3 {
        journal.append(&write(n)).await.unwrap();
    }
    drop(journal);
    let (second, former) = open(&base, 2);
    let [first] = &former[..] else { panic!("one former run") };
    assert_eq!((first.run().owner, first.damaged()), (owner(1), 0));
    assert_eq!(first.run().records, [1, 2, 3].map(write));
    second.append(&write(4)).await.unwrap();
    drop((second, former));
    // Nothing was forgotten, so the replay may have been cut short: all of it comes again.
    let (_third, former) = open(&base, 3);
    let found: Vec<_> = former.iter().map(|former| (former.run().owner, numbers(former))).collect();
    assert_eq!(found, [(owner(1), vec![1, 2, 3]), (owner(2), vec![4])]);
}

#[tokio::test]
async fn what_was_replayed_is_forgotten_for_good() {
    let home = tempfile::tempdir().unwrap();
    let (journal, _) = open(home.path(), 1);
    journal.append(&write(1)).await.unwrap();
    let first_run = journal.directory().to_owned();
    drop(journal);
    let (journal, former) = open(home.path(), 2);
    for former in former {
        former.forget().await.unwrap();
    }
    assert!(!first_run.exists());
    drop(journal);
    let (_journal, former) = open(home.path(), 3);
    // The second run wrote nothing, and is known to be dead all the same.
    let found: Vec<_> = former.iter().map(|former| (former.run().owner, numbers(former))).collect();
    assert_eq!(found, [(owner(2), vec![])]);
}

#[tokio::test]
async fn the_youngest_successor_of_a_token_is_found() {
    let home = tempfile::tempdir().unwrap();
    let (journal, _) = open(home.path(), 1);
    for record in [successor(1, 7, 3), successor(2, 7, 5), successor(3, 7, 4), successor(4, 8, 9)] {
        journal.append(&record).await.unwrap();
    }
    let found = |row, token| journal.successor(credential_id(row), fingerprint(token));
    assert_eq!(found(7, 7).await, Some(successor(2, 7, 5)));
    assert_eq!(found(8, 8).await, Some(successor(4, 8, 9)));
    assert_eq!(found(7, 8).await, None);
    assert_eq!(found(8, 7).await, None);
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = tempfile::tempdir().unwrap();
    let base = home.path().join("journal");
    let (journal, _) = open(&base, 1);
    journal.append(&write(1)).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let slot = base.join("slot-0");
    for directory in [&base, &slot, &journal.directory().to_owned()] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    let files = files(&base);
    assert_eq!(files.len(), 1);
    for file in files.iter().chain([&slot.join("lock")]) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_directory_that_will_not_do_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let cases = [
        (home.path().join("no/such/journal"), "does not exist: create it"),
        (file.clone(), "is not a directory"),
        (file.join("journal"), "is not a directory"),
    ];
    for (path, says) in cases {
        let opened = FileJournal::open(&path, owner(1), Arc::new(ManualClock::new()));
        let Err(error) = opened else { panic!("{} was opened", path.display()) };
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

/// What is flushed into a file without a name is gone with the process.
#[tokio::test]
async fn a_journal_whose_directory_was_removed_promises_nothing() {
    let home = tempfile::tempdir().unwrap();
    let base = home.path().join("journal");
    let (journal, _) = open(&base, 1);
    journal.ready().await.unwrap();
    std::fs::remove_dir_all(&base).unwrap();
    let error = journal.ready().await.unwrap_err().to_string();
    assert!(error.contains("directory was removed: restart"), "{error}");
}
