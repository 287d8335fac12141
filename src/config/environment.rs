//! The environment as a value, so that tests bring their own.

use std::collections::BTreeMap;
use std::fmt;

/// What every override's name begins with.
pub const PREFIX: &str = "TOKEN_BROKER_";

/// Names and values of variables. Values may be secrets, so `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own. Variables that are not UTF-8 are left out, so that asking for one says that it is not set.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// One variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The overrides: the name's segments, the name, the value.
    ///
    /// Only names with a double underscore are: every key lies in a section, and Kubernetes itself sets variables such
    /// as `TOKEN_BROKER_SERVICE_HOST` for a service that is called token-broker.
    pub(super) fn overrides(&self) -> impl Iterator<Item = (Vec<&str>, &str, &str)> {
        self.0.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?;
            key.contains("__").then(|| (key.split("__").collect(), name.as_str(), value.as_str()))
        })
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
