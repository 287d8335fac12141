//! The vault through its port: the stored formats, byte by byte, and everything that must not open.

mod users;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::cipher::{Binding, Cipher, CipherError, Field};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{DataKeyId, DataKeyPurpose, DataKeyStore, WrappedDataKey};
use token_broker::domain::key::{CredentialKey, TenantId, UserId};
use token_broker::domain::ports::{Clock, Entropy, StoreError};
use token_broker::domain::secret::{SecretBytes, SecretString};
use token_broker::domain::user_key::{StoredUserKey, UserKeyId, UserKeyStore};
use token_broker::infra::crypto::{KeyEncryptionKey, Keyring, Vault, VaultError};

use crate::contract::samples::{grant_id, key, key_of, tenant};

/// Entropy that counts: each byte asked for is one more than the one before.
struct Counting(AtomicU8);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Data keys in a list, with a hook for those that test races and damage.
#[derive(Default)]
struct Keys {
    all: Mutex<Vec<WrappedDataKey>>,
    users: Mutex<Vec<StoredUserKey>>,
    user_reads: AtomicUsize,
    users_are_away: AtomicBool,
    /// Answers about users' keys wait for it.
    gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    reads: AtomicUsize,
    fails: bool,
    /// Both first users have found no key before either stores one.
    race: Option<tokio::sync::Barrier>,
}

impl Keys {
    fn list(&self) -> Vec<WrappedDataKey> {
        self.all.lock().unwrap().clone()
    }

    fn find(&self, matches: impl Fn(&WrappedDataKey) -> bool) -> Result<Option<WrappedDataKey>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fails {
            return Err(StoreError::Unavailable("no".into()));
        }
        Ok(self.list().into_iter().find(matches))
    }
}

impl Keys {
    async fn find_user(
        &self,
        matches: impl Fn(&StoredUserKey) -> bool,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        self.user_reads.fetch_add(1, Ordering::SeqCst);
        if self.users_are_away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no".into()));
        }
        let found = self.users.lock().unwrap().iter().find(|key| matches(key)).cloned();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(found)
    }
}

#[async_trait]
impl DataKeyStore for Keys {
    async fn data_key(&self, id: [u8; 16]) -> Result<Option<WrappedDataKey>, StoreError> {
        self.find(|key| key.id == id)
    }

    async fn newest_data_key_or_insert(
        &self,
        candidate: WrappedDataKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let mut all = self.all.lock().unwrap();
        let same = |key: &&WrappedDataKey| key.tenant == candidate.tenant && key.purpose == candidate.purpose;
        if let Some(found) = all.iter().find(same) {
            return Ok(Some(found.clone()));
        }
        all.push(candidate.clone());
        Ok(Some(candidate))
    }

    async fn newest_data_key(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let found = self.find(|key| key.tenant == *tenant && key.purpose == purpose);
        if let Some(race) = &self.race {
            race.wait().await;
        }
        found
    }

    async fn kek_ids_in_use(&self) -> Result<BTreeSet<String>, StoreError> {
        self.find(|_| false)?;
        Ok(self.list().into_iter().map(|key| key.kek_id).collect())
    }

    async fn data_keys_under(&self, kek_id: &str, limit: u32) -> Result<Vec<WrappedDataKey>, StoreError> {
        let under = self.list().into_iter().filter(|key| key.kek_id == kek_id);
        Ok(under.take(usize::try_from(limit).unwrap()).collect())
    }

    async fn data_keys(
        &self,
        _: Option<&TenantId>,
        _: Option<DataKeyId>,
        _: u32,
    ) -> Result<Vec<WrappedDataKey>, StoreError> {
        Ok(self.list())
    }

    async fn data_key_states(
        &self,
        _: &[DataKeyId],
    ) -> Result<Vec<(DataKeyId, Option<Timestamp>)>, StoreError> {
        Ok(self.list().into_iter().map(|key| (key.id, key.superseded_at)).collect())
    }

