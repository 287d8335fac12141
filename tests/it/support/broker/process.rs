//! The real binary as a child: its output, its signals, its end.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::site::Site;

/// How long anything may take. A limit for broken machines, never waited for in a test that passes.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// What all processes of one broker have printed.
#[derive(Clone)]
pub(super) struct Logs(Arc<watch::Sender<String>>);

impl Default for Logs {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(String::new())))
    }
}

impl Logs {
    pub(super) fn text(&self) -> String {
        self.0.borrow().clone()
    }

    pub(super) async fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1).await;
    }

    pub(super) async fn wait_for_times(&self, text: &str, times: usize) {
        self.wait_from(0, text, times).await;
    }

    async fn wait_from(&self, offset: usize, text: &str, times: usize) {
        let mut reader = self.0.subscribe();
        let found = reader.wait_for(|logs| logs[offset..].matches(text).count() >= times);
        let found = timeout(PATIENCE, found).await.is_ok();
        assert!(found, "{text:?} is not {times} times in the log:\n{}", self.text());
    }

    /// Ends with the stream.
    fn collect(&self, stream: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let sender = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|logs| {
                    logs.push_str(&line);
                    logs.push('\n');
                });
            }
        })
    }
}

/// A running child. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    output: [JoinHandle<()>; 2],
}

impl Process {
    /// Starts `serve` and waits until it listens.
    pub(super) async fn start(site: &Site) -> Self {
        let offset = site.logs.text().len();
        let mut child =
            site.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = [
            site.logs.collect(child.stdout.take().unwrap()),
            site.logs.collect(child.stderr.take().unwrap()),
        ];
        tokio::select! {
            () = site.logs.wait_from(offset, "{\"listening\":", 1) => {}
            status = child.wait() => panic!("it ended with {}:\n{}", status.unwrap(), site.logs.text()),
        }
        Self { child, output }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(super) async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// Waits for its end; all that it has printed is in the logs then.
    pub(super) async fn ended(mut self) -> ExitStatus {
        let end = async {
            let status = self.child.wait().await.unwrap();
            for stream in self.output {
                stream.await.unwrap();
            }
            status
        };
        timeout(PATIENCE, end).await.expect("it ends in time")
    }
}

/// The shell's own `kill`: the library forbids the unsafe code that a system call takes.
pub(super) async fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await.unwrap();
    assert!(sent.success(), "SIG{name} to {pid}");
}
