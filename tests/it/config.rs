//! The configuration: every mistake at once, with its name and place; the precedence of its sources; masked secrets.

use std::time::Duration;

use tempfile::TempDir;
use token_broker::config::{Config, ConfigErrors, DEFAULT_FILE, Environment, Problem, Storage};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// The least that starts.
const LEAST: &str = "[vault]\nactive_key = \"k\"\n[vault.keys.k]\nenv = \"KEY\"\n";

/// Loads a file with this content, with the variable `KEY` and these.
fn load(content: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let folder = TempDir::new().unwrap();
    load_in(&folder, content, variables)
}

fn load_in(folder: &TempDir, content: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let path = folder.path().join("broker.toml");
    std::fs::write(&path, content).unwrap();
    let all = variables.iter().chain(&[("KEY", KEY)]);
    let environment: Environment =
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(Some(&path), &environment)
}

fn problems(content: &str, variables: &[(&str, &str)]) -> Vec<Problem> {
    match load(content, variables) {
        Ok(_) => panic!("this configuration has mistakes"),
        Err(ConfigErrors::Invalid(problems)) => problems,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_default_file() {
    let config = load(LEAST, &[]).unwrap();
    let complete = [("TOKEN_BROKER_VAULT__ACTIVE_KEY", "k"), ("TOKEN_BROKER_VAULT__KEYS__K__ENV", "KEY")];
    let from_file = load(DEFAULT_FILE, &complete).unwrap();
    let values = |config: &Config| -> Vec<(String, String)> {
        config.settings.iter().map(|s| (s.key.clone(), s.value.clone())).collect()
    };
    assert_eq!(values(&config), values(&from_file));
}

#[test]
fn the_environment_lies_over_the_file_and_the_file_over_the_defaults() {
    let folder = TempDir::new().unwrap();
    let file = format!(
        "{LEAST}[grpc]\nlisten = \"127.0.0.1:1\"\nmax_deadline = \"7s\"\n\
         [providers.'git-lab.example']\nclient_id = \"from-file\"\n"
    );
    let variables = [
        ("TOKEN_BROKER_GRPC__LISTEN", "127.0.0.1:2"),
        ("TOKEN_BROKER_GRPC__REFLECTION", "false"),
        ("TOKEN_BROKER_GRPC__MAX_REQUEST_BYTES", "2048"),
        ("TOKEN_BROKER_PUBLIC__RETURN_URLS", "https://a.example.com/x, https://b.example.com"),
        ("TOKEN_BROKER_PROVIDERS__GIT_LAB_EXAMPLE__CLIENT_ID", "from-environment"),
        ("TOKEN_BROKER_PROVIDERS__GOOGLE__CLIENT_ID", "new"),
        ("TOKEN_BROKER_PROVIDERS__GOOGLE__VARIABLES__HOST", "example.com"),
        ("TOKEN_BROKER_STORAGE__PATH", "below/broker.db"),
        ("TOKEN_BROKER_JOURNAL__DIRECTORY", "below/journal"),
        // Not settings: names without a section, such as Kubernetes sets for a service of this name.
        ("TOKEN_BROKER_SERVICE_HOST", "10.0.0.1"),
        ("TOKEN_BROKER_PORT", "tcp://10.0.0.1:50051"),
        ("TOKEN_BROKER_API_KEY", "tb_x"),
    ];
    let config = load_in(&folder, &file, &variables).unwrap();
    assert_eq!(config.grpc.listen.port(), 2);
    assert_eq!(config.grpc.max_deadline, Duration::from_secs(7));
    assert_eq!(config.grpc.max_request_bytes, 2048);
    assert_eq!(config.grpc.max_connection_age, Duration::from_secs(1800));
    assert!(!config.grpc.reflection);
    assert_eq!(config.public.return_urls.len(), 2);
    let file = folder.path().join("below/broker.db");
    assert!(matches!(&config.storage, Storage::Sqlite { path } if *path == file), "{:?}", config.storage);
    assert_eq!(config.journal.directory, folder.path().join("below/journal"));
    let clients: Vec<_> = config
        .providers
        .iter()
        .map(|p| (p.id.as_str(), p.definition.as_str(), p.client_id.as_str(), p.variables.len()))
        .collect();
    let expected =
        [("git-lab.example", "git-lab.example", "from-environment", 0), ("google", "google", "new", 1)];
    assert_eq!(clients, expected);
    let origin = |key: &str| config.settings.iter().find(|s| s.key == key).unwrap().origin.clone();
    assert_eq!(origin("grpc.listen"), "TOKEN_BROKER_GRPC__LISTEN");
    assert!(origin("grpc.max_deadline").ends_with("broker.toml:7"), "{}", origin("grpc.max_deadline"));
    assert_eq!(origin("grpc.max_connection_age"), "default");
}

/// Section of the file, the key that is to blame, and a part of what is said.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("[grpc]\nlisten = \"localhost:1\"", "grpc.listen", "IP address and port"),
    ("[log]\nlevel = \"warning\"", "log.level", "must be a level (error, warn"),
    ("[log]\nlevel = \"info,token_broker\"", "log.level", "must be a level (error, warn"),
    ("[grpc]\nlisten = 50051", "grpc.listen", "a text in quotes"),
    ("[grpc]\nlisten = \"\"", "grpc.listen", "must not be empty"),
    ("[grpc]\nreflection = \"yes\"", "grpc.reflection", "true or false"),
    ("[grpc]\nmax_deadline = \"10\"", "grpc.max_deadline", "from 1s to 5m"),
    ("[grpc]\nmax_deadline = \"6m\"", "grpc.max_deadline", "from 1s to 5m"),
    ("[grpc]\nmax_request_bytes = 1", "grpc.max_request_bytes", "from 1024"),
    ("[grpc]\nmax_request_bytes = 9999999999", "grpc.max_request_bytes", "whole number"),
    ("[grpc]\nmax_request_bytes = 1e3", "grpc.max_request_bytes", "whole number"),
    ("[grpc]\ntls_key_file = \"k\"", "grpc.tls_certificate_file", "beside tls_key_file"),
    ("[grpc]\ntls_certificate_file = \"c\"", "grpc.tls_key_file", "beside tls_certificate_file"),
    ("grpc = 1", "grpc", "must be a table"),
    ("[grcp]\nlisten = \"127.0.0.1:1\"", "grcp", "is unknown; the sections are: grpc, admin"),
    ("[grpc]\nlisen = \"127.0.0.1:1\"", "grpc.lisen", "is unknown; the keys here are: listen"),
    ("[public]\nlisten = \"0.0.0.0:80\"", "public.base_url", "is required"),
    ("[public]\nbase_url = \"http://b.example.com\"", "public.base_url", "https://"),
    ("[public]\nbase_url = \"https://b.example.com/?q\"", "public.base_url", "query"),
    ("[public]\nreturn_urls = [\"https://a.example.com\", 1]", "public.return_urls[1]", "a text"),
    ("[public]\nreturn_urls = [\"https://u:p@a.example.com\"]", "public.return_urls[0]", "password"),
    ("[public]\nreturn_urls = \"https://a.example.com\"", "public.return_urls", "must be a list"),
    ("[oauth]\nrequest_timeout = \"31s\"", "oauth.request_timeout", "from 1s to 30s"),
    ("[oauth]\nstrict_settle = \"33s\"", "oauth.strict_settle", "at least 34s"),
    ("[oauth]\nprovider_concurrency = 0", "oauth.provider_concurrency", "from 1"),
    ("[oauth]\nactive_window = \"1m\"", "oauth.active_window", "from 1h"),
    ("[storage]\nurl = \"mysql://u@h/d\"", "storage.url", "must begin with postgres://"),
    ("[storage]\nurl = \"postgres://u:p@h/d\"", "storage.url", "must not contain a password"),
    ("[storage]\nurl = \"postgres://u@h\"", "storage.url", "must name the database"),
    ("[storage]\nurl = \"postgres://h/d\"", "storage.url", "must name the user"),
    ("[storage]\nurl = \"postgres://u@h/d?ssl_mode=require\"", "storage.url", "unknown option"),
    ("[storage]\nurl = \"postgres://u@h/d?sslmode=verify\"", "storage.url", "sslmode must be one of"),
    ("[storage]\nurl = \"postgres://u@h/d?password=x\"", "storage.url", "must not contain a password"),
    ("[storage]\nurl = \"postgres://u@h/d\"\npath = \"b.db\"", "storage.url", "either a file or a server"),
    ("[storage]\npassword_env = \"NO_SUCH\"", "storage.password_env", "is not set"),
    ("[storage]\nmax_connections = 1", "storage.max_connections", "from 2"),
    ("[storage]\nstatement_timeout = \"1m\"", "storage.statement_timeout", "from 100ms"),
    ("[replicas]\nwithout_redis = \"no\"", "replicas.without_redis", "true or false"),
    ("[redis]\nurl = \"http://h\"", "redis.url", "must begin with one of redis://"),
    ("[redis]\nurl = \"redis://u:p@h\"", "redis.url", "must not contain a user name or password"),
    ("[redis]\nusername = \"u\"", "redis.username", "of no use without a password"),
    ("[redis]\npassword_env = \"KEY\"\npassword_file = \"f\"", "redis.password_env", "given twice"),
    ("[redis]\nkey_prefix = \"a b\"", "redis.key_prefix", "1 to 32 letters"),
    ("[redis]\ntls_key_file = \"k\"", "redis.tls_certificate_file", "beside tls_key_file"),
    ("[redis]\nresponse_timeout = \"10s\"", "redis.response_timeout", "from 10ms"),
    ("[journal]\ndirectory = \"\"", "journal.directory", "must not be empty"),
    ("[journal]\npath = \"j\"", "journal.path", "is unknown; the keys here are: directory"),
    ("[consent]\nbindings = []", "consent.bindings", "at least one binding"),
    ("[consent]\nbindings = [\"trust\"]", "consent.bindings[0]", "one of app, login, confirm"),
    ("[consent]\nbindings = [\"app\", \"app\"]", "consent.bindings", "twice"),
    ("[consent]\nbindings = [\"login\"]", "consent.bindings", "needs the section [login]"),
    ("[login]\nname = \"a|b\"", "login.name", "must begin with a letter or digit"),
    ("[login]\nscopes = [\"email\"]", "login.scopes", "must have \"openid\""),
    ("[login]\nissuer = \"http://login.example\"\nclient_id = \"i\"", "login.issuer", "https://"),
    ("[login]\nissuer = \"https://login.example\"", "login.issuer", "needs login.client_id"),
    ("[login]\nclient_id = \"i\"", "login.client_id", "of no use without login.issuer"),
    ("[shutdown]\ndrain = \"30s\"", "shutdown.drain", "longer than oauth.request_timeout (30s)"),
    ("[log]\nformat = \"xml\"", "log.format", "\"json\" or \"pretty\""),
    ("[log]\nlevel = \"token_broker=loud\"", "log.level", "must be a level"),
    ("[vault.keys.other]\nfile = \"no-such-file\"", "vault.keys.other.file", "cannot be read"),
    ("[vault.keys.other]\nenv = \"NO_SUCH\"", "vault.keys.other.env", "is not set"),
    ("[vault.keys.other]\nenv = \"SHORT\"", "vault.keys.other.env", "is not a key"),
    (
        "[vault.keys.other]\nenv = \"KEY\"\nfile = \"f\"",
        "vault.keys.other",
        "exactly one of file, env, aws_kms",
    ),
    ("[vault.keys.other]", "vault.keys.other", "exactly one of file, env, aws_kms"),
    (
        "[vault.keys.other]\nenv = \"KEY\"\naws_kms = \"arn:aws:kms:eu-central-1:1:key/k\"",
        "vault.keys.other",
        "exactly one of",
    ),
    ("[vault.keys.other]\naws_kms = \"alias/k\"", "vault.keys.other.aws_kms", "must be the ARN"),
    (
        "[vault.keys.other]\nenv = \"KEY\"\naws_endpoint = \"https://kms.example\"",
        "vault.keys.other.aws_endpoint",
        "beside aws_kms only",
    ),
    ("[vault.keys.other]\ngcp_kms = \"k\"", "vault.keys.other.gcp_kms", "must be a key's name"),
    (
        "[vault.keys.other]\nenv = \"KEY\"\ngcp_credentials_file = \"f\"",
        "vault.keys.other.gcp_credentials_file",
        "beside gcp_kms only",
    ),
    (
        "[vault.keys.other]\ntransit = \"https://v.example/v1/transit/keys/k\"",
        "vault.keys.other.transit",
        "exactly one of transit_token_file",
    ),
    (
        "[vault.keys.other]\ntransit = \"http://v.example/v1/transit/keys/k\"\ntransit_token_file = \"f\"",
        "vault.keys.other.transit",
        "must begin with https",
    ),
    (
        "[vault.keys.other]\ntransit = \"https://v.example/transit\"\ntransit_token_file = \"f\"",
        "vault.keys.other.transit",
        "must be the key's address",
    ),
    (
        "[vault.keys.other]\ntransit = \"https://v.example/v1/t/keys/k\"\ntransit_approle_role_id = \"r\"",
        "vault.keys.other.transit_approle_secret_id_file",
        "is required",
    ),
    (
        "[vault.keys.other]\nenv = \"KEY\"\ntransit_namespace = \"n\"",
        "vault.keys.other.transit_namespace",
        "beside transit only",
    ),
    ("[vault.keys.Other]\nenv = \"KEY\"", "vault.keys.Other", "the name of a key"),
    ("[providers.google]", "providers.google", "needs one of client_id"),
    (
        "[providers.google]\nclient_id = \"i\"\nclient_id_env = \"KEY\"",
        "providers.google",
        "more than one of",
    ),
    ("[providers.google]\nclient_id_file = \"none\"", "providers.google.client_id_file", "cannot be read"),
    ("[providers.google]\nclient_id = \"i\"\nsecret = \"s\"", "providers.google.secret", "is unknown"),
    ("[providers.Google]\nclient_id = \"i\"", "providers.Google", "the name of a provider"),
    ("[outbound]\nmax_response_bytes = 65535", "outbound.max_response_bytes", "from 65536 to 1048576"),
    ("[outbound]\nmax_response_bytes = 1048577", "outbound.max_response_bytes", "from 65536 to 1048576"),
    ("[outbound]\nallow_private = \"idp.internal\"", "outbound.allow_private", "must be a list"),
    (
        "[outbound]\nallow_private = [\"https://idp.internal\"]",
        "outbound.allow_private[0]",
        "a network such as",
    ),
    ("[outbound]\nallow_private = [\"idp.internal:443\"]", "outbound.allow_private[0]", "the name of a host"),
    ("[outbound]\nallow_private = [\"*.internal\"]", "outbound.allow_private[0]", "the name of a host"),
    ("[outbound]\nallow_private = [\"10.0.0.1/8\"]", "outbound.allow_private[0]", "bits behind its prefix"),
    ("[outbound]\nallow_private = [\"10.0.0.0/33\"]", "outbound.allow_private[0]", "a network such as"),
    ("[outbound]\nallow_private = [\"a.b\", \"0.0.0.0/0\"]", "outbound.allow_private[1]", "is every address"),
    ("[outbound]\nallow_private = [\"::/0\"]", "outbound.allow_private[0]", "is every address"),
    ("[outbound]\nca_file = \"none\"", "outbound.ca_file", "cannot be read"),
    ("[outbound]\nproxy = \"http://p\"", "outbound.proxy", "is unknown"),
    (
        "[providers.a]\nclient_id = \"i\"\nclient_auth = \"basic\"",
        "providers.a.client_auth",
        "must be \"private_key_jwt\"",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\nprivate_key_id = \"1\"",
        "providers.a.private_key_id",
        "needs private_key_file",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\nprivate_key_file = \"none\"",
        "providers.a.private_key_file",
        "cannot be read",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\nprivate_key_env = \"KEY\"\nprivate_key_algorithm = \"HS256\"",
        "providers.a.private_key_algorithm",
        "must be \"ES256\"",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\nprivate_key_env = \"KEY\"\nprivate_key_file = \"f\"",
        "providers.a.private_key_env",
        "given twice",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\ntls_key_file = \"k\"",
        "providers.a.tls_key_file",
        "tls_certificate_file beside",
    ),
    (
        "[providers.a]\nclient_id = \"i\"\ntls_certificate_file = \"c\"",
        "providers.a.tls_certificate_file",
        "tls_key_file beside",
    ),
    ("[callers.a]", "callers.a.key_sha256", "is required"),
    ("[callers.a]\nkey_sha256 = []", "callers.a.key_sha256", "at least one hash"),
    ("[callers.a]\nkey_sha256 = [\"tb_secret\"]", "callers.a.key_sha256[0]", "64 lower-case hex"),
    ("[callers.'a b']\nkey_sha256 = [\"HASH\"]", "callers.a b", "the name of a caller"),
    ("[callers.a]\nkey_sha256 = [\"HASH\", \"HASH\"]", "callers.a.key_sha256", "also a key of callers.a"),
    (
        "[callers.a]\nkey_sha256 = [\"HASH\"]\n[callers.b]\nkey_sha256 = [\"HASH\"]",
        "callers.b.key_sha256",
        "also a key of callers.a",
    ),
    ("RULE\nactions = [\"get\"]\nP\nU", "callers.a.allow[0].actions[0]", "get_credential"),
    ("RULE\nactions = \"all\"\nP\nU", "callers.a.allow[0].actions", "\"any\" or a list"),
    ("RULE\nactions = []\nP\nU", "callers.a.allow[0].actions", "names nothing"),
    ("RULE\nP\nU", "callers.a.allow[0].actions", "is required"),
    ("RULE\nA\nproviders = [\"A\"]\nU", "callers.a.allow[0].providers[0]", "must begin"),
    ("RULE\nA\nP\nservices = [\"A\"]\nU", "callers.a.allow[0].services[0]", "must begin"),
    ("RULE\nA\nP\nscopes = [\"mail\"]\nU", "callers.a.allow[0].scopes[0]", "exact, prefix"),
    ("RULE\nA\nP\nscopes = [{ exact = \"a b\" }]\nU", "callers.a.allow[0].scopes[0].exact", "RFC 6749"),
    ("RULE\nA\nP\nusers = [\"alice\"]", "callers.a.allow[0].users[0]", "exact, prefix"),
    ("RULE\nA\nP\nusers = [{ like = \"x\" }]", "callers.a.allow[0].users[0]", "exact, prefix"),
    ("RULE\nA\nP\nusers = [{ prefix = \"\" }]", "callers.a.allow[0].users[0].prefix", "empty"),
    ("RULE\nA\nP\nU\nassert_user_id = 1", "callers.a.allow[0].assert_user_id", "true or false"),
    (
        "RULE\nA\nP\nusers = [\"own\"]\nassert_user_id = true",
        "callers.a.allow[0].assert_user_id",
        "no effect",
    ),
    ("RULE\nA\nP\nU\nuser = \"any\"", "callers.a.allow[0].user", "is unknown"),
    ("[callers.a]\nkey_sha256 = [\"HASH\"]\nallow = \"any\"", "callers.a.allow", "[[callers.a.allow]]"),
    ("[callers.a]\nkey_sha256 = [\"HASH\"]\nallow = [\"any\"]", "callers.a.allow[0]", "must be a table"),
    ("[callers.a]\nkey_sha256 = [\"HASH\"]\nactions = \"any\"", "callers.a.actions", "is unknown"),
    (
        "[callers.a]\nkey_sha256 = [\"HASH\"]\nadmin = [\"all\"]",
        "callers.a.admin[0]",
        "manage_callers, manage_tenants",
    ),
    ("[authentication]\ncache_ttl = \"6s\"", "authentication.cache_ttl", "from 0s to 5s"),
    ("[callers.a]\nkey_sha256 = [\"HASH\"]\ntenant = \"A B\"", "callers.a.tenant", "must begin"),
];

#[test]
fn data_keys_are_kept_for_longer_than_tokens_live_elsewhere() {
    for (variable, value, key, expected) in [
        ("TOKEN_BROKER_VAULT__RETIRE_AFTER", "24h", "vault.retire_after", "a duration from 25h"),
        (
            "TOKEN_BROKER_VAULT__REENCRYPT_ROWS_PER_SECOND",
            "0",
            "vault.reencrypt_rows_per_second",
            "a whole number",
        ),
    ] {
        let found = problems(LEAST, &[(variable, value)])[0].to_string();
        assert!(found.starts_with(key) && found.contains(expected), "{found}");
    }
}

fn with_hash(text: &str) -> String {
    let text = text
        .replace("RULE", "[callers.a]\nkey_sha256 = [\"HASH\"]\n[[callers.a.allow]]")
        .replace("\nA\n", "\nactions = \"any\"\n")
        .replace("\nP\n", "\nproviders = \"any\"\n");
    let text = if text.ends_with("\nU") { text + "\n" } else { text };
    text.replace("\nU\n", "\nusers = \"any\"\n").replace("HASH", &"0a".repeat(32))
}

#[test]
fn each_mistake_is_named() {
    for (text, key, says) in MISTAKES {
        let found = problems(&format!("{}\n{LEAST}", with_hash(text)), &[("SHORT", "c2hvcnQ=")]);
        let [problem] = found.as_slice() else { panic!("one mistake in {text:?}, not {found:?}") };
        assert_eq!(problem.key, *key, "{text:?}");
        assert!(problem.message.contains(says), "{text:?}: {problem}");
    }
}

#[test]
fn all_mistakes_come_at_once_with_their_lines() {
    let found = problems(
        "[grpc]\nlisten = \"x\"\nreflection = 1\n\n[storage]\npth = \"y\"\n[vault.keys.k]\nenv = \"NO_SUCH\"\n\
         [callers.a]\nkey_sha256 = [\n  \"bad\",\n]\n",
        &[("TOKEN_BROKER_OAUTH__MAX_WAIT", "never"), ("TOKEN_BROKER_GRPC__TYPO", "1")],
    );
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    let all = shown.join("\n");
    for part in [
        "grpc.listen (",
        "broker.toml:2): must be an IP address and port",
        "grpc.reflection (",
        "broker.toml:3): must be true or false",
        "grpc.typo (TOKEN_BROKER_GRPC__TYPO): is unknown",
        "broker.toml:6): is unknown; the keys here are: path",
        "vault.active_key (",
        "broker.toml:7): is required",
        "broker.toml:8): the environment variable that it names is not set",
        "oauth.max_wait (TOKEN_BROKER_OAUTH__MAX_WAIT): must be a duration",
        "callers.a.key_sha256[0] (",
        "broker.toml:11): must be a SHA-256",
    ] {
        assert!(all.contains(part), "{part:?} is missing in\n{all}");
    }
    assert_eq!(found.len(), 8, "{all}");
}

#[test]
fn what_is_no_toml_is_named_by_line() {
    let found = problems("[grpc]\nlisten = \n[public\n", &[]);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|p| p.contains("broker.toml:2: not TOML")), "{shown:?}");
    assert!(shown.iter().any(|p| p.contains("broker.toml:3: not TOML")), "{shown:?}");
    // The same table twice is a mistake of the file, so no caller can be there twice.
    let found = problems("[callers.a]\n[callers.a]\n", &[]);
    assert!(found[0].to_string().contains("broker.toml:2"), "{}", found[0]);
}