    async fn supersede_data_key(&self, _: DataKeyId, _: WrappedDataKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn rewrap_data_key(&self, _: &WrappedDataKey, _: &WrappedDataKey) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn retire_data_key(&self, _: DataKeyId, _: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[async_trait]
impl UserKeyStore for Keys {
    async fn user_key(&self, id: UserKeyId) -> Result<Option<StoredUserKey>, StoreError> {
        self.find_user(|key| key.id == id).await
    }

    async fn user_keys(&self, ids: &[UserKeyId]) -> Result<Vec<StoredUserKey>, StoreError> {
        self.user_reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.users.lock().unwrap().iter().filter(|key| ids.contains(&key.id)).cloned().collect())
    }

    async fn user_key_of(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        self.find_user(|key| key.tenant == *tenant && key.user == *user).await
    }

    async fn user_key_or_insert(
        &self,
        candidate: StoredUserKey,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let mut users = self.users.lock().unwrap();
        let same = |key: &&StoredUserKey| key.tenant == candidate.tenant && key.user == candidate.user;
        if let Some(found) = users.iter().find(same) {
            return Ok(Some(found.clone()));
        }
        users.push(candidate.clone());
        Ok(Some(candidate))
    }
}

fn keyring(ids: &[(&str, u8)], active: &str) -> Keyring {
    let key = |(id, first): &(&str, u8)| {
        KeyEncryptionKey::new(id, SecretBytes::new((*first..first + 32).collect())).unwrap()
    };
    Keyring::new(ids.iter().map(key).collect(), active).unwrap()
}

/// A vault with these key-encryption keys (each counts up from its number).
fn vault_with(ids: &[(&str, u8)], active: &str, keys: &Arc<Keys>) -> Vault {
    // Another run draws other randomness.
    let first = u8::try_from(keys.list().len() * 16).unwrap();
    let entropy = Counting(AtomicU8::new(first));
    Vault::new(keyring(ids, active), keys.clone(), Arc::new(entropy), Arc::new(Still))
}

fn vault(keys: &Arc<Keys>) -> Vault {
    vault_with(&[("k1", 100)], "k1", keys)
}

fn bound(key: &CredentialKey, grant: u32, field: Field) -> Binding<'_> {
    Binding { key, grant: grant_id(grant), field }
}

fn plain(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes().to_vec())
}

async fn sealed(vault: &Vault, key: &CredentialKey, text: &str) -> Sealed {
    vault.seal(bound(key, 1, Field::AccessToken), &plain(text)).await.unwrap()
}

async fn opened(vault: &Vault, key: &CredentialKey, sealed: &Sealed) -> Result<String, CipherError> {
    let bytes = vault.open(bound(key, 1, Field::AccessToken), sealed).await?;
    Ok(String::from_utf8(bytes.expose_secret().to_vec()).unwrap())
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn does_not_open<T: std::fmt::Debug>(result: Result<T, CipherError>, what: &str) {
    assert!(matches!(result, Err(CipherError::DoesNotOpen)), "{what}: {result:?}");
}

/// Stored ciphertexts outlive the program: if this test fails, what is in databases does not open any more. Computed
/// apart from this code, with another language's library, from the description in `src/infra/crypto/envelope.rs`.
#[tokio::test]
async fn golden_bytes() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let alice = key("alice");
    let record = sealed(&vault, &alice, "canary").await;
    let [data_key] = &keys.list()[..] else { panic!("one data key") };
    assert_eq!(hex::encode(data_key.id), "000102030405060708090a0b0c0d0e0f");
    assert_eq!((data_key.kek_id.as_str(), data_key.purpose), ("k1", DataKeyPurpose::Encryption));
    assert_eq!(hex::encode(&data_key.wrapped), GOLDEN_DATA_KEY);
    let users = keys.users.lock().unwrap().clone();
    let [user_key] = &users[..] else { panic!("one user's key") };
    assert_eq!(hex::encode(user_key.id), "3c3d3e3f404142434445464748494a4b");
    assert_eq!((&user_key.tenant, &user_key.user), (&alice.tenant, &alice.user));
    assert_eq!(hex::encode(&user_key.sealed.0), GOLDEN_USER_KEY);
    assert_eq!(hex::encode(&record.0), GOLDEN_RECORD);
    let fingerprint = vault.fingerprint(&alice.tenant, &SecretString::from("canary")).await.unwrap();
    assert_eq!(hex::encode(fingerprint.0), GOLDEN_FINGERPRINT);
    assert_eq!(opened(&vault, &alice, &record).await.unwrap(), "canary");
}

