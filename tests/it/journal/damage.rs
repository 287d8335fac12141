//! Segments that end anywhere, and bits that flip.

use std::path::PathBuf;

use tempfile::TempDir;
use token_broker::domain::coordination::Journal as _;

use super::{files, numbers, open, write};

/// A journal of three records whose process has died, its one segment, and where its zeros begin.
async fn three() -> (TempDir, PathBuf, Vec<u8>, usize) {
    let home = tempfile::tempdir().unwrap();
    let (journal, _) = open(home.path(), 1);
    for n in 1..=3 {
        journal.append(&write(n)).await.unwrap();
    }
    drop(journal);
    let path = files(home.path()).remove(0);
    let segment = std::fs::read(&path).unwrap();
    let used = segment.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (home, path, segment, used)
}

#[tokio::test]
async fn a_segment_cut_at_any_byte_gives_its_whole_records() {
    let (home, path, segment, used) = three().await;
    let mut run = 10;
    let mut seen = Vec::new();
    for length in (0..=used).rev() {
        // Cut short, or with the zeros that it was made of.
        let mut cut = segment[..length].to_vec();
        if length % 2 == 0 {
            cut.resize(length + 100, 0);
        }
        std::fs::write(&path, &cut).unwrap();
        run += 1;
        let (journal, former) = open(home.path(), run);
        let found = numbers(&former[0]);
        assert_eq!(found, [1, 2, 3][..found.len()], "{length}");
        assert_eq!(former[0].damaged(), 0, "{length}");
        seen.push(found.len());
        // The others wrote nothing.
        let others = former.into_iter().skip(1);
        for other in others {
            other.forget().await.unwrap();
        }
        drop(journal);
    }
    assert!(seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
    for count in 0..=3 {
        assert!(seen.contains(&count));
    }
    // A new segment goes on behind a torn one.
    std::fs::write(&path, &segment[..used - 1]).unwrap();
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
    let (home, path, segment, used) = three().await;
    let mut run = 10;
    for byte in (0..used).step_by(7) {
        let mut flipped = segment.clone();
        flipped[byte] ^= 1 << (byte % 8);
        std::fs::write(&path, &flipped).unwrap();
        run += 1;
        let (journal, former) = open(home.path(), run);
        let found = numbers(&former[0]);
        assert_eq!(found.len(), 2, "byte {byte}: {found:?}");
        // Behind the last whole record it is no different from a write that was cut short.
        assert_eq!(former[0].damaged(), usize::from(found != [1, 2]), "byte {byte}");
        for other in former.into_iter().skip(1) {
            other.forget().await.unwrap();
        }
        drop(journal);
    }
}

#[tokio::test]
async fn what_this_version_cannot_read_stays_for_one_that_can() {
    use sha2::{Digest as _, Sha256};

    let (home, path, mut segment, used) = three().await;
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
            if former.run().owner == crate::contract::samples::owner(1) {
                assert_eq!((numbers(&former), former.damaged()), (vec![1, 2, 3], 1));
            }
            former.forget().await.unwrap();
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), segment);
}
