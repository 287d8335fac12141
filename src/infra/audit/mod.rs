//! Sinks of the audit log: JSON lines on standard output, and in a file that rotates.

mod file;
mod stdout;
mod writer;

pub use file::{FileSink, FileSinkError, FileSinkSettings};
pub use stdout::StdoutSink;

use std::io;

use crate::domain::audit::{Head, Line, Row};

/// Rows as lines.
fn lines(over: Head, rows: &[Row]) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(rows.len() * 512);
    let mut over = over;
    for row in rows {
        serde_json::to_writer(&mut text, &Line::new(over, row))?;
        text.push(b'\n');
        over = row.head();
    }
    Ok(text)
}
