//! The two formats, as pure functions of keys, randomness and bytes.
//!
//! A record:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | format version: [`USERS_VERSION`] for what is a user's, [`RECORD_VERSION`] for the rest |
//! | 16 | id of the data key |
//! | 16 | id of the user's key; only in [`USERS_VERSION`] |
//! | 16 | salt, random |
//! | 12 | nonce, random |
//! | rest | AES-256-GCM ciphertext and 16-byte tag |
//!
//! The record's key is HKDF-SHA-256 (RFC 5869) of the data key with the salt. Each record thus has a key of its own, and
//! two records would need the same 28 random bytes to share key and nonce: the limit of 2^32 random nonces under one key
//! (NIST SP 800-38D section 8.3) is out of reach. The additional data is the header, the credential's key, the grant
//! and the field, each length-prefixed, so that a ciphertext opens in its own place only.
//!
//! What is a user's is derived from the data key followed by the user's key, in the place of key material and not of the
//! salt: HKDF's salt need not be secret (RFC 5869 section 3.1), while its key material may be two secrets in a row, of which
//! one that stays unknown is enough (NIST SP 800-56C revision 2, section 2). Both are 32 bytes, so that no other two give
//! the same material. Versions have labels of their own in the derivation. Before users had keys, what is theirs was written
//! as [`RECORD_VERSION`], and still opens.
//!
//! A wrapped data key: version, 12-byte nonce, ciphertext and tag, under the key-encryption key itself; the additional
//! data is its id, tenant, purpose and the id of the key-encryption key. A key-encryption key wraps a few keys per
//! tenant, so random nonces are safe without derivation. What a key service wraps is in the service's own format, behind
//! the byte [`SERVICE_WRAP_VERSION`].
//!
//! `tests/it/crypto_format.rs` pins both formats to golden bytes.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::kek::KeyBinding;
use crate::domain::cipher::{Binding, Field};
use crate::domain::data_key::DataKeyPurpose;
use crate::domain::key::append_length_prefixed;
use crate::domain::ports::Entropy;
use crate::domain::secret::SecretBytes;
use crate::domain::user_key::UserKeyId;

/// A record under a data key alone.
pub(super) const RECORD_VERSION: u8 = 1;
/// A record under a data key and a user's key.
pub(super) const USERS_VERSION: u8 = 2;
/// The data key format that is written.
const WRAP_VERSION: u8 = 1;
/// In front of what a key service made.
pub(super) const SERVICE_WRAP_VERSION: u8 = 2;

const KEY_ID_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Without the id of the user's key.
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES + NONCE_BYTES;

const RECORD_KEY_INFO: &[u8] = b"token-broker record key v1";
const USERS_KEY_INFO: &[u8] = b"token-broker record key v2";
const RECORD_LABEL: &[u8] = b"token-broker record";
const WRAP_LABEL: &[u8] = b"token-broker data key";

/// A 256-bit key, wiped on drop.
pub type Key = Zeroizing<[u8; 32]>;

/// It does not open: too short, another version, damaged, or bound to another place. Deliberately says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DoesNotOpen;

/// A record taken apart.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    header: &'a [u8],
    /// The data key that it was made with.
    pub(crate) key_id: [u8; KEY_ID_BYTES],
    /// The user's key that it was made with, if it is in the format of those.
    pub(crate) user_key: Option<UserKeyId>,
    salt: &'a [u8],
    nonce: [u8; NONCE_BYTES],
    body: &'a [u8],
    tag: [u8; TAG_BYTES],
}

impl<'a> Record<'a> {
    /// Takes a record apart; checks every length first.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DoesNotOpen> {
        let header_bytes = match bytes.first() {
            Some(&RECORD_VERSION) => HEADER_BYTES,
            Some(&USERS_VERSION) => HEADER_BYTES + KEY_ID_BYTES,
            _ => return Err(DoesNotOpen),
        };
        let (header, rest) = bytes.split_at_checked(header_bytes).ok_or(DoesNotOpen)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(DoesNotOpen)?;
        let (_, fields) = header.split_first().ok_or(DoesNotOpen)?;
        let (key_id, fields) = fields.split_first_chunk::<KEY_ID_BYTES>().ok_or(DoesNotOpen)?;
        let (fields, nonce) = fields.split_last_chunk::<NONCE_BYTES>().ok_or(DoesNotOpen)?;
        let (user_key, salt) = fields.split_last_chunk::<SALT_BYTES>().ok_or(DoesNotOpen)?;
        let user_key = user_key.first_chunk::<KEY_ID_BYTES>().copied();
        Ok(Self { header, key_id: *key_id, user_key, salt, nonce: *nonce, body, tag: *tag })
    }

    /// Decrypts, with the user's key for what has one.
    pub(crate) fn open(
        &self,
        data_key: &Key,
        user_key: Option<&Key>,
        binding: Binding<'_>,
    ) -> Result<SecretBytes, DoesNotOpen> {
        if user_key.is_some() != self.user_key.is_some() {
            return Err(DoesNotOpen);
        }
        let mut buffer = Zeroizing::new(self.body.to_vec());
        record_cipher(data_key, user_key, self.salt)?
            .decrypt_inout_detached(
                &Nonce::from(self.nonce),
                &record_aad(self.header, binding),
                InOutBuf::from(buffer.as_mut_slice()),
                &Tag::from(self.tag),
            )
            .map_err(|_| DoesNotOpen)?;
        Ok(SecretBytes::new(std::mem::take(&mut *buffer)))
    }
}

/// A key with the id under which it stands in headers.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) id: [u8; KEY_ID_BYTES],
    pub(super) key: &'a Key,
}

