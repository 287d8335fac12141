//! The effective settings with their origins, for people. Secrets are masked when the list is made, not when it is shown.

use std::fmt::Write as _;

use super::tree::{Node, Origin, Table, Value};

/// What stands for a secret.
const MASK: &str = "[secret]";

/// One setting as it is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The full dotted name.
    pub key: String,
    /// As TOML; a mask for a secret.
    pub value: String,
    /// `default`, `file:line`, or the name of the environment variable.
    pub origin: String,
}

/// All of them, sorted by name.
pub(super) fn settings(table: &Table) -> Vec<Setting> {
    let mut out = Vec::new();
    collect("", table, &mut out);
    out
}

fn collect(section: &str, table: &Table, out: &mut Vec<Setting>) {
    for (key, node) in table {
        let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        if let Value::Table(below) = &node.value {
            collect(&name, below, out);
        } else {
            let value = if key == "client_secret" { format!("\"{MASK}\"") } else { show(&node.value) };
            out.push(Setting { key: name, value, origin: shown_origin(&node.origin) });
        }
    }
}

fn shown_origin(origin: &Origin) -> String {
    origin.to_string()
}

fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => quote(text),
        Value::Untyped(text) => match text.as_str() {
            "true" | "false" => text.clone(),
            number if number.parse::<i64>().is_ok() => text.clone(),
            _ => quote(text),
        },
        Value::Integer(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|Node { value, .. }| show(value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let mut text = String::from("{");
            for (index, (key, node)) in table.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                // Writing to a String cannot fail.
                let _ = write!(text, "{comma} {key} = {}", show(&node.value));
            }
            text + " }"
        }
        Value::Other => "?".to_owned(),
    }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
