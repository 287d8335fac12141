//! `[vault]`: the key-encryption keys, and how data keys are looked after. No key, no start.

use std::time::Duration;

use super::reader::Section;
use super::values::key_bytes;
use super::vault_services::{AwsKms, GcpKms, Transit, read_aws_kms, read_gcp_kms, read_transit};
use crate::domain::secret::SecretBytes;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Vault {
    /// The id of the key that wraps new data keys; one of `keys`.
    pub active_key: String,
    /// All keys, sorted by id.
    pub keys: Vec<VaultKey>,
    /// How many rows a second are looked at while they are moved to other data keys.
    pub reencrypt_rows_per_second: u32,
    /// How long a superseded data key is kept at least.
    pub retire_after: Duration,
}

/// A key-encryption key.
#[derive(Debug, Clone)]
pub struct VaultKey {
    /// 1 to 32 of a-z, 0-9, `-` and `_`.
    pub id: String,
    /// The key, or where it is.
    pub kind: VaultKeyKind,
}

/// The key, or where it is.
#[derive(Debug, Clone)]
pub enum VaultKeyKind {
    /// From a file or a variable; 32 bytes.
    Bytes(SecretBytes),
    /// At AWS KMS.
    AwsKms(Box<AwsKms>),
    /// At Google Cloud KMS.
    GcpKms(Box<GcpKms>),
    /// In a transit engine of Vault or `OpenBao`.
    Transit(Box<Transit>),
}

/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 32;
/// A permit store keeps successors for a day; an hour more for clocks and for what was under way.
const MIN_RETIRE_AFTER: Duration = Duration::from_hours(25);
const MAX_RETIRE_AFTER: Duration = Duration::from_hours(24 * 365);

pub(super) fn read(section: &Section<'_>) -> Option<Vault> {
    let active = section.required("active_key");
    let active_key = active.text();
    let reencrypt_rows_per_second = section.required("reencrypt_rows_per_second").integer(1..=100_000);
    let retire_after = section.required("retire_after").duration(MIN_RETIRE_AFTER..=MAX_RETIRE_AFTER);
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
    Some(Vault {
        active_key,
        keys: keys.into_iter().collect::<Option<_>>()?,
        reencrypt_rows_per_second: reencrypt_rows_per_second?,
        retire_after: retire_after?,
    })
}

fn read_key(id: String, section: &Section<'_>) -> Option<VaultKey> {
    let id_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(id_byte) {
        section.problem("the name of a key must be 1 to 32 of a-z, 0-9, '-' and '_'");
    }
    let (file, variable) = (section.optional("file"), section.optional("env"));
    let aws = section.optional("aws_kms");
    let gcp = section.optional("gcp_kms");
    let transit = section.optional("transit");
    // Every key is asked for, so that one of another kind is known, and said to be out of place.
    let aws_key = read_aws_kms(section, &aws);
    let gcp_key = read_gcp_kms(section, &gcp);
    let transit_key = read_transit(section, &transit);
    let kinds = [&file, &variable, &aws, &gcp, &transit];
    let kind = match kinds.map(super::reader::Key::is_set) {
        [true, false, false, false, false] => bytes(&file, file.file_content()),
        [false, true, false, false, false] => bytes(&variable, variable.variable()),
        [false, false, true, false, false] => aws_key.map(|key| VaultKeyKind::AwsKms(Box::new(key))),
        [false, false, false, true, false] => gcp_key.map(|key| VaultKeyKind::GcpKms(Box::new(key))),
        [false, false, false, false, true] => transit_key.map(|key| VaultKeyKind::Transit(Box::new(key))),
        _ => {
            section.problem("needs exactly one of file, env, aws_kms, gcp_kms and transit");
            None
        }
    };
    section.finish();
    Some(VaultKey { id, kind: kind? })
}

fn bytes(source: &super::reader::Key<'_>, text: Option<String>) -> Option<VaultKeyKind> {
    let text = text?;
    let bytes = key_bytes(&text);
    // The text itself must not stay in memory.
    drop(zeroize::Zeroizing::new(text));
    bytes.map_err(|message| source.problem(message)).ok().map(VaultKeyKind::Bytes)
}
