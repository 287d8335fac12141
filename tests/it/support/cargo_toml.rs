//! The manifest, for tests about dependencies.

use std::collections::BTreeSet;
use std::path::Path;

/// The names in these tables of `Cargo.toml`.
pub(crate) fn names(tables: &[&str]) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    tables
        .iter()
        .filter_map(|table| manifest.get(*table)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}
