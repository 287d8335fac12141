//! The environment as a value, so that tests bring their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::tree::environment_form;

/// What every override's name begins with.
pub const PREFIX: &str = "TOKEN_BROKER_";

/// Names and values of variables. Values may be secrets, so `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of variables whose values are not UTF-8.
    unreadable: BTreeSet<String>,
}

impl Environment {
    /// The process's own. Asking for a variable that is not UTF-8 says that it is not set.
    #[must_use]
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.variables.insert(name, value)),
                (Ok(name), Err(_)) => drop(environment.unreadable.insert(name)),
                (Err(_), _) => {}
            }
        }
        environment
    }

    /// One variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The overrides: the name's segments, the name, the value.
    ///
    /// Only names with a double underscore are: every key lies in a section, and Kubernetes itself sets variables such
    /// as `TOKEN_BROKER_SERVICE_HOST` for a service that is called token-broker.
    pub(super) fn overrides(&self) -> impl Iterator<Item = (Vec<&str>, &str, &str)> {
        self.variables.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?;
            key.contains("__").then(|| (key.split("__").collect(), name.as_str(), value.as_str()))
        })
    }

    /// Variables that would be overrides if they were written right, and what is wrong with them. `keys` are the full names
    /// of the settings. To leave such a variable out silently is to run with another setting than the operator believes.
    pub(super) fn mistaken_overrides<'a>(&'a self, keys: &BTreeSet<String>) -> Vec<(&'a str, String)> {
        let unreadable = self.unreadable.iter().filter(|name| is_override(name));
        let mut mistakes: Vec<_> =
            unreadable.map(|name| (name.as_str(), "is not UTF-8".to_owned())).collect();
        for key in keys {
            let right = key
                .split('.')
                .map(|part| if part == "*" { "<NAME>".to_owned() } else { environment_form(part) });
            let right = right.collect::<Vec<_>>().join("__");
            let names = self.variables.keys().chain(&self.unreadable);
            let found = names.filter(|name| !is_override(name) && means(name, key));
            mistakes.extend(
                found.map(|name| (name.as_str(), format!("is not read; {key} is set by {PREFIX}{right}"))),
            );
        }
        mistakes
    }
}

/// Whether a variable names a setting with one underscore for each dot. `*` in a key is any name of the operator's own.
fn means(name: &str, key: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let Some(name) = name.strip_prefix(PREFIX) else { return false };
    match key.split_once('*') {
        None => name == environment_form(key),
        Some((before, after)) => name
            .strip_prefix(&environment_form(before))
            .and_then(|rest| rest.strip_suffix(&environment_form(after)))
            .is_some_and(|own| !own.is_empty()),
    }
}

fn is_override(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|key| key.contains("__"))
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self { variables: variables.into_iter().collect(), unreadable: BTreeSet::new() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys().chain(&self.unreadable)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_that_is_not_utf_8_is_a_mistake() {
        let unreadable = ["TOKEN_BROKER_STORAGE__PATH", "TOKEN_BROKER_SERVICE_HOST", "PATH"];
        let environment =
            Environment { unreadable: unreadable.map(str::to_owned).into(), ..Environment::default() };
        let mistakes = environment.mistaken_overrides(&BTreeSet::from(["storage.path".to_owned()]));
        assert_eq!(mistakes, [("TOKEN_BROKER_STORAGE__PATH", "is not UTF-8".to_owned())]);
        assert!(format!("{environment:?}").contains("TOKEN_BROKER_STORAGE__PATH"));
    }
}
