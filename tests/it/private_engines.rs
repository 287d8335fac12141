//! The servers that tests start for themselves end with the tests, and leave nothing behind.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::Connection as _;

use crate::engines::postgres::{Options, Postgres, Stop};
use crate::engines::redis::{self, Redis};

/// Tells the process of the test below what to do.
const AS_A_CHILD: &str = "TOKEN_BROKER_TEST_HOLDS_A_SERVER";

/// A process that has ended is a zombie until its parent, which is not this process, takes note.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_server_is_stopped_and_started_again_in_its_place() {
    let server = Postgres::start(Options::default());
    let (home, pid) = (server.home().to_owned(), server.pid().to_string());
    assert!(runs(&pid));
    for how in [Stop::Immediate, Stop::Fast] {
        let database = server.create_database("template1").await;
        server.stop(how);
        server.start_again();
        server.backdoor(&database).await.close().await.unwrap();
    }
    let pid = server.pid().to_string();
    drop(server);
    assert!(!runs(&pid) && !home.exists());
}

#[test]
fn a_server_ends_with_a_test_process_that_is_killed() {
    if std::env::var_os(AS_A_CHILD).is_some() {
        let server = Postgres::start(Options::default());
        writeln!(std::io::stdout(), "\nholds {} {}", server.pid(), server.home().display()).unwrap();
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["private_engines::a_server_ends_with_a_test_process_that_is_killed", "--exact", "--nocapture"])
        .env(AS_A_CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("holds ").map(str::to_owned));
    let held = held.expect("the child has a server");
    let (pid, home) = held.split_once(' ').unwrap();
    // Ends when the log's last writer has ended: an event, where a process that is not a child of ours has none.
    let home = PathBuf::from(home);
    let mut log = Command::new("tail")
        .args(["--follow=descriptor", "--quiet", &format!("--pid={pid}"), home.join("log").to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(runs(pid) && home.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    log.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    log.wait().unwrap();
    assert!(!runs(pid), "{rest}");
}

#[test]
fn a_redis_starts_again_in_its_place_and_ends_with_its_test() {
    let server = Redis::start(redis::Options::default());
    let (home, port) = (server.home().to_owned(), server.port());
    let first = server.pid().to_string();
    server.pause();
    server.kill();
    assert!(!runs(&first), "a paused one is killed, too");
    server.start_again();
    assert_eq!(server.port(), port);
    let second = server.pid().to_string();
    drop(server);
    assert!(!runs(&second) && !home.exists());
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
#[test]
fn a_redis_ends_with_a_test_process_that_is_killed() {
    if std::env::var_os(AS_A_CHILD).is_some() {
        let server = Redis::start(redis::Options::default());
        println!("\nholds {} {}", server.pid(), server.home().display());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["private_engines::a_redis_ends_with_a_test_process_that_is_killed", "--exact", "--nocapture"])
        .env(AS_A_CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("holds ").map(str::to_owned));
    let held = held.expect("the child has a server");
    let (pid, home) = held.split_once(' ').unwrap();
    let mut log = Command::new("tail")
        .args(["--follow=descriptor", "--quiet", &format!("--pid={pid}"), &format!("{home}/log")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    log.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    log.wait().unwrap();
    assert!(!runs(pid), "{rest}");
}