/// Encrypts a record, with the user's key for what has one.
pub(super) fn seal_record(
    data_key: Named<'_>,
    user_key: Option<Named<'_>>,
    binding: Binding<'_>,
    plaintext: &SecretBytes,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, DoesNotOpen> {
    let plaintext = plaintext.expose_secret();
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    entropy.fill(&mut salt);
    entropy.fill(&mut nonce);
    // The whole length at once: growing would leave copies of the plaintext behind.
    let mut out = Vec::with_capacity(HEADER_BYTES + KEY_ID_BYTES + plaintext.len() + TAG_BYTES);
    out.push(if user_key.is_some() { USERS_VERSION } else { RECORD_VERSION });
    out.extend_from_slice(&data_key.id);
    out.extend(user_key.iter().flat_map(|user_key| user_key.id));
    out.extend_from_slice(&salt);
    out.extend_from_slice(&nonce);
    let aad = record_aad(&out, binding);
    let header_bytes = out.len();
    out.extend_from_slice(plaintext);
    let tag = record_cipher(data_key.key, user_key.map(|user_key| user_key.key), &salt)?
        .encrypt_inout_detached(&Nonce::from(nonce), &aad, InOutBuf::from(&mut out[header_bytes..]))
        .map_err(|_| DoesNotOpen)?; // only for plaintexts above 64 GiB
    out.extend_from_slice(&tag);
    Ok(out)
}

fn record_cipher(data_key: &Key, user_key: Option<&Key>, salt: &[u8]) -> Result<Aes256Gcm, DoesNotOpen> {
    let mut material = Zeroizing::new([0; 64]);
    let (first, second) = material.split_at_mut(32);
    first.copy_from_slice(data_key.as_slice());
    let (material, info) = match user_key {
        Some(user_key) => {
            second.copy_from_slice(user_key.as_slice());
            (&material[..], USERS_KEY_INFO)
        }
        None => (&material[..32], RECORD_KEY_INFO),
    };
    let mut key = Key::default();
    Hkdf::<Sha256>::new(Some(salt), material).expand(info, key.as_mut_slice()).map_err(|_| DoesNotOpen)?; // only for keys above 8 KiB
    Aes256Gcm::new_from_slice(key.as_slice()).map_err(|_| DoesNotOpen)
}

fn record_aad(header: &[u8], binding: Binding<'_>) -> Vec<u8> {
    let mut aad = Vec::with_capacity(320);
    append_length_prefixed(&mut aad, RECORD_LABEL);
    append_length_prefixed(&mut aad, header);
    append_length_prefixed(&mut aad, &binding.key.canonical_bytes());
    append_length_prefixed(&mut aad, binding.grant.as_bytes());
    append_length_prefixed(&mut aad, field_tag(binding.field));
    aad
}

/// Part of the format: never change one.
fn field_tag(field: Field) -> &'static [u8] {
    match field {
        Field::AccessToken => b"access_token",
        Field::RefreshToken => b"refresh_token",
        Field::Profile => b"profile",
        Field::FlowSecrets => b"flow_secrets",
        Field::AuthorizationCode => b"authorization_code",
        Field::ClientSecret => b"client_secret",
        Field::ClientPrivateKey => b"client_private_key",
        Field::ClientTlsKey => b"client_tls_key",
        Field::UserKey => b"user_key",
    }
}

/// Wraps a data key.
pub(super) fn wrap_key(
    kek: &Aes256Gcm,
    binding: KeyBinding<'_>,
    key: &Key,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, DoesNotOpen> {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let mut body = key.clone();
    let tag = kek
        .encrypt_inout_detached(&Nonce::from(nonce), &wrap_aad(binding), InOutBuf::from(body.as_mut_slice()))
        .map_err(|_| DoesNotOpen)?; // only for plaintexts above 64 GiB
    Ok([&[WRAP_VERSION][..], &nonce, body.as_slice(), &tag].concat())
}

/// Unwraps a data key.
pub(crate) fn unwrap_key(
    kek: &Aes256Gcm,
    binding: KeyBinding<'_>,
    wrapped: &[u8],
) -> Result<Key, DoesNotOpen> {
    let (version, rest) = wrapped.split_first().ok_or(DoesNotOpen)?;
    let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(DoesNotOpen)?;
    let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(DoesNotOpen)?;
    if *version != WRAP_VERSION || body.len() != 32 {
        return Err(DoesNotOpen);
    }
    let mut key = Key::default();
    key.copy_from_slice(body);
    kek.decrypt_inout_detached(
        &Nonce::from(*nonce),
        &wrap_aad(binding),
        InOutBuf::from(key.as_mut_slice()),
        &Tag::from(*tag),
    )
    .map_err(|_| DoesNotOpen)?;
    Ok(key)
}

pub(super) fn wrap_aad(binding: KeyBinding<'_>) -> Vec<u8> {
    let mut aad = Vec::with_capacity(192);
    append_length_prefixed(&mut aad, WRAP_LABEL);
    append_length_prefixed(&mut aad, &[WRAP_VERSION]);
    append_length_prefixed(&mut aad, &binding.id);
    append_length_prefixed(&mut aad, binding.tenant.as_str().as_bytes());
    append_length_prefixed(&mut aad, purpose_tag(binding.purpose));
    append_length_prefixed(&mut aad, binding.kek_id.as_bytes());
    aad
}

/// Part of the format: never change one.
pub(super) fn purpose_tag(purpose: DataKeyPurpose) -> &'static [u8] {
    match purpose {
        DataKeyPurpose::Encryption => b"encryption",
        DataKeyPurpose::Fingerprint => b"fingerprint",
    }
}
