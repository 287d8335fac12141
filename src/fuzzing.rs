//! What `fuzz/` feeds, one function for each kind of input that others write. A function returns on every input; it panics if
//! a rule is broken. `tests/it/fuzz_corpus.rs` gives them the corpora.

use std::path::Path;
use std::sync::LazyLock;

use zeroize::Zeroizing;

use crate::config::{Config, Environment};
use crate::domain::cipher::{Binding, Field};
use crate::domain::data_key::DataKeyPurpose;
use crate::domain::flow::RecordedEndpoints;
use crate::domain::key::{Account, CredentialKey, GrantId, GrantName, ProviderId, TenantId, UserId};
use crate::domain::provider::Provider;
use crate::infra::crypto::KeyBinding;
use crate::infra::crypto::envelope::{Record, unwrap_key};
use crate::infra::journal::frame;
use crate::infra::jwt::fuzz_token;
use crate::infra::oauth::fuzz;
use crate::infra::providers::{Catalogue, ClientKeys, Registration, Source, parse};
use crate::infra::record;
use crate::transport::http::callback;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("callback_query", callback_query),
    ("ciphertext", ciphertext),
    ("configuration", configuration),
    ("cursors", cursors),
    ("id_token", id_token),
    ("journal", journal),
    ("jwt", jwt),
    ("keys", keys),
    ("metadata", metadata),
    ("provider_definition", provider_definition),
    ("token_answer", token_answer),
];

/// What a browser brings: path and query, with a line's end between them.
pub fn callback_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, query) = match text.split_once('\n') {
        Some((path, query)) => (path, Some(query)),
        None => (&*text, None),
    };
    let path = format!("/oauth/callback/{path}");
    let Some((provider, _, input)) = callback::read(&path, query) else { return };
    assert!(ProviderId::new(provider).is_ok(), "the provider is a slug");
    let texts = [input.error, input.iss, input.code.map(|code| code.expose_secret().to_owned())];
    for text in texts.into_iter().flatten() {
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "no control characters pass");
    }
}

/// A sealed record, and a wrapped data key: nothing that was not sealed opens.
pub fn ciphertext(data: &[u8]) {
    static CIPHER: LazyLock<Option<aes_gcm::Aes256Gcm>> =
        LazyLock::new(|| aes_gcm::KeyInit::new_from_slice(&[9; 32]).ok());
    static PLACE: LazyLock<Option<CredentialKey>> = LazyLock::new(|| key(["t", "p", "u", "g", "a"]));
    let Some(place) = PLACE.as_ref() else { return };
    let data_key = Zeroizing::new([7; 32]);
    let grant = GrantId::from_bytes([1; 16]);
    if let Ok(parsed) = Record::parse(data) {
        let binding = Binding { key: place, grant, field: Field::RefreshToken };
        let user_key = parsed.user_key.is_some().then_some(&data_key);
        assert!(parsed.open(&data_key, user_key, binding).is_err(), "nobody sealed this");
    }
    let purpose = DataKeyPurpose::Encryption;
    let binding = KeyBinding { id: [1; 16], tenant: &place.tenant, purpose, kek_id: "k" };
    if let Some(cipher) = CIPHER.as_ref() {
        assert!(unwrap_key(cipher, binding, data).is_err(), "nobody wrapped this");
    }
}

/// The operator's file.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("/nowhere/token-broker.toml");
    match Config::parse(Some((file, text)), &Environment::default()) {
        Ok(config) => assert!(config.outbound.max_response_bytes <= 1_048_576, "limits hold"),
        Err(error) => assert!(!error.to_string().is_empty(), "it says what to change"),
    }
}

/// Page tokens and cursors, from a caller.
pub fn cursors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    crate::application::read_position(text);
}

/// An ID token.
pub fn id_token(data: &[u8]) {
    static OPENID: LazyLock<Option<Provider>> =
        LazyLock::new(|| provider("oidc", &[("issuer", "https://issuer.example")]));
    let Some(provider) = OPENID.as_ref() else { return };
    let Ok(url) = url::Url::parse("https://issuer.example/x") else { return };
    let endpoints = RecordedEndpoints {
        issuer: Some("https://issuer.example".to_owned()),
        iss_required: true,
        authorization: url.clone(),
        token: url,
        revocation: None,
        userinfo: None,
    };
    fuzz::id_token(provider, &endpoints, data);
}

/// A segment of the journal, and a record by itself: what is read is what was written.
pub fn journal(data: &[u8]) {
    for content in frame::read(data).records.into_iter().chain([data]) {
        if let Ok(write) = record::decode(content) {
            assert_eq!(record::encode(&write), content, "one record, one form");
        }
    }
    let framed = frame::frame(data).unwrap_or_default();
    assert_eq!(frame::read(&framed).records, [data], "a record is found again");
}

/// A JWT of a caller or user, and an issuer's keys.
pub fn jwt(data: &[u8]) {
    fuzz_token(data);
}

/// Keys with delimiters in their parts: `("a", "b:c")` is not `("a:b", "c")`.
pub fn keys(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\n');
    let mut next = || Some([parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?]);
    let (Some(one), Some(other)) = (next().and_then(key), next().and_then(key)) else { return };
    let same = one.canonical_bytes() == other.canonical_bytes();
    assert_eq!(one == other, same, "two keys, two byte strings");
}

/// An issuer's metadata.
pub fn metadata(data: &[u8]) {
    fuzz::metadata(data);
}

/// A provider's definition.
pub fn provider_definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse::definition("fuzz.toml", text, Source::BuiltIn) {
        Ok(parsed) => {
            assert!(!parsed.definition.services.is_empty(), "there is something to connect to");
            assert!(parsed.id_position.0 >= 1, "lines count from one");
        }
        Err(mistakes) => {
            for mistake in mistakes {
                assert!(mistake.line >= 1 && mistake.column >= 1, "a mistake has a place");
            }
        }
    }
}

/// The answer of a token endpoint: of one by the letter, of GitHub, of Slack.
pub fn token_answer(data: &[u8]) {
    static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(|| {
        ["google", "github-app", "slack"].into_iter().filter_map(|id| provider(id, &[])).collect()
    });
    for provider in PROVIDERS.iter() {
        fuzz::token_answer(provider, data);
    }
}

fn key([tenant, provider, user, grant, account]: [&str; 5]) -> Option<CredentialKey> {
    Some(CredentialKey {
        tenant: TenantId::new(tenant).ok()?,
        provider: ProviderId::new(provider).ok()?,
        user: UserId::new(user).ok()?,
        grant: GrantName::new(grant).ok()?,
        account: Account::new(account).ok()?,
    })
}

fn provider(definition: &str, variables: &[(&str, &str)]) -> Option<Provider> {
    let id = ProviderId::new("p").ok()?;
    let registration = Registration {
        id: id.clone(),
        definition: definition.to_owned(),
        client_id: "client".to_owned(),
        client_secret: Some("secret".into()),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        keys: ClientKeys::default(),
    };
    let configured = Catalogue::load(&[]).ok()?.configure(vec![registration]).ok()?;
    configured.get(&id).as_deref().cloned()
}
