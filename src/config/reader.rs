//! Reads sections of the merged configuration: typed values, every mistake noted with the key's name and place.
//!
//! A section's function asks for all of its keys first and only then puts its struct together, so that one mistake hides
//! no other.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::problem::Problems;
use super::tree::{Node, Origin, Table, Value};
use super::values;

/// What all sections share.
pub(super) struct Context<'a> {
    /// Collects.
    pub(super) problems: &'a Problems,
    /// Relative paths begin here.
    pub(super) base: &'a Path,
    /// For keys that name a variable.
    pub(super) environment: &'a Environment,
}

/// A table of the configuration.
pub(super) struct Section<'a> {
    context: &'a Context<'a>,
    name: String,
    /// The name with `*` for names of the operator's own.
    schema: String,
    table: Option<&'a Table>,
    origin: Option<&'a Origin>,
    /// There is something, and it is no table: that is the mistake, and not every key that it does not have.
    malformed: bool,
    known: RefCell<Vec<String>>,
}

/// One key of a section, with its value if there is one.
pub(super) struct Key<'a> {
    context: &'a Context<'a>,
    name: String,
    node: Option<&'a Node>,
}

/// `"any"` or a list.
pub(super) enum AnyOr<T> {
    Any,
    These(T),
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn root(context: &'a Context<'a>, table: &'a Table) -> Self {
        Self {
            context,
            name: String::new(),
            schema: String::new(),
            table: Some(table),
            origin: None,
            malformed: false,
            known: RefCell::default(),
        }
    }

    /// A key that may be absent.
    pub(super) fn optional(&self, key: &str) -> Key<'a> {
        self.known.borrow_mut().push(key.to_owned());
        self.context.problems.asked_for(join(&self.schema, key));
        Key {
            context: self.context,
            name: join(&self.name, key),
            node: self.table.and_then(|table| table.get(key)),
        }
    }

    /// A key that must be there.
    pub(super) fn required(&self, key: &str) -> Key<'a> {
        let found = self.optional(key);
        if found.node.is_none() && !self.malformed {
            self.context.problems.add(
                &found.name,
                self.origin.filter(|o| **o != Origin::Default),
                "is required",
            );
        }
        found
    }

    /// A section in this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        self.known.borrow_mut().push(key.to_owned());
        self.child(key, &join(&self.schema, key))
    }

    /// The sections in this one whose names are the operator's own, sorted by name.
    pub(super) fn named_sections(&self) -> Vec<(String, Section<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        self.known.borrow_mut().extend(table.keys().cloned());
        table.keys().map(|key| (key.clone(), self.child(key, &join(&self.schema, "*")))).collect()
    }

    /// Reads each of [`Section::named_sections`], also behind one with mistakes, and finishes this one.
    pub(super) fn entries<T>(&self, mut read: impl FnMut(&str, &Section<'a>) -> Option<T>) -> Option<Vec<T>> {
        let entries: Vec<_> =
            self.named_sections().into_iter().map(|(name, section)| read(&name, &section)).collect();
        self.finish();
        entries.into_iter().collect()
    }

    /// The tables of a list: each `[[section.key]]` of the file.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        self.known.borrow_mut().push(key.to_owned());
        let (name, schema) = (join(&self.name, key), join(&self.schema, key));
        match self.table.and_then(|table| table.get(key)) {
            None => Vec::new(),
            Some(Node { value: Value::List(nodes), .. }) => {
                let tables = nodes.iter().enumerate();
                tables.map(|(n, node)| self.of(Some(node), format!("{name}[{n}]"), &schema)).collect()
            }
            Some(node) => {
                let message = format!("must be a list of tables: [[{name}]]");
                self.context.problems.add(&name, Some(&node.origin), message);
                Vec::new()
            }
        }
    }

    fn child(&self, key: &str, schema: &str) -> Section<'a> {
        let node = self.table.and_then(|table| table.get(key));
        self.of(node, join(&self.name, key), schema)
    }

    fn of(&self, node: Option<&'a Node>, name: String, schema: &str) -> Section<'a> {
        let (table, malformed) = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => (Some(table), false),
            Some(_) => {
                self.context.problems.add(&name, node.map(|node| &node.origin), "must be a table");
                (None, true)
            }
            None => (None, self.malformed),
        };
        Section {
            context: self.context,
            name,
            schema: schema.to_owned(),
            table,
            origin: node.map(|node| &node.origin),
            malformed,
            known: RefCell::default(),
        }
    }

    /// Texts under names of the operator's own.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let Some(table) = self.table else { return Vec::new() };
        self.context.problems.asked_for(join(&self.schema, "*"));
        self.known.borrow_mut().extend(table.keys().cloned());
        let key = |name: &String, node| Key { context: self.context, name: join(&self.name, name), node };
        table.iter().filter_map(|(k, node)| Some((k.clone(), key(k, Some(node)).text()?))).collect()
    }

    /// The process's environment, for variables whose names others have given.
    pub(super) fn environment(&self) -> &'a Environment {
        self.context.environment
    }

    /// Notes a mistake of the section itself.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.context.problems.add(&self.name, self.origin.filter(|o| **o != Origin::Default), message);
    }

    /// Notes the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, node) in self.table.into_iter().flatten() {
            if !known.contains(key) {
                let what = if self.name.is_empty() { "sections" } else { "keys here" };
                let message = format!("is unknown; the {what} are: {}", known.join(", "));
                self.context.problems.add(&join(&self.name, key), Some(&node.origin), message);
            }
        }
    }
}

