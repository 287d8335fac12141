//! `[providers.<id>]`: what users can connect to.

use std::collections::BTreeMap;

use super::reader::Section;
use crate::domain::key::ProviderId;
use crate::domain::secret::SecretString;

/// A registration of the broker at a provider. See `default.toml`.
#[derive(Debug, Clone)]
pub struct ProviderEntry {
    /// In calls and in the redirect URI.
    pub id: ProviderId,
    /// The catalogue's entry.
    pub definition: String,
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`; `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// What the definition asks for beside them.
    pub variables: BTreeMap<String, String>,
}

pub(super) fn read(section: &Section<'_>) -> Option<Vec<ProviderEntry>> {
    let entries: Vec<_> =
        section.named_sections().into_iter().map(|(id, section)| read_entry(&id, &section)).collect();
    section.finish();
    entries.into_iter().collect()
}

fn read_entry(name: &str, section: &Section<'_>) -> Option<ProviderEntry> {
    let id = ProviderId::new(name).map_err(|e| section.problem(format!("the name of a provider {e}"))).ok();
    let definition = section.optional("definition");
    let definition = if definition.is_set() { definition.text() } else { Some(name.to_owned()) };
    let client_id = sourced(section, "client_id");
    if matches!(client_id, Sourced::Absent) {
        section.problem("needs one of client_id, client_id_file and client_id_env");
    }
    let client_secret = sourced(section, "client_secret");
    let variables = section.section("variables");
    let values = variables.texts().into_iter().collect();
    variables.finish();
    section.finish();
    Some(ProviderEntry {
        id: id?,
        definition: definition?,
        client_id: client_id.value()?,
        client_secret: match client_secret {
            Sourced::Absent => None,
            other => Some(SecretString::new(other.value()?)),
        },
        variables: values,
    })
}

enum Sourced {
    Value(String),
    Absent,
    Mistaken,
}

impl Sourced {
    fn value(self) -> Option<String> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Mistaken => None,
        }
    }
}

/// A value that is given as such, in a file (`…_file`) or in a variable (`…_env`).
fn sourced(section: &Section<'_>, name: &str) -> Sourced {
    let literal = section.optional(name);
    let file = section.optional(&format!("{name}_file"));
    let variable = section.optional(&format!("{name}_env"));
    let value = match (literal.is_set(), file.is_set(), variable.is_set()) {
        (false, false, false) => return Sourced::Absent,
        (true, false, false) => literal.text(),
        (false, true, false) => file.file_content(),
        (false, false, true) => variable.variable(),
        _ => {
            section.problem(format!("has more than one of {name}, {name}_file and {name}_env"));
            None
        }
    };
    value.map_or(Sourced::Mistaken, Sourced::Value)
}
