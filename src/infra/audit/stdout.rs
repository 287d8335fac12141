//! Standard output, for a collector that reads it. Logs go to standard error.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;

use super::lines;
use super::writer::Writer;
use crate::domain::audit::{AuditSink, Head, Row, SinkError};

/// See the module.
#[derive(Debug)]
pub struct StdoutSink(Writer);

const NAME: &str = "stdout";

impl StdoutSink {
    /// Begins to write.
    pub fn start() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// To something like it.
    pub fn to(mut stream: impl io::Write + Send + 'static) -> io::Result<Self> {
        // What a failed write left of a line is not the beginning of the next one.
        let mut torn = false;
        let write = move |text: &[u8]| {
            let end = if torn { &b"\n"[..] } else { b"" };
            torn = true;
            stream.write_all(end)?;
            stream.write_all(text)?;
            stream.flush()?;
            torn = false;
            Ok(())
        };
        Ok(Self(Writer::start("audit-stdout", write)?))
    }
}

#[async_trait]
impl AuditSink for StdoutSink {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn write(&self, over: Head, rows: Arc<[Row]>) -> Result<(), SinkError> {
        let failed = |source| SinkError { sink: NAME, source };
        self.0.write(lines(over, &rows).map_err(failed)?).await.map_err(failed)
    }
}
