//! `[providers.<id>]`: what users can connect to.

use std::collections::BTreeMap;

use super::reader::{Key, Section};
use super::secret::secret;
use crate::domain::key::ProviderId;
use crate::domain::provider::{AssertionAlgorithm, ClientAuth, ClientCertificate};
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
    /// How the client authenticates, if not by the best that there is.
    pub client_auth: Option<ClientAuth>,
    /// A key that signs assertions.
    pub private_key: Option<PrivateKeyEntry>,
    /// A certificate for TLS.
    pub certificate: Option<ClientCertificate>,
}

/// A key that signs assertions.
#[derive(Debug, Clone)]
pub struct PrivateKeyEntry {
    /// PKCS#8 in PEM.
    pub pem: SecretString,
    /// `kid`.
    pub id: Option<String>,
    /// `None`: what fits the key.
    pub algorithm: Option<AssertionAlgorithm>,
}

pub(super) fn read(section: &Section<'_>) -> Option<Vec<ProviderEntry>> {
    section.entries(read_entry)
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
    let client_auth = optional(&section.optional("client_auth"), ClientAuth::parse);
    let private_key = private_key(section);
    let certificate = certificate(section);
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
        client_auth: client_auth?,
        private_key: private_key?,
        certificate: certificate?,
    })
}

/// `None`: a mistake.
#[expect(
    clippy::option_option,
    reason = "outer: whether it could be read, as everywhere here; inner: whether it is set"
)]
fn optional<T>(key: &Key<'_>, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<Option<T>> {
    if key.is_set() { key.parsed(parse).map(Some) } else { Some(None) }
}

#[expect(clippy::option_option, reason = "as above")]
fn private_key(section: &Section<'_>) -> Option<Option<PrivateKeyEntry>> {
    let pem = secret(&section.optional("private_key_file"), &section.optional("private_key_env"));
    let id_key = section.optional("private_key_id");
    let algorithm_key = section.optional("private_key_algorithm");
    let id = optional(&id_key, |text| Ok(text.to_owned()));
    let algorithm = optional(&algorithm_key, AssertionAlgorithm::parse);
    let Some(pem) = pem? else {
        for key in [id_key, algorithm_key].iter().filter(|key| key.is_set()) {
            key.problem("needs private_key_file or private_key_env");
        }
        return Some(None);
    };
    Some(Some(PrivateKeyEntry { pem, id: id?, algorithm: algorithm? }))
}

#[expect(clippy::option_option, reason = "as above")]
fn certificate(section: &Section<'_>) -> Option<Option<ClientCertificate>> {
    let (certificate, key) = (section.optional("tls_certificate_file"), section.optional("tls_key_file"));
    match (certificate.is_set(), key.is_set()) {
        (false, false) => Some(None),
        (true, true) => {
            let (chain, key) = (certificate.file_content(), key.file_content());
            Some(Some(ClientCertificate { chain: chain?, key: SecretString::new(key?) }))
        }
        (true, false) => {
            certificate.problem("needs tls_key_file beside it");
            None
        }
        (false, true) => {
            key.problem("needs tls_certificate_file beside it");
            None
        }
    }
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
