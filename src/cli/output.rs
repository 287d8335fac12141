//! The one place that prints: answers to standard output, errors to standard error; for people or as JSON.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use super::error::CliError;
use super::exit::Exit;

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// People.
    Human,
    /// Scripts: one JSON document on standard output; an error is one on standard error.
    Json,
}

/// Prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) format: Format,
}

impl Output {
    /// The answer of a command.
    pub(super) fn answer(self, human: &str, json: &impl Serialize) -> Result<(), CliError> {
        match self.format {
            Format::Human => print(&clean(human)),
            Format::Json => print_json(json),
        }
    }

    /// A part of an answer that goes on. False: nobody reads it any more.
    pub(super) fn part(human: &str) -> Result<bool, CliError> {
        write(&clean(human))
    }

    /// Why a command failed.
    pub(super) fn error(self, error: &CliError) {
        let text = match self.format {
            Format::Human => clean(&error.human()),
            Format::Json => serde_json::json!({ "error": error }).to_string(),
        };
        // Nowhere is left to say that this failed.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// JSON, whoever reads it.
fn print_json(json: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(json)
        .map_err(|error| CliError::new(Exit::Failed, format!("the answer is no JSON: {error}")))?;
    print(&text)
}

/// A text as it is, whoever reads it.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write(text).map(drop)
}

/// False: the reader has seen enough, as `head` does.
pub(super) fn write(text: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(CliError::from),
    }
}

/// Without control characters: a provider's account name must not steer the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Columns of texts, padded to the widest of each.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_no_control_characters() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc"), "a\u{fffd}[31mb\u{fffd}\nc");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "bc".to_owned()], vec!["äöü".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    bc\näöü");
    }
}
