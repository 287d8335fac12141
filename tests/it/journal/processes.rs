//! Processes: killed while they write, and several on one directory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use token_broker::domain::coordination::Journal as _;
use token_broker::infra::journal::FileJournal;

use super::{files, numbers, open, write};
use crate::contract::samples::owner;
use crate::support::clock::ManualClock;

/// Set in the process that writes: the directory, and its number.
const DIRECTORY: &str = "TOKEN_BROKER_TEST_JOURNAL";
const NUMBER: &str = "TOKEN_BROKER_TEST_JOURNAL_RUN";

/// Not a test of this process: what the writing processes do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_process() {
    let (Some(directory), Some(number)) = (std::env::var_os(DIRECTORY), std::env::var_os(NUMBER)) else {
        return;
    };
    let number = number.to_str().unwrap().parse().unwrap();
    let clock = Arc::new(ManualClock::new());
    let (journal, _) = FileJournal::open(Path::new(&directory), owner(number), clock).unwrap();
    tell(&format!("open {}\n", journal.directory().display()));
    let mut tasks = tokio::task::JoinSet::new();
    for first in 1..=4 {
        let journal = Arc::clone(&journal);
        tasks.spawn(async move {
            for n in (first..).step_by(4) {
                if journal.append(&write(n)).await.is_err() {
                    tell(&format!("failed {n}\n"));
                    return;
                }
                tell(&format!("done {n}\n"));
            }
        });
    }
    tasks.join_all().await;
}

/// A line at a time: a process that is killed has said it whole, or not at all.
fn tell(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A process of its own that appends without end, and says on its standard error what it has done.
struct Writing {
    process: Child,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
    /// What was acknowledged, in what was read so far.
    done: Vec<i64>,
}

impl Writing {
    fn start(mut command: Command, directory: &Path, number: u32) -> Self {
        let mut process = command
            .args(["--exact", "journal::processes::writing_process", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(NUMBER, number.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut writing = Self { process, said, done: Vec::new() };
        while !writing.hear().expect("it opens its journal").starts_with("open ") {}
        writing
    }

    fn plain(directory: &Path, number: u32) -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()), directory, number)
    }

    fn hear(&mut self) -> Option<String> {
        let line = self.said.next()?.unwrap();
        if let Some(n) = line.strip_prefix("done ") {
            self.done.push(n.parse().unwrap());
        }
        Some(line)
    }

    /// Waits until so many are acknowledged, then kills it. Answers all that were acknowledged by then.
    fn kill_after(mut self, count: usize) -> Vec<i64> {
        while self.done.len() < count {
            self.hear().expect("it goes on");
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        while self.hear().is_some() {}
        self.done
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let home = tempfile::tempdir().unwrap();
    for round in 1..=8 {
        let writing = Writing::plain(home.path(), round);
        let done = writing.kill_after(usize::try_from(round * round).unwrap());
        let (journal, former) = open(home.path(), 100 + round);
        let former_run = former.iter().find(|former| former.run().owner == owner(round)).unwrap();
        let found = numbers(former_run);
        let lost: Vec<_> = done.iter().filter(|n| !found.contains(n)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {} are lost", done.len());
        for record in &former_run.run().records {
            assert_eq!(*record, write(u32::try_from(record.epoch).unwrap()), "round {round}");
        }
        assert_eq!(former_run.damaged(), 0);
        for former in former {
            former.forget().await.unwrap();
        }
        drop(journal);
    }
    assert!(!home.path().join("slot-1").exists(), "each found the former's slot free");
}

#[tokio::test]
async fn a_living_process_keeps_its_slot_and_a_dead_one_loses_it() {
    let home = tempfile::tempdir().unwrap();
    let first = Writing::plain(home.path(), 1);
    let second = Writing::plain(home.path(), 2);
    assert!(home.path().join("slot-1").exists());
    let (third, former) = open(home.path(), 3);
    assert!(former.is_empty(), "nobody has died");
    assert!(third.directory().starts_with(home.path().join("slot-2")));
    let done = second.kill_after(5);
    // The fourth takes the slot of the second, and all that is in it; the first and the third are left alone.
    let (fourth, former) = open(home.path(), 4);
    assert!(fourth.directory().starts_with(home.path().join("slot-1")));
    let [dead] = &former[..] else { panic!("one has died") };
    assert_eq!(dead.run().owner, owner(2));
    assert!(done.iter().all(|n| numbers(dead).contains(n)));
    // While they are being replayed they are nobody else's.
    let done = first.kill_after(5);
    drop(third);
    let (fifth, others) = open(home.path(), 5);
    let mut owners: Vec<_> = others.iter().map(|former| former.run().owner).collect();
    owners.sort();
    assert_eq!(owners, [owner(1), owner(3)]);
    assert!(fifth.directory().starts_with(home.path().join("slot-0")));
    assert!(done.iter().all(|n| numbers(&others[0]).contains(n)));
    // A slot that was taken over is nobody's again when it has been replayed.
    for former in others {
        former.forget().await.unwrap();
    }
    let (sixth, former) = open(home.path(), 6);
    assert!(former.is_empty());
    assert!(sixth.directory().starts_with(home.path().join("slot-2")));
}

#[tokio::test]
async fn a_slot_is_free_at_once_though_processes_are_being_started() {
    let home = tempfile::tempdir().unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    // Each has a copy of all that is open here, until its own program runs.
    let starting: Vec<_> = (0..2)
        .map(|_| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    assert!(Command::new("true").status().unwrap().success());
                }
            })
        })
        .collect();
    let first = home.path().join("slot-0");
    let mut elsewhere = Vec::new();
    for run in 1..=100 {
        let (journal, former) = open(home.path(), run);
        if !journal.directory().starts_with(&first) {
            elsewhere.push(run);
        }
        for former in former {
            former.forget().await.unwrap();
        }
    }
    enough.store(true, Ordering::Relaxed);
    for starting in starting {
        starting.join().unwrap();
    }
    assert_eq!(elsewhere, [0_u32; 0], "runs that found it taken");
}

#[tokio::test]
async fn the_systems_own_refusal_to_write_is_an_error_and_no_loss() {
    let home = tempfile::tempdir().unwrap();
    // Files of at most 512 KiB: not even a first segment can be made. The signal would end the process.
    let mut command = Command::new("sh");
    let program = std::env::current_exe().unwrap();
    command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\"", program.to_str().unwrap()]);
    let mut writing = Writing::start(command, home.path(), 1);
    for _ in 0..4 {
        let line = writing.hear().unwrap();
        assert!(line.starts_with("failed "), "{line}");
    }
    assert!(writing.process.wait().unwrap().success());
    assert_eq!(files(home.path()), Vec::<std::path::PathBuf>::new(), "nothing is left of the attempts");
    let (journal, former) = open(home.path(), 2);
    assert_eq!((former.len(), numbers(&former[0])), (1, vec![]));
    journal.append(&write(1)).await.unwrap();
}
