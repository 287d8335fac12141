//! The pauses between attempts at a write that has to succeed.

use std::time::Duration;

/// The first pause; each is twice as long as the one before, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Pauses(Duration);

impl Pauses {
    /// Begins with the shortest.
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// Waits until the next attempt.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
