//! What happens in a run, written down as it happens.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::clock;
use crate::history::{Call, Change, Disturbance, Micros, Window};

/// Everything that the harness itself sees. The provider keeps its own book.
#[derive(Default)]
pub(crate) struct Record {
    calls: Mutex<Vec<Call>>,
    changes: Mutex<Vec<Change>>,
    windows: Mutex<Vec<Window>>,
    kills: Mutex<BTreeMap<String, u32>>,
    incidents: Mutex<Vec<String>>,
}

impl Record {
    pub(crate) fn call(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    pub(crate) fn change(&self, change: Change) {
        self.changes.lock().unwrap().push(change);
    }

    /// A disturbance that is over now.
    pub(crate) fn window(&self, what: Disturbance, from: Micros) {
        self.windows.lock().unwrap().push(Window { what, from, to: clock::now() });
    }

    /// A process was killed at a step, or at random.
    pub(crate) fn kill(&self, at: &str) {
        *self.kills.lock().unwrap().entry(at.to_owned()).or_default() += 1;
    }

    /// What should not happen in any run, whatever the checks say.
    pub(crate) fn incident(&self, text: String) {
        eprintln!("chaos: {text}");
        self.incidents.lock().unwrap().push(text);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap().clone()
    }

    pub(crate) fn windows(&self) -> Vec<Window> {
        self.windows.lock().unwrap().clone()
    }

    pub(crate) fn kills(&self) -> BTreeMap<String, u32> {
        self.kills.lock().unwrap().clone()
    }

    pub(crate) fn incidents(&self) -> Vec<String> {
        self.incidents.lock().unwrap().clone()
    }
}
