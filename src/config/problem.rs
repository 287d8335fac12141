//! What is wrong with a configuration: all of it at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::tree::Origin;

/// One mistake. Never repeats the value, which may be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's full dotted name, as `grpc.listen`. Empty if the mistake is not a key's.
    pub key: String,
    /// Where the value is from: `file:line` or the environment variable. `None` if there is no value.
    pub place: Option<String>,
    /// What to change.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.key.as_str()) {
            (Some(place), "") => write!(f, "{place}: {}", self.message),
            (Some(place), key) => write!(f, "{key} ({place}): {}", self.message),
            (None, "") => f.write_str(&self.message),
            (None, key) => write!(f, "{key}: {}", self.message),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file can't be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Every mistake in it, in the order of the sections.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "the configuration has a mistake:".to_owned(),
        n => format!("the configuration has {n} mistakes:"),
    };
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}

/// Collects problems while a configuration is read.
#[derive(Default)]
pub(super) struct Problems {
    list: RefCell<Vec<Problem>>,
    /// Every key that was asked for, with names of the operator's own as `*`: the schema.
    asked: RefCell<BTreeSet<String>>,
}

impl Problems {
    /// Notes a mistake.
    pub(super) fn add(&self, key: &str, origin: Option<&Origin>, message: impl Into<String>) {
        let place = origin.map(ToString::to_string);
        self.list.borrow_mut().push(Problem { key: key.to_owned(), place, message: message.into() });
    }

    /// Notes that a key exists.
    pub(super) fn asked_for(&self, schema_key: String) {
        self.asked.borrow_mut().insert(schema_key);
    }

    /// The keys that exist, so far as the sections have been read.
    pub(super) fn schema(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// All mistakes.
    pub(super) fn into_list(self) -> Vec<Problem> {
        self.list.into_inner()
    }
}
