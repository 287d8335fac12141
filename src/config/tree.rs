//! The configuration as merged from its sources, before anything is known of its keys: values with their origins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The embedded file.
    Default,
    /// The operator's file.
    File {
        /// As it was given.
        path: Arc<Path>,
        /// From 1.
        line: usize,
    },
    /// A variable.
    Environment {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { name } => f.write_str(name),
        }
    }
}

/// A value with its origin. No `Debug`: it may be a secret.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A table.
pub(super) type Table = BTreeMap<String, Node>;

/// What TOML knows, as far as the configuration uses it.
pub(super) enum Value {
    Text(String),
    /// From the environment: its type is what the key expects.
    Untyped(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// A float or a date, which no key takes.
    Other,
}

/// Where a text comes from, to make origins.
pub(super) enum Source<'a> {
    Default,
    File(&'a Path),
}

/// Reads a TOML text. Syntax errors come all at once; with any, there is no table.
pub(super) fn parse(text: &str, source: &Source<'_>) -> Result<Table, Vec<Problem>> {
    let lines = Lines { text, path: source.path() };
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(lines.table(document.get_ref()));
    }
    Err(errors
        .iter()
        .map(|error| Problem {
            key: String::new(),
            place: Some(lines.origin(error.span().map_or(0, |span| span.start)).to_string()),
            message: format!("not TOML: {}", error.message()),
        })
        .collect())
}

impl Source<'_> {
    fn path(&self) -> Option<Arc<Path>> {
        match self {
            Self::Default => None,
            Self::File(path) => Some(Arc::from(*path)),
        }
    }
}

struct Lines<'a> {
    text: &'a str,
    path: Option<Arc<Path>>,
}

impl Lines<'_> {
    fn origin(&self, offset: usize) -> Origin {
        match &self.path {
            None => Origin::Default,
            Some(path) => {
                let before = self.text.as_bytes().iter().take(offset);
                Origin::File { path: Arc::clone(path), line: 1 + before.filter(|b| **b == b'\n').count() }
            }
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let node = Node { value: self.value(value.get_ref()), origin: self.origin(key.span().start) };
                (key.get_ref().to_string(), node)
            })
            .collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other, Value::Integer)
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| Node {
                        value: self.value(item.get_ref()),
                        origin: self.origin(item.span().start),
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

/// Lays one table over another: tables are merged, anything else is replaced.
pub(super) fn overlay(base: &mut Table, upper: Table) {
    for (key, node) in upper {
        match (base.get_mut(&key), node) {
            (
                Some(Node { value: Value::Table(below), origin }),
                Node { value: Value::Table(above), origin: upper_origin },
            ) => {
                overlay(below, above);
                *origin = upper_origin;
            }
            (_, node) => {
                base.insert(key, node);
            }
        }
    }
}

/// Sets the value at a path of environment name segments (`GRPC`, `LISTEN`).
pub(super) fn set_from_environment(base: &mut Table, segments: &[&str], name: &str, value: &str) {
    let origin = || Origin::Environment { name: name.to_owned() };
    let Some((first, rest)) = segments.split_first() else { return };
    let existing = base.keys().find(|key| environment_form(key) == *first).cloned();
    let key = existing.unwrap_or_else(|| first.to_ascii_lowercase());
    if rest.is_empty() {
        base.insert(key, Node { value: Value::Untyped(value.to_owned()), origin: origin() });
        return;
    }
    let node =
        base.entry(key).or_insert_with(|| Node { value: Value::Table(Table::new()), origin: origin() });
    if let Value::Table(below) = &mut node.value {
        set_from_environment(below, rest, name, value);
    } else {
        // What was there is no table: leave the mistake to the reader of that key.
        let mut below = Table::new();
        set_from_environment(&mut below, rest, name, value);
        *node = Node { value: Value::Table(below), origin: origin() };
    }
}

/// How a key is written in the name of a variable.
pub(super) fn environment_form(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The directory that relative paths begin at.
pub(super) fn base_directory(file: Option<&Path>) -> PathBuf {
    file.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default()
}