/// The record that was written before users had keys: it opens for good.
#[tokio::test]
async fn a_record_of_the_first_version_still_opens() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let alice = key("alice");
    sealed(&vault, &alice, "x").await;
    assert_eq!(hex::encode(&keys.list()[0].wrapped), GOLDEN_DATA_KEY, "the data key that it was made with");
    let first = Sealed(hex::decode(GOLDEN_FIRST_RECORD).unwrap());
    // It has nothing to do with a key of the user's.
    keys.users.lock().unwrap().clear();
    assert_eq!(opened(&vault, &alice, &first).await.unwrap(), "canary");
    does_not_open(opened(&vault, &key("bob"), &first).await, "another user's");
    // Neither version passes for the other.
    for (version, from) in [(2, &first), (1, &sealed(&vault, &alice, "canary").await)] {
        let mut renamed = from.clone();
        renamed.0[0] = version;
        does_not_open(opened(&vault, &alice, &renamed).await, &format!("as version {version}"));
    }
}

const GOLDEN_FIRST_RECORD: &str = concat!(
    "01000102030405060708090a0b0c0d0e0f3c3d3e3f404142434445464748494a4b4c4d4e4f5051525354555657",
    "628e17ea8ad57dae8ac3347ca3146e7eca628c0bdd64",
);
const GOLDEN_USER_KEY: &str = concat!(
    "01000102030405060708090a0b0c0d0e0f6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687",
    "7891ef983631c6dcb5a04235699fc01cf4ec437a94b71a7889c449db1bee96cf293e2b255b48a77a2833ce34b5cff4cd",
);
const GOLDEN_DATA_KEY: &str = concat!(
    "01303132333435363738393a3b3f928aa02a7ffd9b8c0ebecb2e2fb7abd391ef6cdc1502e2782602b16400dfe8",
    "272c5d17115115c7bf14e90e8ccc2537",
);
const GOLDEN_RECORD: &str = concat!(
    "02000102030405060708090a0b0c0d0e0f3c3d3e3f404142434445464748494a4b88898a8b8c8d8e8f9091929394959697",
    "98999a9b9c9d9e9fa0a1a2a35872a8e874b030c6fb611802474f3cb3f646b57e542c",
);
const GOLDEN_FINGERPRINT: &str = "9f6a6f6b385532c8efc538e276d05eb1e39fec5dbc5aeb3257d70d29213d3184";

#[tokio::test]
async fn nothing_opens_in_another_place() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let alice = key_of("acme", "google", "a:b", "mail", "c");
    let record = sealed(&vault, &alice, "canary").await;
    for tenant in ["other", "acm"] {
        // Both tenants have data keys, so that it is not for lack of one.
        sealed(&vault, &key_of(tenant, "google", "a:b", "mail", "c"), "x").await;
    }
    for moved in [
        key_of("other", "google", "a:b", "mail", "c"),
        key_of("acm", "google", "a:b", "mail", "c"),
        key_of("acme", "github", "a:b", "mail", "c"),
        key_of("acme", "google", "bob", "mail", "c"),
        key_of("acme", "google", "a", "mail", "b:c"),
        key_of("acme", "google", "a:b", "files", "c"),
        key_of("acme", "google", "a:b", "mail", "default"),
    ] {
        does_not_open(opened(&vault, &moved, &record).await, &format!("{moved:?}"));
    }
    for field in [Field::RefreshToken, Field::Profile, Field::FlowSecrets] {
        does_not_open(vault.open(bound(&alice, 1, field), &record).await, &format!("{field:?}"));
    }
    does_not_open(vault.open(bound(&alice, 2, Field::AccessToken), &record).await, "another grant");
    assert_eq!(opened(&vault, &alice, &record).await.unwrap(), "canary");
}

