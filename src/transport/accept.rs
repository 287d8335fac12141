//! Taking connections: so many at a time and no more. Each is a file descriptor, and a process that has used up its own can
//! open neither its database nor a way to a provider.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long to wait when the system has no connection to give, as without file descriptors: until some are closed.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes connections from a listener.
pub(super) struct Acceptor {
    name: &'static str,
    listener: TcpListener,
    slots: Arc<Semaphore>,
    full: AtomicBool,
}

/// One of the connections that there may be. Dropped, it makes room for the next.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// At most `max` connections at a time. The name is for the log.
    pub(super) fn new(name: &'static str, listener: TcpListener, max: usize) -> Self {
        Self { name, listener, slots: Arc::new(Semaphore::new(max)), full: AtomicBool::new(false) }
    }

    /// The next connection. While there is no room, new ones wait with the system, which soon refuses more.
    pub(super) async fn accept(&self) -> (TcpStream, Slot) {
        let permit = self.room().await;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Only speed depends on it.
                    let _ = stream.set_nodelay(true);
                    return (stream, Slot { _permit: permit });
                }
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(listener = self.name, %error, "no connection can be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn room(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            self.full.store(false, Ordering::Relaxed);
            return permit;
        }
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(listener = self.name, "all connections are taken: new ones wait");
        }
        match Arc::clone(&self.slots).acquire_owned().await {
            Ok(permit) => permit,
            // Nobody closes the semaphore.
            Err(_closed) => std::future::pending().await,
        }
    }
}

/// Whether it went wrong with this connection alone.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
