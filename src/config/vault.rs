//! `[vault]`: the key-encryption keys. No key, no start.

use super::reader::Section;
use super::values::key_bytes;
use crate::domain::secret::SecretBytes;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Vault {
    /// The id of the key that wraps new data keys; one of `keys`.
    pub active_key: String,
    /// All keys, sorted by id; 32 bytes each.
    pub keys: Vec<VaultKey>,
}

/// A key-encryption key.
#[derive(Debug, Clone)]
pub struct VaultKey {
    /// 1 to 32 of a-z, 0-9, `-` and `_`.
    pub id: String,
    /// 32 bytes.
    pub key: SecretBytes,
}

/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 32;

pub(super) fn read(section: &Section<'_>) -> Option<Vault> {
    let active = section.required("active_key");
    let active_key = active.text();
    let key_tables = section.section("keys");
    let named = key_tables.named_sections();
    if named.is_empty() {
        key_tables.problem(
            "needs at least one key, as [vault.keys.primary] with file = \"…\" (`token-broker init` makes one)",
        );
    }
    let ids: Vec<String> = named.iter().map(|(id, _)| id.clone()).collect();
    let keys: Vec<Option<VaultKey>> = named.into_iter().map(|(id, key)| read_key(id, &key)).collect();
    key_tables.finish();
    section.finish();
    let active_key = active_key?;
    if !ids.is_empty() && !ids.contains(&active_key) {
        active.problem("must be the name of one of vault.keys");
    }
    Some(Vault { active_key, keys: keys.into_iter().collect::<Option<_>>()? })
}

fn read_key(id: String, section: &Section<'_>) -> Option<VaultKey> {
    let id_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(id_byte) {
        section.problem("the name of a key must be 1 to 32 of a-z, 0-9, '-' and '_'");
    }
    let file = section.optional("file");
    let variable = section.optional("env");
    let key = match (file.is_set(), variable.is_set()) {
        (true, false) => file.file_content().map(|text| (text, &file)),
        (false, true) => variable.variable().map(|text| (text, &variable)),
        _ => {
            section.problem("needs exactly one of file and env");
            None
        }
    };
    let key = key.and_then(|(text, source)| {
        let bytes = key_bytes(&text);
        // The text itself must not stay in memory.
        drop(zeroize::Zeroizing::new(text));
        bytes.map_err(|message| source.problem(message)).ok()
    });
    section.finish();
    Some(VaultKey { id, key: key? })
}