#[tokio::test]
async fn no_truncation_extension_or_flipped_bit_opens() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let alice = key("alice");
    let record = sealed(&vault, &alice, "canary").await;
    for length in 0..record.0.len() {
        let cut = Sealed(record.0[..length].to_vec());
        does_not_open(opened(&vault, &alice, &cut).await, &format!("{length} bytes"));
    }
    for (byte, bit) in (0..record.0.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = record.clone();
        flipped.0[byte] ^= 1 << bit;
        does_not_open(opened(&vault, &alice, &flipped).await, &format!("byte {byte}, bit {bit}"));
    }
    let mut longer = record.clone();
    longer.0.push(0);
    does_not_open(opened(&vault, &alice, &longer).await, "one byte more");
    // An empty plaintext is a plaintext.
    let empty = sealed(&vault, &alice, "").await;
    assert_eq!(opened(&vault, &alice, &empty).await.unwrap(), "");
}

#[tokio::test]
async fn no_two_records_share_key_and_nonce() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let mut seen = BTreeSet::new();
    for _ in 0..9 {
        let record = sealed(&vault, &key("alice"), "canary").await;
        assert!(!record.0.windows(6).any(|bytes| bytes == b"canary"));
        assert!(seen.insert(record.0[33..61].to_vec()), "salt and nonce");
    }
}

#[tokio::test]
async fn a_damaged_or_moved_data_key_does_not_open() {
    let intact = Arc::new(Keys::default());
    let record = sealed(&vault(&intact), &key("alice"), "canary").await;
    let original = intact.list()[0].clone();
    let try_with = async |changed: WrappedDataKey| {
        let users = Mutex::new(intact.users.lock().unwrap().clone());
        let keys = Arc::new(Keys { all: Mutex::new(vec![changed]), users, ..Keys::default() });
        opened(&vault(&keys), &key("alice"), &record).await
    };
    assert_eq!(try_with(original.clone()).await.unwrap(), "canary");
    for length in 0..original.wrapped.len() {
        let mut cut = original.clone();
        cut.wrapped.truncate(length);
        does_not_open(try_with(cut).await, &format!("{length} bytes"));
    }
    for (byte, bit) in (0..original.wrapped.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = original.clone();
        flipped.wrapped[byte] ^= 1 << bit;
        does_not_open(try_with(flipped).await, &format!("byte {byte}, bit {bit}"));
    }
    let mut longer = original.clone();
    longer.wrapped.push(0);
    does_not_open(try_with(longer).await, "one byte more");
    let other_tenant = WrappedDataKey { tenant: tenant("other"), ..original.clone() };
    does_not_open(try_with(other_tenant).await, "another tenant's");
    let other_purpose = WrappedDataKey { purpose: DataKeyPurpose::Fingerprint, ..original.clone() };
    does_not_open(try_with(other_purpose).await, "another purpose");
    let other_id = WrappedDataKey { id: [9; 16], ..original };
    does_not_open(try_with(other_id).await, "another id: not found");
}

#[tokio::test]
async fn the_key_of_fingerprints_does_not_open_records() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let record = sealed(&vault, &key("alice"), "canary").await;
    vault.fingerprint(&tenant("acme"), &SecretString::from("x")).await.unwrap();
    let mac = keys.list().into_iter().find(|key| key.purpose == DataKeyPurpose::Fingerprint).unwrap();
    let mut renamed = record.clone();
    renamed.0[1..17].copy_from_slice(&mac.id);
    does_not_open(opened(&vault, &key("alice"), &renamed).await, "a fingerprint key's id");
}

