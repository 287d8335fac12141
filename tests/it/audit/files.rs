//! Sinks: JSON lines that are the rows, in files that rotate, over pipes that block.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use token_broker::domain::audit::{Audit as _, AuditSink as _, Head, Line, Walk};
use token_broker::infra::audit::{FileSink, FileSinkSettings, StdoutSink};

use super::{LONG, SHORT, World, entry};
use crate::contract;

fn settings(world: &World, max_bytes: u64, kept: u32) -> FileSinkSettings {
    FileSinkSettings { path: world.home.path().join("audit.jsonl"), max_bytes, kept }
}

fn read(text: &str) -> Vec<(Head, token_broker::domain::audit::Row)> {
    text.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().read().unwrap()).collect()
}

fn text(world: &World, name: &str) -> Option<String> {
    std::fs::read_to_string(world.home.path().join(name)).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_has_the_rows_and_can_be_verified_alone() {
    let world = World::new().await;
    let sink = Arc::new(FileSink::open(settings(&world, 1_000_000, 1)).unwrap());
    let log = world.log(LONG, vec![sink]);
    for n in 0..20 {
        log.record(entry(&n.to_string())).await.unwrap();
    }
    let lines = read(&text(&world, "audit.jsonl").unwrap());
    let mut walk = Walk::from(lines[0].0);
    for (over, row) in &lines {
        assert_eq!(*over, walk.head());
        walk.step(row).unwrap();
    }
    assert_eq!(lines.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), world.rows().await);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(world.home.path().join("audit.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_rotates_and_the_oldest_goes() {
    let world = World::new().await;
    let sink = Arc::new(FileSink::open(settings(&world, 1, 2)).unwrap());
    let log = world.log(LONG, vec![sink]);
    for n in 1..=5 {
        log.record(entry(&n.to_string())).await.unwrap();
    }
    let last = |name: &str| read(&text(&world, name).unwrap()).pop().unwrap().1.sequence;
    assert_eq!((last("audit.jsonl"), last("audit.jsonl.1"), last("audit.jsonl.2")), (5, 4, 3));
    assert_eq!(text(&world, "audit.jsonl.3"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_moved_or_deleted_is_made_anew() {
    let world = World::new().await;
    let sink = Arc::new(FileSink::open(settings(&world, 1_000_000, 2)).unwrap());
    let log = world.log(LONG, vec![sink]);
    let (path, moved) = (world.home.path().join("audit.jsonl"), world.home.path().join("moved"));
    log.record(entry("1")).await.unwrap();
    std::fs::rename(&path, &moved).unwrap();
    log.record(entry("2")).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    log.record(entry("3")).await.unwrap();
    let of = |name: &str| {
        read(&text(&world, name).unwrap()).into_iter().map(|(_, r)| r.sequence).collect::<Vec<_>>()
    };
    assert_eq!((of("moved"), of("audit.jsonl")), (vec![1], vec![3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_one_processs() {
    let world = World::new().await;
    let first = FileSink::open(settings(&world, 1_000_000, 2)).unwrap();
    let second = FileSink::open(settings(&world, 1_000_000, 2)).unwrap_err();
    assert!(second.to_string().contains("another process writes it"), "{second}");
    drop(first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_line_of_a_crash_is_taken_away() {
    let world = World::new().await;
    let path = world.home.path().join("audit.jsonl");
    let half = format!("{{\"version\":1,\"sequence\":1}}\n{{\"versi{}", "x".repeat(200_000));
    std::fs::write(&path, half).unwrap();
    let sink = Arc::new(FileSink::open(settings(&world, 1_000_000, 2)).unwrap());
    let log = world.log(LONG, vec![sink]);
    log.record(entry("1")).await.unwrap();
    let all = text(&world, "audit.jsonl").unwrap();
    let (first, rest) = all.split_once('\n').unwrap();
    assert_eq!(first, "{\"version\":1,\"sequence\":1}");
    assert_eq!(read(rest).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_withholds_answers_until_it_can() {
    let world = World::new().await;
    let directory = world.home.path().join("logs");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("audit.jsonl");
    let sink =
        FileSink::open(FileSinkSettings { path: path.clone(), max_bytes: 1_000_000, kept: 1 }).unwrap();
    let log = world.log(SHORT, vec![Arc::new(sink)]);
    log.record(entry("1")).await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    log.record(entry("2")).await.unwrap_err();
    std::fs::create_dir(&directory).unwrap();
    log.close().await;
    assert_eq!(read(&std::fs::read_to_string(&path).unwrap())[0].1.sequence, 2);
    assert!(FileSink::open(FileSinkSettings { path: directory, max_bytes: 1, kept: 1 }).is_err());
}

/// A stream that fails when it is told to, in the middle of a line.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<(Vec<u8>, u32)>>);

impl io::Write for Stream {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap();
        if inner.1 > 0 && text.len() > 1 {
            inner.1 -= 1;
            inner.0.extend_from_slice(&text[..10]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_output_has_whole_lines_after_a_failure() {
    let stream = Stream::default();
    let sink = StdoutSink::to(stream.clone()).unwrap();
    let rows: Arc<[_]> = contract::audit_rows(Head::default(), vec![entry("1"), entry("2")]).into();
    stream.0.lock().unwrap().1 = 1;
    sink.write(Head::default(), rows.clone()).await.unwrap_err();
    sink.write(Head::default(), rows.clone()).await.unwrap();
    let all = String::from_utf8(stream.0.lock().unwrap().0.clone()).unwrap();
    let (torn, whole) = all.split_once('\n').unwrap();
    assert_eq!(torn.len(), 10);
    assert_eq!(read(whole).into_iter().map(|(_, row)| row).collect::<Vec<_>>()[..], rows[..]);
}

/// A pipe that nobody reads: the thread that writes is stuck in the system call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_nobody_reads_withholds_answers_and_stops_nothing_else() {
    let (reader, writer) = io::pipe().unwrap();
    let world = World::new().await;
    let log = world.log(SHORT, vec![Arc::new(StdoutSink::to(writer).unwrap())]);
    let mut big = entry("big");
    // No pipe holds that much.
    big.reason = Some("x".repeat(2_000_000).into());
    let refused = tokio::time::timeout(Duration::from_secs(30), log.record(big)).await.unwrap();
    refused.unwrap_err();
    log.record(entry("2")).await.unwrap_err();
    assert_eq!(world.requests().await, ["big", "2"]);
    // Somebody reads: all of it comes.
    let read_all = std::thread::spawn(move || io::read_to_string(reader).unwrap());
    log.close().await;
    drop(log);
    assert_eq!(read(&read_all.join().unwrap()).len(), 2);
}

/// A slip of the pen, such as the path of the vault's key.
#[tokio::test]
async fn a_file_that_is_no_audit_log_stays_as_it_is() {
    let world = World::new().await;
    let path = world.home.path().join("audit.jsonl");
    for content in
        ["canary-key", "[grpc]\n", "{\"version\":1}\n", "{}\n{}", "{\"version\":2,\"sequence\":1}\n", "\n"]
    {
        std::fs::write(&path, content).unwrap();
        let error = FileSink::open(settings(&world, 1_000_000, 1)).err().unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("no audit log"), "{content}: {cause}");
        assert_eq!(text(&world, "audit.jsonl").unwrap(), content);
    }
    // A crash may leave as little as this of a first line.
    for (n, half) in
        ["", "{", "{\"version\":1,\"seq", "{\"version\":1,\"sequence\":12,\"ti"].into_iter().enumerate()
    {
        let name = format!("audit-{n}.jsonl");
        std::fs::write(world.home.path().join(&name), half).unwrap();
        let path = world.home.path().join(&name);
        FileSink::open(FileSinkSettings { path, ..settings(&world, 1_000_000, 1) }).unwrap();
        assert_eq!(text(&world, &name).unwrap(), "", "{half}");
    }
}
