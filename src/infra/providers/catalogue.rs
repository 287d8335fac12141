//! All definitions: the built-in ones and the operator's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::definition::{Definition, Source};
use super::error::{DefinitionError, RegistrationError};
use super::parse;
use super::registration::{self, ConfiguredProviders, Registration};

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("catalogue/", $name, ".toml")))),+]
    };
}

/// Name and text of each embedded definition; the name is its id.
const BUILT_IN: &[(&str, &str)] = built_in![
    "airtable",
    "asana",
    "atlassian",
    "discord",
    "dropbox",
    "github",
    "github-app",
    "gitlab",
    "google",
    "hubspot",
    "linear",
    "microsoft",
    "notion",
    "oidc",
    "reddit",
    "salesforce",
    "slack",
    "spotify",
    "todoist",
    "x",
    "zoom",
];

/// The definitions that registrations choose from.
#[derive(Debug)]
pub struct Catalogue {
    definitions: BTreeMap<String, Definition>,
}

impl Catalogue {
    /// The built-in definitions and those of the operator's files, one each; a file's definition takes the place of a
    /// built-in one with the same id. Reports all mistakes of all files.
    pub fn load(files: &[PathBuf]) -> Result<Self, Vec<DefinitionError>> {
        let mut errors = Vec::new();
        let mut definitions = BTreeMap::new();
        for (name, text) in BUILT_IN {
            match parse::definition(&format!("built-in:{name}.toml"), text, Source::BuiltIn) {
                Ok(parsed) => {
                    definitions.insert(parsed.definition.id.as_str().to_owned(), parsed.definition);
                }
                Err(found) => errors.extend(found),
            }
        }
        let mut first_file: BTreeMap<String, &Path> = BTreeMap::new();
        for path in files {
            match read(path) {
                Ok(parsed) => {
                    let id = parsed.definition.id.as_str().to_owned();
                    if let Some(first) = first_file.insert(id.clone(), path) {
                        let (line, column) = parsed.id_position;
                        errors.push(DefinitionError {
                            file: path.display().to_string(),
                            line,
                            column,
                            path: "id".to_owned(),
                            message: format!("{id:?} is defined by {} already", first.display()),
                        });
                    }
                    definitions.insert(id, parsed.definition);
                }
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(Self { definitions }) } else { Err(errors) }
    }

    /// All, sorted by id.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values()
    }

    /// One by id.
    #[must_use]
    pub fn definition(&self, id: &str) -> Option<&Definition> {
        self.definitions.get(id)
    }

    /// Makes providers of definitions and clients. Two registrations may share a definition. Reports all mistakes of all
    /// registrations.
    pub fn configure(
        &self,
        registrations: Vec<Registration>,
    ) -> Result<ConfiguredProviders, Vec<RegistrationError>> {
        registration::configure(self, registrations)
    }
}

/// The largest definition file, in bytes: a hundred times the longest of the catalogue.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

fn read(path: &Path) -> Result<parse::Parsed, Vec<DefinitionError>> {
    let file = path.display().to_string();
    let whole = |message: String| {
        vec![DefinitionError { file: file.clone(), line: 1, column: 1, path: String::new(), message }]
    };
    let size = std::fs::metadata(path).map_err(|error| whole(format!("can't be read: {error}")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(whole(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("can't be read: {error}")))?;
    parse::definition(&file, &text, Source::File(path.to_owned()))
}
