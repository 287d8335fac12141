//! What is not needed any more goes away; what is needed stays.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use token_broker::domain::coordination::Journal as _;
use token_broker::infra::journal::FileJournal;

use super::{files, numbers, open, write};
use crate::contract::samples::{credential_id, fingerprint, owner};
use crate::support::clock::ManualClock;

const QUARTER: Duration = Duration::from_mins(15);

fn clocked(directory: &Path) -> (Arc<FileJournal>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    (FileJournal::open(directory, owner(1), clock.clone()).unwrap().0, clock)
}

#[tokio::test]
async fn a_stored_record_is_kept_for_fifteen_minutes() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    journal.append(&write(1)).await.unwrap();
    journal.append(&write(2)).await.unwrap();
    journal.stored(credential_id(1), 1).await;
    let first = files(home.path());
    clock.advance(QUARTER.saturating_sub(Duration::from_millis(1)));
    // Told twice: the first time counts.
    journal.stored(credential_id(1), 1).await;
    journal.stored(credential_id(2), 2).await;
    let found = async |n| journal.successor(credential_id(n), fingerprint(n)).await;
    journal.ready().await.unwrap();
    assert_eq!(found(1).await, Some(write(1)));
    clock.advance(Duration::from_millis(1));
    journal.ready().await.unwrap();
    assert_eq!((found(1).await, found(2).await), (None, Some(write(2))));
    assert_eq!(files(home.path()), first, "the second record is still needed");
    clock.advance(QUARTER);
    journal.ready().await.unwrap();
    assert_eq!(found(2).await, None);
    let now = files(home.path());
    assert!(now.len() == 1 && now != first, "the tokens do not lie about: {now:?}");
    journal.append(&write(3)).await.unwrap();
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    assert_eq!(numbers(&former[0]), [3]);
}

#[tokio::test]
async fn what_was_written_anew_has_a_time_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    let found = async || journal.successor(credential_id(1), fingerprint(1)).await;
    journal.append(&write(1)).await.unwrap();
    journal.stored(credential_id(1), 1).await;
    clock.advance(QUARTER / 2);
    journal.append(&write(1)).await.unwrap();
    clock.advance(QUARTER);
    journal.ready().await.unwrap();
    assert_eq!(found().await, Some(write(1)));
    journal.stored(credential_id(1), 1).await;
    clock.advance(QUARTER);
    journal.ready().await.unwrap();
    assert_eq!(found().await, None);
}

#[tokio::test]
async fn the_disk_and_the_memory_that_it_takes_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    // No row gets it: it stays, with its segment.
    journal.append(&write(1)).await.unwrap();
    let mut most = 0;
    for round in 0..40 {
        for n in 0..200 {
            let n = 10 + round * 200 + n;
            journal.append(&write(n)).await.unwrap();
            journal.stored(credential_id(n), i64::from(n)).await;
        }
        clock.advance(Duration::from_mins(5));
        most = most.max(files(home.path()).len());
    }
    // Three rounds' records are needed at a time: less than a segment.
    assert!((2..=4).contains(&most), "{most} segments");
    assert_eq!(journal.successor(credential_id(10), fingerprint(10)).await, None);
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    let found = numbers(&former[0]);
    assert!(found.contains(&1), "what no row has is still there");
    assert!(found.len() < 3 * 2000, "{}", found.len());
}

#[tokio::test]
async fn a_record_whose_row_was_faster_than_the_disk_is_forgotten_too() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    let record = write(1);
    // The successor was copied to the permit store, and the row has it, before the flush answers.
    let append = journal.append(&record);
    tokio::pin!(append);
    assert!(futures_util::poll!(&mut append).is_pending());
    journal.stored(credential_id(1), 1).await;
    append.await.unwrap();
    clock.advance(QUARTER);
    journal.ready().await.unwrap();
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, None);
}