#[tokio::test]
async fn fingerprints_tell_tokens_and_tenants_apart() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    let of = async |vault: &Vault, tenant_name, token| {
        vault.fingerprint(&tenant(tenant_name), &SecretString::from(token)).await.unwrap()
    };
    let first = of(&vault, "acme", "token").await;
    assert_eq!(of(&vault, "acme", "token").await, first);
    assert_ne!(of(&vault, "acme", "tokem").await, first);
    assert_ne!(of(&vault, "other", "token").await, first);
    // The same after a restart, and after the active key-encryption key was replaced.
    assert_eq!(of(&vault_with(&[("k1", 100)], "k1", &keys), "acme", "token").await, first);
    assert_eq!(of(&vault_with(&[("k1", 100), ("k2", 7)], "k2", &keys), "acme", "token").await, first);
}

#[tokio::test]
async fn older_keys_still_open_and_the_active_one_wraps() {
    let keys = Arc::new(Keys::default());
    let record = sealed(&vault(&keys), &key("alice"), "canary").await;
    let both = vault_with(&[("k1", 100), ("k2", 7)], "k2", &keys);
    both.check().await.unwrap();
    assert_eq!(opened(&both, &key("alice"), &record).await.unwrap(), "canary");
    // Alice's tenant goes on with its data key; a new tenant's is wrapped by the active key.
    sealed(&both, &key("alice"), "x").await;
    sealed(&both, &key_of("other", "google", "bob", "mail", "default"), "x").await;
    let kek_ids: Vec<_> = keys.list().into_iter().map(|key| key.kek_id).collect();
    assert_eq!(kek_ids, ["k1", "k2"]);
}

#[tokio::test]
async fn start_up_names_every_missing_and_wrong_key() {
    let keys = Arc::new(Keys::default());
    vault(&keys).check().await.expect("an empty database needs no keys");
    for (n, id) in ["k1", "k2", "k3", "k4"].into_iter().enumerate() {
        let all = [("k1", 100), ("k2", 7), ("k3", 9), ("k4", 11)];
        let vault = vault_with(&all, id, &keys);
        sealed(&vault, &key_of(&format!("t{n}"), "google", "alice", "mail", "default"), "x").await;
    }
    // k1 is right, k2 has another value, k3 and k4 are not there.
    let vault = vault_with(&[("k1", 100), ("k2", 8), ("k5", 1)], "k1", &keys);
    let error = vault.check().await.unwrap_err();
    let text = error.to_string();
    let VaultError::Keys { missing, wrong } = error else { panic!("{error:?}") };
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["k3", "k4"]);
    assert_eq!(wrong.into_iter().collect::<Vec<_>>(), ["k2"]);
    assert!(text.contains("k3, k4") && text.contains("k2"), "{text}");
}

#[tokio::test]
async fn one_damaged_data_key_is_not_a_wrong_key() {
    let keys = Arc::new(Keys::default());
    for name in ["t1", "t2"] {
        sealed(&vault(&keys), &key_of(name, "google", "alice", "mail", "default"), "x").await;
    }
    keys.all.lock().unwrap()[0].wrapped[30] ^= 1;
    vault(&keys).check().await.unwrap();
    keys.all.lock().unwrap()[1].wrapped[30] ^= 1;
    assert!(matches!(vault(&keys).check().await, Err(VaultError::Keys { .. })));
}

#[tokio::test]
async fn a_missing_key_is_not_a_damaged_record() {
    let keys = Arc::new(Keys::default());
    let record = sealed(&vault(&keys), &key("alice"), "canary").await;
    let without = vault_with(&[("k2", 7)], "k2", &keys);
    assert!(matches!(opened(&without, &key("alice"), &record).await, Err(CipherError::UnknownKey)));
    let binding_key = key("alice");
    let seal = without.seal(bound(&binding_key, 1, Field::Profile), &plain("x")).await;
    assert!(matches!(seal, Err(CipherError::UnknownKey)), "{seal:?}");
    let wrong = vault_with(&[("k1", 8)], "k1", &keys);
    does_not_open(opened(&wrong, &key("alice"), &record).await, "another key of the same id");
}

