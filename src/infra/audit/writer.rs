//! A thread that writes. A pipe that nobody reads, or a disk that hangs, blocks it and nothing else: neither the runtime's
//! threads nor the process's end wait for it.

use std::io;
use std::sync::mpsc;

use tokio::sync::oneshot;

type Job = (Vec<u8>, oneshot::Sender<io::Result<()>>);

/// The way to the thread. It ends when this is dropped and what it was given is written.
#[derive(Debug)]
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// `write` takes whole lines, all or none.
    pub(super) fn start(
        name: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok((text, done)) = waiting.recv() {
                // Whoever asked may have gone.
                let _ = done.send(write(&text));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Writes, and waits for it.
    pub(super) async fn write(&self, text: Vec<u8>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let gone = || io::Error::other("the writing thread has ended");
        self.0.send((text, done)).map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }
}
