//! People with a real browser each: headless Chromium, driven by `tests/browser/steps.mjs`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use super::oidc::node;

/// How long a step may take. A limit for broken machines, never waited for in a test that passes.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a person sees after a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) url: String,
    pub(crate) title: String,
    /// `data-page`; empty where there is none.
    pub(crate) page: String,
    pub(crate) text: String,
    /// What the browser has found wrong with the pages so far: blocked forms, blocked styles.
    complaints: Vec<String>,
    /// Every address that was gone to, redirects included.
    visited: Vec<String>,
}

/// The browser. Dropping it ends it.
pub(crate) struct Chromium {
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _process: Child,
}

impl Chromium {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join("tests/browser/node_modules");
        let chromium = root.join("target/test-tools/chromium");
        assert!(modules.is_dir() && chromium.exists(), "run `tests/setup` first (`make test` does)");
        let mut process = Command::new(node())
            .arg(root.join("tests/browser/steps.mjs"))
            .arg(chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts: run `tests/setup` first");
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { pipes: Mutex::new((process.stdin.take().unwrap(), output)), _process: process }
    }

    /// Opens an address.
    pub(crate) async fn open(&self, person: &str, url: &str) -> Seen {
        self.step(json!({ "person": person, "open": url })).await
    }

    /// Presses what leads on to another page.
    pub(crate) async fn click(&self, person: &str, selector: &str) -> Seen {
        self.step(json!({ "person": person, "click": selector })).await
    }

    /// Writes into a field.
    pub(crate) async fn fill(&self, person: &str, selector: &str, text: &str) {
        self.step(json!({ "person": person, "fill": [selector, text] })).await;
    }

    /// As a browser does that keeps none.
    pub(crate) async fn forget_cookies(&self, person: &str) {
        self.step(json!({ "person": person, "forget_cookies": true })).await;
    }

    /// The last address that a person was sent to that contains a text.
    pub(crate) async fn redirected(&self, person: &str, part: &str) -> String {
        let seen = self.step(json!({ "person": person, "look": true })).await;
        seen.visited.into_iter().rfind(|url| url.contains(part)).expect(part)
    }

    async fn step(&self, step: Value) -> Seen {
        let mut pipes = self.pipes.lock().await;
        let (input, output) = &mut *pipes;
        input.write_all(format!("{step}\n").as_bytes()).await.unwrap();
        let line =
            tokio::time::timeout(PATIENCE, output.next_line()).await.expect("the browser answers in time");
        let line = line.unwrap().expect("the browser runs");
        let seen: Seen = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{step}: {line}"));
        assert!(seen.complaints.is_empty(), "{step}: {:?}", seen.complaints);
        seen
    }
}
