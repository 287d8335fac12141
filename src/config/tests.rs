//! The default file and the code know the same keys.

use std::collections::BTreeSet;

use super::problem::Problems;
use super::reader::{Context, Section};
use super::tree::{self, Node, Source, Table, Value};
use super::{DEFAULT_FILE, Environment, read};

/// The default file with its examples switched on: lines that begin with `#` and no space.
fn with_examples() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    DEFAULT_FILE.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A list whose items may be tables, and are one value each: `{ exact = "alice" }`, `{ issuer = "…", subject = "…" }`.
fn is_leaf(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("users" | "scopes" | "subjects"))
}

fn leaves(prefix: &str, table: &Table, out: &mut BTreeSet<String>) {
    for (key, Node { value, .. }) in table {
        let own = matches!(
            prefix,
            "vault.keys"
                | "providers"
                | "callers"
                | "providers.*.variables"
                | "issuers"
                | "spiffe.trust_domains"
        );
        let key = if own { "*" } else { key };
        let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(below) => leaves(&name, below, out),
            Value::List(items)
                if items.iter().any(|item| matches!(item.value, Value::Table(_))) && !is_leaf(&name) =>
            {
                for item in items {
                    if let Value::Table(below) = &item.value {
                        leaves(&name, below, out);
                    }
                }
            }
            _ => {
                out.insert(name);
            }
        }
    }
}

#[test]
fn the_default_file_has_every_key_and_no_other() {
    let table = tree::parse(&with_examples(), &Source::Default).map_err(|p| format!("{p:?}")).unwrap();
    let mut written = BTreeSet::new();
    leaves("", &table, &mut written);

    let problems = Problems::default();
    let environment = Environment::default();
    let context =
        Context { problems: &problems, base: std::path::Path::new("/nowhere"), environment: &environment };
    let _ = read(&Section::root(&context, &table), &context);
    assert_eq!(written, problems.schema());
    let unknown: Vec<String> =
        problems.into_list().iter().map(ToString::to_string).filter(|p| p.contains("is unknown")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn a_key_without_an_example_is_a_default() {
    // What the file sets is in effect without any other file.
    let table = tree::parse(DEFAULT_FILE, &Source::Default).map_err(|p| format!("{p:?}")).unwrap();
    let settings = super::show::settings(&table);
    assert!(settings.iter().all(|s| s.origin == "default"));
    let value = |key: &str| settings.iter().find(|s| s.key == key).map(|s| s.value.as_str());
    assert_eq!(value("grpc.listen"), Some("\"127.0.0.1:50051\""));
    assert_eq!(value("shutdown.drain"), Some("\"45s\""));
}
