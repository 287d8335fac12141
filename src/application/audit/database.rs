//! The database as the writers of all chains find it: whether it answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::domain::ports::StoreError;

/// How many writers are at the database at one time at most: however many chains have rows, calls want to reach it too.
const AT_ONE_TIME: usize = 32;

/// See the module.
pub(super) struct Database {
    turns: Semaphore,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// How many wait for one.
    waiting: usize,
    /// Since when there was none although somebody asked.
    missing_since: Option<Instant>,
}

impl Database {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(AT_ONE_TIME), answers: Mutex::default() }
    }

    /// Asks it something.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let _turn = self.turns.acquire().await; // It is never closed.
        {
            let mut answers = self.answers();
            answers.waiting += 1;
            answers.missing_since.get_or_insert_with(Instant::now);
        }
        let answer = question.await;
        let mut answers = self.answers();
        answers.waiting -= 1;
        match &answer {
            // That a row is damaged is an answer, too.
            Ok(_) | Err(StoreError::Corrupt(_)) => {
                answers.missing_since = (answers.waiting > 0).then(Instant::now);
            }
            // Who asked is going to ask again.
            Err(StoreError::Unavailable(_)) => {}
        }
        answer
    }

    /// Whether it has not answered anybody for longer than this.
    pub(super) fn is_silent(&self, limit: Duration) -> bool {
        self.answers().missing_since.is_some_and(|since| since.elapsed() > limit)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
