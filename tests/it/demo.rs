//! The demo as a newcomer runs it: the binary, no configuration, no terminal.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Far beyond what it takes; for a demo that hangs.
const LIMIT: Duration = Duration::from_mins(5);

#[tokio::test]
async fn the_demo_ends_well_and_shows_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_token-broker"))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, run).await.expect("the demo ends by itself").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));

    for line in ["8. What the provider saw", "40 tokens, 1 different", "one token request for 40 callers"] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert!(!text.contains('✗') && !text.contains('\u{1b}'), "{text}");
    for begin in ["demo-at-", "demo-rt-", "demo-code-", "tb_", "state="] {
        for (_, rest) in text.match_indices(begin).map(|(at, found)| text.split_at(at + found.len())) {
            let shown = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).count();
            assert!(shown <= 4, "{begin} shows {shown} characters:\n{text}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo leaves files behind");
}
