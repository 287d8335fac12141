//! Private database servers for tests: started by the tests on free ports, gone when the test process is gone, whatever
//! ended it. Included by several test targets, so nothing here knows any of them.

#![allow(dead_code, reason = "each test target uses a part of it")]

pub(crate) mod postgres;
pub(crate) mod redis;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A free port on the loopback interface, from below the range that the system gives to outgoing connections: while a
/// server is stopped, no client can come to sit on its port.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let n = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(12_000 + n % 18_000).expect("below 30000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a shell command as soon as this process has ended, `kill -9` included: the shell reads a pipe that this process
/// holds open. Dropping it is an end, too, and waits for the command.
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// `command` may use `$1`, `$2`, … for the arguments.
    pub(crate) fn start(command: &str, arguments: &[&Path]) -> Self {
        let script = format!("trap '' INT TERM HUP; cat >/dev/null; {command}");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg("watchdog").args(arguments);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Out of reach of a Ctrl-C that is meant for the tests.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        Self { shell: shell.spawn().expect("sh runs") }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A program in one of the folders or on the PATH; panics with what to install.
pub(crate) fn program(name: &str, folders: &[PathBuf], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("the tests need {name}: install the Debian package {package} (tests/setup does)")
        })
}