impl Key<'_> {
    /// Whether there is a value.
    pub(super) fn is_set(&self) -> bool {
        self.node.is_some()
    }

    /// Whether the value is not a default.
    pub(super) fn is_the_operators(&self) -> bool {
        self.node.is_some_and(|node| node.origin != Origin::Default)
    }

    /// Notes a mistake.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.context.problems.add(&self.name, self.node.map(|node| &node.origin), message);
    }

    fn read<T>(&self, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = read(&self.node?.value);
        if value.is_none() {
            self.problem(format!("must be {expected}"));
        }
        value
    }

    /// A text; never empty.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.read("a text in quotes", |value| match value {
            Value::Text(text) | Value::Untyped(text) => Some(text.clone()),
            _ => None,
        })?;
        if text.is_empty() {
            self.problem("must not be empty");
            return None;
        }
        Some(text)
    }

    /// A text that is something; `parse` says what is wrong with it.
    pub(super) fn parsed<T, E: ToString>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parse(&self.text()?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(error.to_string());
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.read("true or false", |value| match value {
            Value::Boolean(value) => Some(*value),
            Value::Untyped(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// A whole number of the range.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(&expected, |value| {
            let number = match value {
                Value::Integer(number) => u32::try_from(*number).ok()?,
                Value::Untyped(text) => text.parse().ok()?,
                _ => return None,
            };
            range.contains(&number).then_some(number)
        })
    }

    /// A duration of the range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let [low, high] = [range.start(), range.end()].map(|limit| values::show_duration(*limit));
        let expected = format!("a duration from {low} to {high}, as \"500ms\", \"30s\" or \"10m\"");
        self.read(&expected, |value| match value {
            Value::Text(text) | Value::Untyped(text) => {
                values::duration(text).filter(|duration| range.contains(duration))
            }
            _ => None,
        })
    }

    /// An IP address and port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.parsed(|text| text.parse().map_err(|_| "must be an IP address and port, as \"127.0.0.1:8080\""))
    }

    /// A path; relative ones begin at the configuration file's directory.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.context.base.join(self.text()?))
    }

    /// The content of the file that the key names, without white space around it.
    pub(super) fn file_content(&self) -> Option<String> {
        let path = self.path()?;
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.problem("the file that it names is empty");
                None
            }
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                self.problem(format!("the file that it names cannot be read: {error}"));
                None
            }
        }
    }

    /// The value of the variable that the key names.
    pub(super) fn variable(&self) -> Option<String> {
        let name = self.text()?;
        let value = self.context.environment.get(&name).map(str::trim).filter(|value| !value.is_empty());
        if value.is_none() {
            self.problem("the environment variable that it names is not set");
        }
        value.map(str::to_owned)
    }

    /// A list of texts, each parsed on its own.
    pub(super) fn list<T, E: ToString>(&self, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        self.items("a list", |item| item.parsed(&parse))
    }

    /// `"any"` or a list whose items `item` reads.
    pub(super) fn any_or<T>(&self, item: impl Fn(&Key<'_>) -> Option<T>) -> Option<AnyOr<Vec<T>>> {
        if self.is_text("any") {
            return Some(AnyOr::Any);
        }
        self.items("\"any\" or a list", item).map(AnyOr::These)
    }

    fn items<T>(&self, expected: &str, item: impl Fn(&Key<'_>) -> Option<T>) -> Option<Vec<T>> {
        let name = |index: usize| format!("{}[{index}]", self.name);
        let read = |(index, node): (usize, &Node)| {
            item(&Key { context: self.context, name: name(index), node: Some(node) })
        };
        match &self.node?.value {
            Value::List(nodes) => nodes.iter().enumerate().map(read).collect(),
            Value::Untyped(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .enumerate()
                .map(|(index, part)| {
                    let origin = self.node?.origin.clone();
                    read((index, &Node { value: Value::Untyped(part.to_owned()), origin }))
                })
                .collect::<Vec<_>>()
                .into_iter()
                .collect(),
            _ => {
                self.problem(format!("must be {expected}"));
                None
            }
        }
    }

    /// A table with exactly these keys: `{ issuer = "…", subject = "…" }`.
    pub(super) fn fields<const N: usize>(&self, names: [&str; N]) -> Option<[Key<'_>; N]> {
        let all = match &self.node?.value {
            Value::Table(table) if table.len() == N => Some(names.map(|name| (name, table.get(name)))),
            _ => None,
        };
        let all = all.filter(|all| all.iter().all(|(_, node)| node.is_some()));
        if all.is_none() {
            self.problem(format!("must be a table with the keys {}", names.join(" and ")));
        }
        Some(all?.map(|(name, node)| Key { context: self.context, name: join(&self.name, name), node }))
    }

    /// Whether it is this text.
    pub(super) fn is_text(&self, expected: &str) -> bool {
        matches!(self.node, Some(Node { value: Value::Text(text) | Value::Untyped(text), .. }) if text == expected)
    }

    /// A table with exactly one of these keys, and that key's text: `{ exact = "alice" }`. A value from the environment
    /// is the first kind's.
    pub(super) fn one_of<'k>(&self, kinds: &[&'k str]) -> Option<(&'k str, Key<'_>)> {
        match &self.node?.value {
            Value::Untyped(_) => Some((
                kinds.first()?,
                Key { context: self.context, name: self.name.clone(), node: self.node },
            )),
            Value::Table(table) if table.len() == 1 => {
                let (key, node) = table.first_key_value()?;
                let kind = kinds.iter().find(|kind| **kind == key);
                if kind.is_none() {
                    self.problem(format!("must have one of the keys: {}", kinds.join(", ")));
                }
                Some((kind?, Key { context: self.context, name: join(&self.name, key), node: Some(node) }))
            }
            _ => {
                self.problem(format!("must be a table with one of the keys: {}", kinds.join(", ")));
                None
            }
        }
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}
