//! Every dependency is there for a written reason: `Cargo.toml` and `docs/DEPENDENCIES.md` name the same crates.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::cargo_toml;

/// The crates that a table of the document names: rows that begin with "| `name` |".
fn documented(section: &str) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DEPENDENCIES.md");
    let document = std::fs::read_to_string(file).unwrap();
    let heading = format!("\n## {section}\n");
    let (_, rest) = document.split_once(&heading).unwrap_or_else(|| panic!("no section {section:?}"));
    let body = rest.split_once("\n## ").map_or(rest, |(body, _)| body);
    let names: Vec<String> = body
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, why)| {
            assert!(why.trim_matches(['|', ' ']).len() > 10, "{name} needs a reason");
            name.to_owned()
        })
        .collect();
    assert!(names.is_sorted(), "{section}: keep the rows sorted");
    names.into_iter().collect()
}

#[test]
fn each_dependency_has_its_reason() {
    assert_eq!(cargo_toml::names(&["dependencies"]), documented("In the binary"));
}

#[test]
fn each_dependency_is_used() {
    let source = crate::architecture::sources()
        .into_iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect::<String>();
    let unused: Vec<String> = cargo_toml::names(&["dependencies"])
        .into_iter()
        .filter(|name| !source.contains(&format!("{}::", name.replace('-', "_"))))
        .collect();
    assert_eq!(unused, Vec::<String>::new(), "take these out of Cargo.toml");
}

#[test]
fn each_dependency_of_the_tests_has_its_reason() {
    let in_the_binary = cargo_toml::names(&["dependencies"]);
    let only_in_tests: BTreeSet<String> =
        cargo_toml::names(&["dev-dependencies"]).difference(&in_the_binary).cloned().collect();
    assert_eq!(only_in_tests, documented("Only in the tests"));
}
