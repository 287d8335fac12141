//! Segments that end anywhere, and bits that flip.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use token_broker::domain::coordination::Journal as _;
use token_broker::infra::journal::{FileJournal, Former};

use super::disk::{SwitchedDisk, Switches};
use super::{files, numbers, open, write};
use crate::contract::samples::owner;
use crate::support::clock::ManualClock;

/// A journal of three records whose process has died, its one segment, and where each record ends.
async fn three() -> (TempDir, PathBuf, Vec<u8>, Vec<usize>) {
    let home = tempfile::tempdir().unwrap();
    let (journal, _) = open(home.path(), 1);
    for n in 1..=3 {
        journal.append(&write(n)).await.unwrap();
    }
    drop(journal);
    let path = files(home.path()).remove(0);
    let segment = std::fs::read(&path).unwrap();
    let mut ends = vec![0];
    for _ in 1..=3 {
        let begin = ends[ends.len() - 1];
        // Marker, length, checksum, content.
        let length = u32::from_le_bytes(segment[begin + 8..begin + 12].try_into().unwrap());
        ends.push(begin + 28 + usize::try_from(length).unwrap());
    }
    ends.remove(0);
    (home, path, segment, ends)
}

/// What a later process finds, and leaves as it is. It writes nothing itself.
async fn found(base: &Path, run: u32) -> Former {
    let switches = Arc::new(Switches::default());
    switches.full.store(true, std::sync::atomic::Ordering::SeqCst);
    let disk = Arc::new(SwitchedDisk(switches));
    let (journal, former) =
        FileJournal::open_on(disk, base, owner(run), Arc::new(ManualClock::new())).unwrap();
    drop(journal);
    let (mut first, others): (Vec<_>, Vec<_>) =
        former.into_iter().partition(|former| former.run().owner == owner(1));
    for other in others {
        other.forget().await.unwrap();
    }
    first.remove(0)
}

#[tokio::test]
async fn a_segment_cut_at_any_byte_gives_its_whole_records() {
    let (home, path, segment, ends) = three().await;
    for length in 0..=ends[2] {
        for zeros in [0, 100] {
            let mut cut = segment[..length].to_vec();
            cut.resize(length + zeros, 0);
            std::fs::write(&path, &cut).unwrap();
            let former = found(home.path(), 2).await;
            let whole = ends.iter().filter(|end| **end <= length).count();
            // A record whose last bytes are zeros is whole among zeros.
            let least = if zeros == 0 { whole..=whole } else { whole..=whole + 1 };
            let numbers = numbers(&former);
            assert!(least.contains(&numbers.len()), "{length}: {numbers:?}");
            assert_eq!(numbers, [1, 2, 3][..numbers.len()], "{length}");
            assert_eq!(former.damaged(), 0, "{length}");
            drop(former);
            std::fs::remove_dir(home.path().join(format!("slot-0/run-{}", owner(2)))).unwrap();
        }
    }
    // A new segment goes on behind a torn one.
    std::fs::write(&path, &segment[..ends[2] - 1]).unwrap();
    let (journal, _) = open(home.path(), 2);
    journal.append(&write(4)).await.unwrap();
    drop(journal);
    let (_journal, former) = open(home.path(), 3);
    let mut all: Vec<_> = former.iter().flat_map(numbers).collect();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 4]);
}

#[tokio::test]
async fn a_flipped_bit_costs_one_record_and_is_counted() {
    let (home, path, segment, ends) = three().await;
    for byte in 0..ends[2] {
        let mut flipped = segment[..ends[2] + 100].to_vec();
        flipped[byte] ^= 1 << (byte % 8);
        std::fs::write(&path, &flipped).unwrap();
        let former = found(home.path(), 2).await;
        let hit = ends.iter().position(|end| byte < *end).unwrap();
        let mut expected = vec![1, 2, 3];
        expected.remove(hit);
        assert_eq!(numbers(&former), expected, "byte {byte}");
        // Behind the last whole record it is no different from a write that was cut short.
        assert_eq!(former.damaged(), usize::from(hit < 2), "byte {byte}");
        drop(former);
        std::fs::remove_dir(home.path().join(format!("slot-0/run-{}", owner(2)))).unwrap();
    }
}

#[tokio::test]
async fn what_this_version_cannot_read_stays_for_one_that_can() {
    use sha2::{Digest as _, Sha256};

    let (home, path, mut segment, ends) = three().await;
    let used = ends[2];
    // A whole record of a format that is not known here.
    let content = b"from the future";
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    let sum = Sha256::new().chain_update(length).chain_update(content).finalize();
    let record = [&segment[..8], &length, &sum[..16], content].concat();
    segment[used..used + record.len()].copy_from_slice(&record);
    std::fs::write(&path, &segment).unwrap();
    for run in 2..=3 {
        let (_journal, former) = open(home.path(), run);
        for former in former {
            if former.run().owner == owner(1) {
                assert_eq!((numbers(&former), former.damaged()), (vec![1, 2, 3], 1));
            }
            former.forget().await.unwrap();
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), segment);
}
