//! Mistakes in what the configuration says about identities: each is named, and what it should be.

use token_broker::config::{Config, ConfigErrors, Environment, KeyPlace};

const LEAST: &str = "[vault]\nactive_key = \"k\"\n[vault.keys.k]\nenv = \"KEY\"\n";
/// An issuer to which a line is added.
const ISSUER: &str =
    "[issuers.a]\nissuer = \"https://a.example\"\naudiences = [\"b\"]\nfor = [\"callers\"]\n";
const TLS: &str = "[grpc]\ntls_certificate_file = \"c\"\ntls_key_file = \"k\"\n";

fn load(text: &str) -> Result<Config, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.toml");
    std::fs::write(&path, format!("{text}\n{LEAST}")).unwrap();
    let environment: Environment = [("KEY".to_owned(), "00".repeat(32))].into_iter().collect();
    Config::load(Some(&path), &environment)
}

/// The file, the key that is to blame, and a part of what is said.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "[issuers.A]\nissuer = \"https://a\"\naudiences = [\"b\"]\nfor = [\"users\"]",
        "issuers.A",
        "the name of an issuer",
    ),
    (
        "[issuers.'a|b']\nissuer = \"https://a\"\naudiences = [\"b\"]\nfor = [\"users\"]",
        "issuers.a|b",
        "the name of an issuer",
    ),
    ("[issuers.a]\naudiences = [\"b\"]\nfor = [\"users\"]", "issuers.a.issuer", "is required"),
    ("[issuers.a]\nissuer = \"https://a\"\nfor = [\"users\"]", "issuers.a.audiences", "is required"),
    ("[issuers.a]\nissuer = \"https://a\"\naudiences = [\"b\"]", "issuers.a.for", "is required"),
    (
        "[issuers.a]\nissuer = \"https://a\"\naudiences = []\nfor = [\"users\"]",
        "issuers.a.audiences",
        "at least one",
    ),
    (
        "[issuers.a]\nissuer = \"https://a\"\naudiences = [\" b\"]\nfor = [\"users\"]",
        "issuers.a.audiences[0]",
        "white space",
    ),
    ("[issuers.a]\nissuer = \"https://a\"\naudiences = [\"b\"]\nfor = []", "issuers.a.for", "callers"),
    (
        "[issuers.a]\nissuer = \"https://a\"\naudiences = [\"b\"]\nfor = [\"all\"]",
        "issuers.a.for[0]",
        "callers or users",
    ),
    (
        "[issuers.a]\nissuer = \"http://a\"\naudiences = [\"b\"]\nfor = [\"users\"]",
        "issuers.a.issuer",
        "must be an https URL",
    ),
    (
        "[issuers.a]\nissuer = \"https://a?b\"\naudiences = [\"b\"]\nfor = [\"users\"]",
        "issuers.a.issuer",
        "must be an https URL",
    ),
    (
        "[issuers.a]\nissuer = \"accounts\"\naudiences = [\"b\"]\nfor = [\"users\"]",
        "issuers.a.issuer",
        "must be an https URL",
    ),
    ("ISSUER algorithms = [\"none\"]", "issuers.a.algorithms[0]", "must be one of ES256"),
    ("ISSUER algorithms = [\"HS256\"]", "issuers.a.algorithms[0]", "must be one of ES256"),
    ("ISSUER algorithms = [\"es256\"]", "issuers.a.algorithms[0]", "must be one of ES256"),
    ("ISSUER algorithms = []", "issuers.a.algorithms", "at least one"),
    ("ISSUER jwks_url = \"http://a.example/keys\"", "issuers.a.jwks_url", "https://"),
    ("ISSUER jwks_url = \"https://u:p@a.example/keys\"", "issuers.a.jwks_url", "password"),
    ("ISSUER jwks_url = \"https://a.example/keys#x\"", "issuers.a.jwks_url", "fragment"),
    ("ISSUER jwks_url = \"https://a\"\njwks_file = \"f\"", "issuers.a", "more than one of"),
    ("ISSUER leeway = \"6m\"", "issuers.a.leeway", "from 0s to 5m"),
    ("ISSUER max_lifetime = \"10s\"", "issuers.a.max_lifetime", "from 1m"),
    ("ISSUER jwks = \"x\"", "issuers.a.jwks", "is unknown"),
    (
        "ISSUER [issuers.b]\nissuer = \"https://a.example\"\naudiences = [\"c\"]\nfor = [\"users\", \"callers\"]",
        "issuers.b.issuer",
        "also that of issuers.a, for callers",
    ),
    ("[jwt]\nkey_refresh = \"1d\"\nkey_max_age = \"1h\"", "jwt.key_max_age", "longer than jwt.key_refresh"),
    ("[jwt]\nunknown_key_pause = \"0s\"", "jwt.unknown_key_pause", "from 1s"),
    (
        "[spiffe.trust_domains.'Example.org']\njwt_bundle_file = \"f\"\njwt_audiences = [\"b\"]",
        "spiffe.trust_domains.Example.org",
        "the name of a trust domain",
    ),
    ("[spiffe.trust_domains.'example.org']", "spiffe.trust_domains.example.org", "needs bundle_file"),
    (
        "[spiffe.trust_domains.'example.org']\nbundle_file = \"f\"",
        "spiffe.trust_domains.example.org.bundle_file",
        "grpc.tls_certificate_file",
    ),
    (
        "[spiffe.trust_domains.'example.org']\njwt_bundle_file = \"f\"",
        "spiffe.trust_domains.example.org.jwt_audiences",
        "at least one",
    ),
    (
        "TLS [spiffe.trust_domains.'example.org']\nbundle_file = \"f\"\njwt_audiences = [\"b\"]",
        "spiffe.trust_domains.example.org.jwt_audiences",
        "of no use",
    ),
    (
        "[spiffe.trust_domains.'example.org']\njwt_bundle_file = \"f\"\njwt_bundle_url = \"https://a\"\njwt_audiences = [\"b\"]",
        "spiffe.trust_domains.example.org",
        "more than one of",
    ),
    ("TLS tls_client_certificates = \"required\"", "grpc.tls_client_certificates", "nobody could connect"),
    (
        "TLS tls_client_certificates = \"always\"",
        "grpc.tls_client_certificates",
        "\"optional\" or \"required\"",
    ),
    ("[grpc]\ntls_reload = \"100ms\"", "grpc.tls_reload", "from 1s"),
    ("[callers.a]\nspiffe_ids = [\"spiffe://example.org\"]", "callers.a.spiffe_ids[0]", "a path"),
    ("[callers.a]\nspiffe_ids = \"any\"", "callers.a.spiffe_ids", "must be a list"),
    ("[callers.a]\nspiffe_ids = [\"spiffe://example.org/a\"]", "callers.a", "is not in spiffe.trust_domains"),
    (
        "[callers.a]\nsubjects = [{ issuer = \"https://a.example\", subject = \"s\" }]",
        "callers.a",
        "not in issuers for callers",
    ),
    ("ISSUER [callers.a]\nsubjects = [\"s\"]", "callers.a.subjects[0]", "issuer and subject"),
    (
        "ISSUER [callers.a]\nsubjects = [{ issuer = \"https://a.example\" }]",
        "callers.a.subjects[0]",
        "issuer and subject",
    ),
    (
        "ISSUER [callers.a]\nsubjects = [{ issuer = \"https://a.example\", subject = \"\" }]",
        "callers.a.subjects[0].subject",
        "must not be empty",
    ),
    (
        "ISSUER [callers.a]\nsubjects = [SUBJECT]\n[callers.b]\nsubjects = [SUBJECT]",
        "callers.b.subjects",
        "also that of callers.a",
    ),
];

