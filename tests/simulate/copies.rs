//! Where each refresh token has been durable: what has never been so may be lost, anything else may not.

use std::collections::HashSet;
use std::sync::Mutex;

use token_broker::domain::ports::LineageWrite;

use super::ports::fingerprint_of;

#[derive(Default)]
struct State {
    /// In a journal or a row, which forget nothing in these runs but for the row of a database that fails over.
    for_good: HashSet<[u8; 32]>,
    /// In the permit store since it was last wiped.
    in_permits: HashSet<[u8; 32]>,
}

#[derive(Default)]
pub(crate) struct Copies(Mutex<State>);

fn token(write: &LineageWrite) -> [u8; 32] {
    write.tokens.refresh.as_ref().unwrap().fingerprint.0
}

impl Copies {
    pub(crate) fn in_journal(&self, write: &LineageWrite) {
        self.0.lock().unwrap().for_good.insert(token(write));
    }

    pub(crate) fn in_row(&self, write: &LineageWrite) {
        self.0.lock().unwrap().for_good.insert(token(write));
    }

    pub(crate) fn in_permits(&self, write: &LineageWrite) {
        self.0.lock().unwrap().in_permits.insert(token(write));
    }

    pub(crate) fn permits_wiped(&self) {
        self.0.lock().unwrap().in_permits.clear();
    }

    /// Whether there has been a durable copy of this refresh token that was not wiped since.
    pub(crate) fn has(&self, refresh: &str) -> bool {
        let state = self.0.lock().unwrap();
        let token = fingerprint_of(refresh).0;
        state.for_good.contains(&token) || state.in_permits.contains(&token)
    }
}