#[tokio::test]
async fn a_store_that_fails_is_said_so() {
    let keys = Arc::new(Keys { fails: true, ..Keys::default() });
    let vault = vault(&keys);
    let binding_key = key("alice");
    let seal = vault.seal(bound(&binding_key, 1, Field::Profile), &plain("x")).await;
    assert!(matches!(seal, Err(CipherError::Store(_))), "{seal:?}");
    let print = vault.fingerprint(&tenant("acme"), &SecretString::from("x")).await;
    assert!(matches!(print, Err(CipherError::Store(_))), "{print:?}");
    assert!(matches!(vault.check().await, Err(VaultError::Store(_))));
    assert!(keys.list().is_empty());
}

#[tokio::test]
async fn two_racing_first_uses_keep_one_key() {
    let race = Some(tokio::sync::Barrier::new(2));
    let keys = Arc::new(Keys { race, ..Keys::default() });
    // Two brokers on one database.
    let one = vault(&keys);
    let entropy = Arc::new(Counting(AtomicU8::new(128)));
    let two = Vault::new(keyring(&[("k1", 100)], "k1"), keys.clone(), entropy, Arc::new(Still));
    let alice = key("alice");
    let (from_one, from_two) = tokio::join!(sealed(&one, &alice, "one"), sealed(&two, &alice, "two"));
    assert_eq!(keys.list().len(), 1);
    assert_eq!(from_one.0[1..17], from_two.0[1..17], "both use the key that was kept");
    assert_eq!(opened(&one, &alice, &from_two).await.unwrap(), "two");
    assert_eq!(opened(&two, &alice, &from_one).await.unwrap(), "one");
}

#[tokio::test]
async fn data_keys_are_read_once() {
    let keys = Arc::new(Keys::default());
    let record = sealed(&vault(&keys), &key("alice"), "canary").await;
    let fresh = vault(&keys);
    let before = keys.reads.load(Ordering::Relaxed);
    for _ in 0..3 {
        opened(&fresh, &key("alice"), &record).await.unwrap();
    }
    assert_eq!(keys.reads.load(Ordering::Relaxed), before + 1);
    for _ in 0..3 {
        sealed(&fresh, &key("alice"), "x").await;
    }
    assert_eq!(keys.reads.load(Ordering::Relaxed), before + 2);
}

proptest::proptest! {
    #[test]
    fn what_is_sealed_opens(text in proptest::collection::vec(proptest::num::u8::ANY, 0..5000), user in "[a-z:|]{1,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let keys = Arc::new(Keys::default());
            let vault = vault(&keys);
            let key = key(&user);
            let binding = bound(&key, 3, Field::FlowSecrets);
            let sealed = vault.seal(binding, &SecretBytes::new(text.clone())).await.unwrap();
            assert_eq!(sealed.0.len(), text.len() + 77);
            assert_eq!(vault.open(binding, &sealed).await.unwrap().expose_secret(), text);
        });
    }

    #[test]
    fn garbage_never_opens_and_never_panics(garbage in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let keys = Arc::new(Keys::default());
            let vault = vault(&keys);
            sealed(&vault, &key("alice"), "x").await;
            let id = keys.list()[0].id;
            does_not_open(opened(&vault, &key("alice"), &Sealed(garbage.clone())).await, "garbage");
            let user_key = keys.users.lock().unwrap()[0].id;
            for behind_a_good_header in
                [[&[1][..], &id, &garbage].concat(), [&[2][..], &id, &user_key, &garbage].concat()]
            {
                does_not_open(opened(&vault, &key("alice"), &Sealed(behind_a_good_header)).await, "garbage");
            }
        });
    }
}