fn whole(text: &str) -> String {
    text.replace("ISSUER ", ISSUER)
        .replace("TLS ", TLS)
        .replace("SUBJECT", "{ issuer = \"https://a.example\", subject = \"s\" }")
}

#[test]
fn each_mistake_is_named() {
    for (text, key, says) in MISTAKES {
        let found = match load(&whole(text)) {
            Ok(_) => panic!("{text:?} is taken"),
            Err(ConfigErrors::Invalid(found)) => found,
            Err(error) => panic!("{text:?}: {error}"),
        };
        let [problem] = found.as_slice() else { panic!("one mistake in {text:?}, not {found:?}") };
        assert_eq!(problem.key, *key, "{text:?}");
        assert!(problem.message.contains(says), "{text:?}: {problem}");
    }
}

#[test]
fn what_is_written_is_what_counts() {
    let config = load(&whole(
        "ISSUER jwks_url = \"https://10.0.0.1/keys\"\n\
         [issuers.b]\nissuer = \"https://a.example\"\naudiences = [\"c\"]\nfor = [\"users\"]\nalgorithms = [\"EdDSA\"]\n\
         [issuers.c]\nissuer = \"accounts\"\naudiences = [\"c\"]\nfor = [\"users\"]\njwks_file = \"keys.json\"\n\
         [spiffe.trust_domains.'example.org']\njwt_bundle_url = \"https://b.example/bundle\"\njwt_audiences = [\"c\"]\n\
         [callers.a]\nspiffe_ids = [\"spiffe://example.org/a\"]\nsubjects = [SUBJECT]",
    ))
    .unwrap();
    let [a, b, c] = &config.issuers[..] else { panic!("three issuers") };
    assert!(matches!(&a.keys, KeyPlace::Url(url) if url.as_str() == "https://10.0.0.1/keys"));
    assert!(a.for_callers && !a.for_users && a.algorithms.len() == 9);
    assert_eq!((b.keys.clone(), b.for_users, b.algorithms.len()), (KeyPlace::Discovered, true, 1));
    assert!(matches!(&c.keys, KeyPlace::File(path) if path.ends_with("keys.json") && path.is_absolute()));
    assert_eq!(config.trust_domains[0].domain.as_str(), "example.org");
    assert_eq!(config.callers[0].identities.len(), 2);
    assert!(config.callers[0].key_hashes.is_empty());
}
