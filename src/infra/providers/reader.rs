//! Typed reads from a TOML document that collect mistakes, with the place of each, instead of stopping at the first.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::DefinitionError;

/// The mistakes of one file.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    errors: Vec<DefinitionError>,
}

impl<'a> Report<'a> {
    /// For a file and its text.
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, errors: Vec::new() }
    }

    /// A mistake at a place.
    pub(super) fn add(&mut self, span: &Range<usize>, path: &str, message: impl Into<String>) {
        let (line, column) = position(self.text, span.start);
        self.errors.push(DefinitionError {
            file: self.file.to_owned(),
            line,
            column,
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// A mistake in a value.
    pub(super) fn at<T>(&mut self, value: &At<T>, message: impl Into<String>) {
        self.add(&value.span, &value.path, message);
    }

    /// Makes something of a value; a failure is a mistake.
    pub(super) fn make<T, U, E: fmt::Display>(
        &mut self,
        value: &At<T>,
        make: impl FnOnce(&T) -> Result<U, E>,
    ) -> Option<U> {
        make(&value.value).map_err(|error| self.at(value, error.to_string())).ok()
    }

    /// Line and column, from 1, of a byte offset.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        position(self.text, offset)
    }

    /// Whether there are none so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// All of them, in the order of the file.
    pub(super) fn into_errors(mut self) -> Vec<DefinitionError> {
        self.errors.sort();
        self.errors
    }
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

/// A table that is being read. Every field that was asked for is known; [`Section::finish`] reports the others.
pub(super) struct Section<'a, 'i> {
    /// `None`: the file has no such table; all fields are absent.
    table: Option<&'a DeTable<'i>>,
    span: Range<usize>,
    path: String,
    known: BTreeSet<&'static str>,
    /// The file has something else in its place, which is reported: that all fields are missing is no news.
    replaced: bool,
}

impl<'a, 'i> Section<'a, 'i> {
    /// The whole document.
    pub(super) fn root(table: &'a DeTable<'i>) -> Self {
        Self { table: Some(table), span: 0..0, path: String::new(), known: BTreeSet::new(), replaced: false }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{}", self.path, quoted(key)) }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.insert(key);
        self.table?.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value)
    }

    /// Whether the file has this table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the table has this field.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the field is a list without items.
    pub(super) fn is_empty_list(&mut self, key: &'static str) -> bool {
        matches!(self.get(key).map(Spanned::get_ref), Some(DeValue::Array(items)) if items.is_empty())
    }

    /// A mistake of this table as a whole.
    pub(super) fn report(&self, report: &mut Report<'_>, message: impl Into<String>) {
        report.add(&self.span, &self.path, message);
    }

    /// A mistake: this field has to be there.
    pub(super) fn missing(&self, report: &mut Report<'_>, key: &str, hint: &str) {
        if !self.replaced {
            report.add(&self.span, &self.path_of(key), format!("missing: {hint}"));
        }
    }

    /// A string; empty ones and control characters are mistakes.
    pub(super) fn text(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        text_of(report, value, self.path_of(key))
    }

    /// A string that has to be there.
    pub(super) fn required_text(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
        hint: &str,
    ) -> Option<At<String>> {
        if !self.has(key) {
            self.missing(report, key, hint);
        }
        self.text(report, key)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        wrong_type(report, value, &self.path_of(key), "true or false");
        None
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<At<T>> {
        let text = self.text(report, key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At { value: *value, span: text.span, path: text.path });
        }
        let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        report.at(&text, format!("must be one of {}", all.join(", ")));
        None
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, report: &mut Report<'_>, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        texts_of(report, value, &self.path_of(key), "a list of strings")
    }

    /// A string or a list of strings.
    pub(super) fn text_or_texts(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        if value.get_ref().is_str() {
            return text_of(report, value, self.path_of(key)).map(|text| vec![text]);
        }
        texts_of(report, value, &self.path_of(key), "a string or a list of strings")
    }

    /// A table of strings.
    pub(super) fn text_map(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Vec<(At<String>, At<String>)> {
        self.entries(report, key)
            .into_iter()
            .filter_map(|(name, value)| {
                let path = name.path.clone();
                Some((name, text_of(report, value, path)?))
            })
            .collect()
    }

    /// A table of lists of strings.
    pub(super) fn texts_map(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Vec<(At<String>, Vec<At<String>>)> {
        self.entries(report, key)
            .into_iter()
            .filter_map(|(name, value)| {
                let texts = texts_of(report, value, &name.path, "a list of strings")?;
                Some((name, texts))
            })
            .collect()
    }

    /// A table whose names the file chooses.
    fn entries(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Vec<(At<String>, &'a Spanned<DeValue<'i>>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let path = self.path_of(key);
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(report, value, &path, "a table");
            return Vec::new();
        };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(name, value)| {
                let path = format!("{path}.{}", quoted(name.get_ref()));
                (At { value: name.get_ref().to_string(), span: name.span(), path }, value)
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.span.start);
        entries
    }

    /// A table; if the file has none, one without fields.
    pub(super) fn section(&mut self, report: &mut Report<'_>, key: &'static str) -> Section<'a, 'i> {
        let path = self.path_of(key);
        let value = self.get(key);
        let section = value.and_then(|value| section_of(report, value, path.clone()));
        section.unwrap_or_else(|| Section {
            table: None,
            span: self.span.clone(),
            path,
            known: BTreeSet::new(),
            replaced: value.is_some() || self.replaced,
        })
    }

    /// A table of tables whose names the file chooses.
    pub(super) fn sections(
        &mut self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Vec<(At<String>, Section<'a, 'i>)> {
        self.entries(report, key)
            .into_iter()
            .filter_map(|(name, value)| {
                let section = section_of(report, value, name.path.clone())?;
                Some((name, section))
            })
            .collect()
    }

    /// Reports fields that nobody asked for.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            if self.known.contains(key.get_ref().as_ref()) {
                continue;
            }
            let message = match key.get_ref().as_ref() {
                "response_type" | "grant" | "grant_type" | "flow" => {
                    "only the authorization code grant is used; implicit and password grants are refused \
                     (RFC 9700 sections 2.1.2 and 2.4)"
                        .to_owned()
                }
                _ => format!(
                    "unknown field; known here: {}",
                    self.known.iter().copied().collect::<Vec<_>>().join(", ")
                ),
            };
            report.add(&key.span(), &self.path_of(key.get_ref()), message);
        }
    }
}

/// A key as one would have to write it in a dotted path.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

fn wrong_type(report: &mut Report<'_>, value: &Spanned<DeValue<'_>>, path: &str, expected: &str) {
    let found = value.get_ref().type_str();
    report.add(&value.span(), path, format!("must be {expected}, not of type {found}"));
}

fn text_of(report: &mut Report<'_>, value: &Spanned<DeValue<'_>>, path: String) -> Option<At<String>> {
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(report, value, &path, "a string");
        return None;
    };
    if text.is_empty() {
        report.add(&value.span(), &path, "must not be empty");
        return None;
    }
    if text.chars().any(char::is_control) {
        report.add(&value.span(), &path, "must not contain control characters");
        return None;
    }
    Some(At { value: text.to_owned(), span: value.span(), path })
}

fn texts_of(
    report: &mut Report<'_>,
    value: &Spanned<DeValue<'_>>,
    path: &str,
    expected: &str,
) -> Option<Vec<At<String>>> {
    let DeValue::Array(items) = value.get_ref() else {
        wrong_type(report, value, path, expected);
        return None;
    };
    Some(
        items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| text_of(report, item, format!("{path}[{index}]")))
            .collect(),
    )
}

fn section_of<'a, 'i>(
    report: &mut Report<'_>,
    value: &'a Spanned<DeValue<'i>>,
    path: String,
) -> Option<Section<'a, 'i>> {
    let DeValue::Table(table) = value.get_ref() else {
        wrong_type(report, value, &path, "a table");
        return None;
    };
    Some(Section { table: Some(table), span: value.span(), path, known: BTreeSet::new(), replaced: false })
}
