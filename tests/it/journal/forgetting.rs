//! What is not needed any more goes away; what is needed stays.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use token_broker::domain::coordination::Journal as _;
use token_broker::infra::journal::FileJournal;

use super::{files, numbers, open, successor, write};
use crate::contract::samples::{credential_id, fingerprint, owner};
use crate::support::clock::ManualClock;

const QUARTER: Duration = Duration::from_mins(15);

fn clocked(directory: &Path) -> (Arc<FileJournal>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    (FileJournal::open(directory, owner(1), clock.clone()).unwrap().0, clock)
}

/// Two appends: when the second one answers, the tidying after the first is done.
async fn tidied(journal: &FileJournal, n: u32) {
    for n in [n, n + 1] {
        journal.append(&write(n)).await.unwrap();
        journal.stored(credential_id(n), i64::from(n)).await;
    }
}

#[tokio::test]
async fn a_stored_record_is_kept_for_fifteen_minutes() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    journal.append(&write(1)).await.unwrap();
    journal.stored(credential_id(1), 1).await;
    let first = files(home.path());
    clock.advance(QUARTER - Duration::from_millis(1));
    tidied(&journal, 10).await;
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, Some(write(1)));
    assert_eq!(files(home.path()), first);
    clock.advance(Duration::from_millis(1));
    tidied(&journal, 20).await;
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, None);
    // The segment has later records.
    assert_eq!(files(home.path()), first);
    clock.advance(QUARTER);
    tidied(&journal, 30).await;
    tidied(&journal, 40).await;
    clock.advance(QUARTER);
    tidied(&journal, 50).await;
    tidied(&journal, 60).await;
    let now = files(home.path());
    assert!(now.len() == 1 && now != first || now.len() == 1, "{now:?}");
}

#[tokio::test]
async fn a_segment_goes_when_nothing_in_it_is_needed_even_the_current_one() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    journal.append(&write(1)).await.unwrap();
    let first = files(home.path());
    // The flush that covers this append comes before the tidying, by which time nothing else is there.
    journal.stored(credential_id(1), 1).await;
    clock.advance(QUARTER);
    // Written and stored at once: also garbage when the quarter has passed again.
    tidied(&journal, 2).await;
    clock.advance(QUARTER);
    journal.append(&write(4)).await.unwrap();
    journal.stored(credential_id(4), 4).await;
    clock.advance(QUARTER);
    // Any command lets the writer look. One that is written keeps its own segment: so the last one is a new token of a
    // row whose earlier record it replaces, in a segment that is new by then.
    journal.append(&successor(5, 4, 5)).await.unwrap();
    journal.stored(credential_id(4), 5).await;
    assert_eq!(journal.successor(credential_id(4), fingerprint(4)).await, Some(successor(5, 4, 5)));
    assert_eq!(files(home.path()).len(), 1);
    drop(first);
}

#[tokio::test]
async fn the_disk_and_the_memory_that_it_takes_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let (journal, clock) = clocked(home.path());
    // Never stored: it stays, with its segment.
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
    tidied(&journal, 10).await;
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, None);
}
