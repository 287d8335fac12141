//! The disk fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::join_all;
use token_broker::domain::coordination::Journal as _;
use token_broker::infra::journal::FileJournal;

use super::disk::{SwitchedDisk, Switches};
use super::{files, numbers, open, write};
use crate::contract::samples::{credential_id, fingerprint, owner};
use crate::support::clock::ManualClock;

fn switched(directory: &Path) -> (Arc<FileJournal>, Arc<Switches>) {
    let switches = Arc::new(Switches::default());
    let disk = Arc::new(SwitchedDisk(Arc::clone(&switches)));
    let clock = Arc::new(ManualClock::new());
    (FileJournal::open_on(disk, directory, owner(1), clock).unwrap().0, switches)
}

#[tokio::test]
async fn appends_that_come_together_share_a_flush() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    switches.hold(true);
    let writes: Vec<_> = (1..=200).map(write).collect();
    let appends = join_all(writes.iter().map(|write| journal.append(write)));
    let release = async {
        // Polled after all appends, so all have been handed over.
        switches.hold(false);
    };
    let (results, ()) = tokio::join!(appends, release);
    assert!(results.iter().all(Result::is_ok));
    let flushes = switches.flushes.load(SeqCst);
    // The first one may have taken the first record alone; what is left are a few full batches.
    assert!((1..=8).contains(&flushes), "{flushes} flushes for 200 appends");
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    let mut found = numbers(&former[0]);
    found.sort_unstable();
    assert_eq!(found, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_append_answers_after_its_flush() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    switches.hold(true);
    let record = write(1);
    let append = journal.append(&record);
    tokio::pin!(append);
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut append).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, None);
    switches.hold(false);
    append.await.unwrap();
    assert_eq!(journal.successor(credential_id(1), fingerprint(1)).await, Some(write(1)));
}

#[tokio::test]
async fn a_failed_flush_gives_the_segment_up() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    journal.append(&write(1)).await.unwrap();
    switches.full.store(true, SeqCst);
    switches.breaks_flush.store(true, SeqCst);
    journal.append(&write(2)).await.unwrap_err();
    let flushes = switches.flushes.load(SeqCst);
    // No new segment can be made: nothing is written, and nobody is promised that it would be.
    journal.ready().await.unwrap_err();
    journal.append(&write(3)).await.unwrap_err();
    assert_eq!(switches.flushes.load(SeqCst), flushes, "the old segment was flushed again");
    // There is room again.
    switches.full.store(false, SeqCst);
    journal.ready().await.unwrap();
    journal.append(&write(4)).await.unwrap();
    assert_eq!(files(home.path()).len(), 2);
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    let found = numbers(&former[0]);
    // The second one was written and not flushed: it may be there. The third one was never written.
    assert_eq!(found.iter().filter(|n| **n != 2).copied().collect::<Vec<_>>(), [1, 4]);
}

#[tokio::test]
async fn a_failed_flush_fails_all_that_wait_for_it_and_an_append_alone_makes_the_next_segment() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    switches.hold(true);
    let first = write(1);
    let held = journal.append(&first);
    tokio::pin!(held);
    assert!(futures_util::poll!(&mut held).is_pending());
    // The writer has the first one in its hands now, or takes all three together.
    let writes = [write(2), write(3)];
    let appends = join_all(writes.iter().map(|write| journal.append(write)));
    switches.breaks_flush.store(true, SeqCst);
    let (first, rest, ()) = tokio::join!(held, appends, async { switches.hold(false) });
    first.unwrap_err();
    // Either they shared the broken flush, or they came after it and went to a new segment.
    let all_alike = rest.iter().all(Result::is_ok) || rest.iter().all(Result::is_err);
    assert!(all_alike, "{rest:?}");
    journal.append(&write(4)).await.unwrap();
    journal.ready().await.unwrap();
}

#[tokio::test]
async fn a_write_that_is_cut_off_damages_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    journal.append(&write(1)).await.unwrap();
    switches.breaks_write.store(true, SeqCst);
    journal.append(&write(2)).await.unwrap_err();
    assert_eq!(journal.successor(credential_id(2), fingerprint(2)).await, None);
    journal.append(&write(3)).await.unwrap();
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    assert_eq!((numbers(&former[0]), former[0].damaged()), (vec![1, 3], 0));
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_no_ready_journal() {
    let home = tempfile::tempdir().unwrap();
    let switches = Arc::new(Switches::default());
    switches.full.store(true, SeqCst);
    let disk = Arc::new(SwitchedDisk(Arc::clone(&switches)));
    let clock = Arc::new(ManualClock::new());
    let (journal, _) = FileJournal::open_on(disk, home.path(), owner(1), clock).unwrap();
    journal.ready().await.unwrap_err();
    switches.full.store(false, SeqCst);
    journal.ready().await.unwrap();
    journal.append(&write(1)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_fills_up_still_takes_what_was_promised_room() {
    let home = tempfile::tempdir().unwrap();
    let (journal, switches) = switched(home.path());
    switches.full.store(true, SeqCst);
    let mut n = 0;
    // Until the journal would like a new segment and gets none.
    while journal.ready().await.is_ok() {
        n += 1;
        journal.append(&write(n)).await.unwrap();
    }
    // Those who were told that it is ready.
    let promised: Vec<_> = (n + 1..=n + 50).map(write).collect();
    let results = join_all(promised.iter().map(|write| journal.append(write))).await;
    assert!(results.iter().all(Result::is_ok));
    journal.ready().await.unwrap_err();
    switches.full.store(false, SeqCst);
    journal.ready().await.unwrap();
    drop(journal);
    let (_journal, former) = open(home.path(), 2);
    assert_eq!(numbers(&former[0]).len(), usize::try_from(n + 50).unwrap());
}