#[test]
fn no_key_is_no_configuration() {
    let found = problems("", &[]);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|p| p.starts_with("vault.active_key: is required")), "{shown:?}");
    assert!(shown.iter().any(|p| p.starts_with("vault.keys: needs at least one key")), "{shown:?}");
    let found = problems("[vault]\nactive_key = \"other\"\n[vault.keys.k]\nenv = \"KEY\"\n", &[]);
    assert!(found[0].to_string().contains("must be the name of one of vault.keys"), "{}", found[0]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some("/nowhere/broker.toml".as_ref()), &Environment::default()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/broker.toml cannot be read"), "{error}");
}

#[test]
fn secrets_come_from_values_files_and_variables_and_are_shown_nowhere() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("secret"), "canary-in-a-file\n").unwrap();
    std::fs::write(folder.path().join("vault"), KEY).unwrap();
    let file = "[vault]\nactive_key = \"k\"\n[vault.keys.k]\nfile = \"vault\"\n\
                [providers.a]\nclient_id = \"i\"\nclient_secret = \"canary-in-the-configuration\"\n\
                [providers.b]\nclient_id = \"i\"\nclient_secret_file = \"secret\"\n\
                [providers.c]\nclient_id = \"i\"\nclient_secret_env = \"SECRET\"\n\
                [providers.d]\nclient_id = \"i\"\n";
    let variables = [
        ("SECRET", "canary-in-a-variable"),
        ("TOKEN_BROKER_PROVIDERS__D__CLIENT_SECRET", "canary-in-an-override"),
    ];
    let config = load_in(&folder, file, &variables).unwrap();
    let secrets: Vec<_> =
        config.providers.iter().map(|p| p.client_secret.as_ref().unwrap().expose_secret()).collect();
    assert_eq!(
        secrets,
        ["canary-in-the-configuration", "canary-in-a-file", "canary-in-a-variable", "canary-in-an-override"]
    );
    let shown = format!("{config:?} {config:#?} {:?}", config.settings);
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!shown.contains("00010203") && !shown.contains("0, 1, 2, 3"), "{shown}");
    assert!(shown.contains("[secret]"));
}

#[test]
fn private_destinations_are_hosts_addresses_and_networks() {
    let file = format!(
        "[outbound]\nallow_private = [\"IdP.internal.\", \"10.1.0.0/16\", \"192.168.0.7\", \"fd00:1::/32\"]\n{LEAST}"
    );
    let outbound = load(&file, &[]).unwrap().outbound;
    assert_eq!(outbound.private_hosts, ["idp.internal"]);
    let networks: Vec<String> = outbound.private_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.1.0.0/16", "192.168.0.7/32", "fd00:1::/32"]);
    assert_eq!(outbound.max_response_bytes, 262_144);
}

#[test]
fn a_clients_keys_are_read_and_shown_nowhere() {
    let folder = TempDir::new().unwrap();
    for (name, text) in [("key", "canary-signing-key\n"), ("crt", "certificate"), ("tls", "canary-tls-key")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let file = format!(
        "{LEAST}[providers.a]\nclient_id = \"i\"\nprivate_key_file = \"key\"\nprivate_key_id = \"2026\"\n\
         tls_certificate_file = \"crt\"\ntls_key_file = \"tls\"\n\
         [providers.b]\nclient_id = \"i\"\nprivate_key_env = \"SIGNING\"\nclient_auth = \"private_key_jwt\"\n"
    );
    let config = load_in(&folder, &file, &[("SIGNING", "canary-in-a-variable")]).unwrap();
    let keys: Vec<_> =
        config.providers.iter().map(|p| p.private_key.as_ref().unwrap().pem.expose_secret()).collect();
    assert_eq!(keys, ["canary-signing-key", "canary-in-a-variable"]);
    let certificate = config.providers[0].certificate.as_ref().unwrap();
    assert_eq!(
        (certificate.chain.as_str(), certificate.key.expose_secret()),
        ("certificate", "canary-tls-key")
    );
    let shown = format!("{config:?} {config:#?} {:?}", config.settings);
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_mistake_never_repeats_the_value() {
    // A secret that was put in the wrong place.
    for text in [
        "[grpc]\nlisten = \"canary\"",
        "[public]\nbase_url = \"canary\"",
        "[providers.a]\nclient_id = \"i\"\nclient_secret_file = \"canary\"",
        "[providers.a]\nclient_id = \"i\"\nclient_secret_env = \"canary\"",
        "[callers.a]\nkey_sha256 = [\"canary\"]",
        "[vault.keys.other]\nenv = \"canary\"",
        "[log]\nformat = \"canary\"\nlevel = \"=canary\"",
    ] {
        for problem in problems(&format!("{text}\n{LEAST}"), &[]) {
            assert!(!problem.to_string().contains("canary"), "{problem}");
        }
    }
}

#[test]
fn a_variable_that_would_be_left_out_silently_is_a_mistake() {
    for (name, right) in [
        ("TOKEN_BROKER_GRPC_LISTEN", "TOKEN_BROKER_GRPC__LISTEN"),
        ("TOKEN_BROKER_STORAGE_PATH", "TOKEN_BROKER_STORAGE__PATH"),
        ("TOKEN_BROKER_PUBLIC_BASE_URL", "TOKEN_BROKER_PUBLIC__BASE_URL"),
        ("token_broker_log_level", "TOKEN_BROKER_LOG__LEVEL"),
    ] {
        let found = problems(LEAST, &[(name, "secret-value")]);
        let [problem] = &found[..] else { panic!("one mistake: {found:?}") };
        assert_eq!(problem.place.as_deref(), Some(name));
        assert!(problem.message.contains(right) && !problem.message.contains("secret-value"), "{problem}");
    }
    let file = format!("{LEAST}[providers.google]\n");
    let found = problems(&file, &[("TOKEN_BROKER_PROVIDERS_GOOGLE_CLIENT_ID", "id")]);
    assert!(
        found.iter().any(|p| p.message.contains("TOKEN_BROKER_PROVIDERS__<NAME>__CLIENT_ID")),
        "{found:?}"
    );
    // What Kubernetes sets for a service named token-broker, and the command line's own.
    let others = [
        "TOKEN_BROKER_SERVICE_HOST",
        "TOKEN_BROKER_SERVICE_PORT",
        "TOKEN_BROKER_SERVICE_PORT_GRPC",
        "TOKEN_BROKER_PORT",
        "TOKEN_BROKER_PORT_50051_TCP_ADDR",
        "TOKEN_BROKER_PUBLIC_SERVICE_HOST",
        "TOKEN_BROKER_API_KEY",
        "TOKEN_BROKER_CONFIG",
        "TOKEN_BROKER_ENDPOINT",
    ];
    assert!(load(LEAST, &others.map(|name| (name, "x"))).is_ok());
}

#[test]
fn without_a_url_there_is_no_redis() {
    assert!(load(LEAST, &[]).unwrap().redis.is_none());
    let text = format!("{LEAST}[redis]\nkey_prefix = \"other\"\n");
    assert!(load(&text, &[]).unwrap().redis.is_none());
}

#[test]
fn redis_has_logins_from_files_or_variables_that_are_never_shown() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("password"), " file-canary\n").unwrap();
    let text = format!(
        "{LEAST}[redis]\nurl = \"rediss-sentinel://a,b:7/main\"\nusername = \"broker\"\npassword_file = \"password\"\n\
         sentinel_password_env = \"SENTINEL\"\ntls_ca_file = \"ca.crt\"\nresponse_timeout = \"100ms\"\n"
    );
    let config = load_in(&folder, &text, &[("SENTINEL", "variable-canary")]).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary"), "{shown}");
    let redis = config.redis.unwrap();
    assert_eq!(redis.url, "rediss-sentinel://a,b:7/main");
    let login = redis.login.unwrap();
    assert_eq!(login.username.as_deref(), Some("broker"));
    assert_eq!(login.password.expose_secret(), "file-canary");
    let login = redis.sentinel_login.unwrap();
    assert_eq!((login.username, login.password.expose_secret()), (None, "variable-canary"));
    assert_eq!(redis.tls_ca_file, Some(folder.path().join("ca.crt")));
    assert_eq!(redis.response_timeout, Duration::from_millis(100));
    assert_eq!((redis.connect_timeout, redis.key_prefix.as_str()), (Duration::from_secs(1), "tb"));
}

#[test]
fn mistakes_about_redis_are_told_all_at_once() {
    let text = format!(
        "{LEAST}[redis]\nurl = \"redis://user:canary@host\"\nusername = \"a\"\nsentinel_password_file = \"x\"\n\
         sentinel_password_env = \"KEY\"\ntls_key_file = \"x\"\nkey_prefix = \"{{a}}\"\nresponse_timeout = \"1h\"\n"
    );
    let found = problems(&text, &[]);
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "redis.url",
        "redis.username",
        "redis.sentinel_password_env",
        "redis.tls_certificate_file",
        "redis.key_prefix",
        "redis.response_timeout",
    ];
    for key in expected {
        assert!(keys.contains(&key), "{key} is not in {keys:?}");
    }
    assert_eq!(keys.len(), expected.len(), "{keys:?}");
    assert!(!format!("{found:?}").contains("canary"));
    let scheme = format!("{LEAST}[redis]\nurl = \"http://host\"\n");
    assert_eq!(problems(&scheme, &[]).len(), 1);
}
