//! Imports run one way: `transport → application → domain ← infra`. The table in `src/lib.rs`, as a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::support::cargo_toml;

/// What a module may use of this crate. The longest module that fits a file counts.
const MODULES: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("application", &["application", "domain"]),
    ("infra", &["infra", "domain"]),
    ("infra::audit", &["infra::audit", "infra::file_lock", "domain"]),
    ("infra::coordination", &["infra::coordination", "infra::record", "domain"]),
    ("infra::crypto", &["infra::crypto", "infra::cache", "infra::outbound", "infra::record", "domain"]),
    ("infra::journal", &["infra::journal", "infra::record", "infra::file_lock", "domain"]),
    // The one part that others may use: what goes out by HTTP goes by the same limits, whoever sends it.
    ("infra::outbound", &["infra::outbound", "domain"]),
    ("infra::jwt", &["infra::jwt", "infra::outbound", "domain"]),
    ("infra::tls", &["infra::tls", "domain"]),
    ("infra::oauth", &["infra::oauth", "infra::outbound", "domain"]),
    ("infra::providers", &["infra::providers", "infra::cache", "domain"]),
    // The bytes of a token pair outside its row: journal and permit store keep them, the vault makes their MAC.
    ("infra::record", &["infra::record", "domain"]),
    ("infra::storage", &["infra::storage", "infra::file_lock", "domain"]),
    ("transport", &["transport", "application", "domain", "gen"]),
    (
        "transport::grpc",
        &["transport::grpc", "transport::accept", "transport::proxies", "application", "domain", "gen"],
    ),
    (
        "transport::http",
        &["transport::http", "transport::accept", "transport::proxies", "application", "domain"],
    ),
    ("gen", &["gen"]),
    ("config", &["config", "domain"]),
    ("telemetry", &["telemetry"]),
];

/// Composition, and what stands on top of it: these see everything.
const EVERYTHING: &[&str] = &["app", "cli", "demo", "fuzzing", "lifecycle", "main", "testing"];

/// Engines and doors: a crate, and the modules that know it (beside [`EVERYTHING`]).
const OWNED_CRATES: &[(&str, &[&str])] = &[
    ("aes_gcm", &["infra::crypto"]),
    ("aws_credential_types", &["infra::crypto"]),
    ("aws_sigv4", &["infra::crypto"]),
    ("askama", &["transport::http"]),
    // tonic serves by an axum router, and takes axum's middleware.
    ("axum", &["transport"]),
    ("clap", &["cli"]),
    ("google_cloud_auth", &["infra::crypto"]),
    ("hyper", &["transport::http"]),
    ("hyper_util", &["transport::http"]),
    ("jsonwebtoken", &["infra::jwt", "infra::oauth"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("moka", &["infra::jwt"]),
    ("oauth2", &["infra::oauth"]),
    ("prost", &["transport::grpc", "gen"]),
    ("prost_types", &["transport::grpc", "gen"]),
    ("redis", &["infra::coordination::redis"]),
    ("reqwest", &["infra::outbound"]),
    ("rustls", &["infra::outbound", "infra::tls", "transport::grpc"]),
    ("sqlx", &["infra::storage"]),
    ("tokio_rustls", &["transport::grpc"]),
    ("tonic", &["transport::grpc", "gen"]),
    ("tonic_health", &["transport::grpc"]),
    ("tonic_prost", &["transport::grpc", "gen"]),
    ("tonic_reflection", &["transport::grpc"]),
    ("tonic_types", &["transport::grpc"]),
    ("x509_parser", &["infra::tls"]),
];

/// The domain is pure: of the dependencies it may use these, none of which does I/O or waits.
const DOMAIN_CRATES: &[&str] = &[
    "async_trait",
    "base64",
    "hex",
    "jiff",
    "serde",
    "sha2",
    "subtle",
    "thiserror",
    "url",
    "uuid",
    "zeroize",
];

/// A file of more lines than this wants to be two.
const MAX_LINES: usize = 500;
/// All ports on one screen, by design.
const LONG_FILES: &[&str] = &["src/domain/ports.rs"];

/// A path in code that begins at the crate or at a dependency: `["crate", "domain", "key"]` or `["sqlx", …]`.
type Import = Vec<String>;

/// Finds the imports of a file that stands for `module`. Code under `#[cfg(test)]` is left out.
fn imports(source: &str, module: &[String]) -> Vec<Import> {
    let tokens = source.parse::<TokenStream>().unwrap().into_iter().collect::<Vec<_>>();
    let mut found = Vec::new();
    walk(&tokens, module, &mut found);
    found
}

fn walk(tokens: &[TokenTree], module: &[String], found: &mut Vec<Import>) {
    let mut at = 0;
    while at < tokens.len() {
        if is_cfg_test(tokens, at) {
            at = end_of_item(tokens, at + 2);
            continue;
        }
        match &tokens[at] {
            TokenTree::Group(group) => {
                walk(&group.stream().into_iter().collect::<Vec<_>>(), module, found);
                at += 1;
            }
            TokenTree::Ident(_) => at = path(tokens, at, &[], module, found),
            _ => at += 1,
        }
    }
}

/// Reads the path that begins at `at`, branches included; answers where it ends.
fn path(
    tokens: &[TokenTree],
    mut at: usize,
    prefix: &[String],
    module: &[String],
    found: &mut Vec<Import>,
) -> usize {
    let mut segments = prefix.to_vec();
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => {
                segments.push(ident.to_string().trim_start_matches("r#").to_owned());
            }
            Some(TokenTree::Group(group))
                if group.delimiter() == Delimiter::Brace && !segments.is_empty() =>
            {
                branches(group.stream(), &segments, module, found);
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !is_path_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    found.extend(absolute(segments, module));
    at.max(1)
}

/// The inside of `use a::{…}`.
fn branches(stream: TokenStream, prefix: &[String], module: &[String], found: &mut Vec<Import>) {
    let tokens = stream.into_iter().collect::<Vec<_>>();
    let mut at = 0;
    while at < tokens.len() {
        let begins = at == 0 || is_punct(&tokens[at - 1], ',');
        if begins && matches!(tokens[at], TokenTree::Ident(_)) {
            at = path(&tokens, at, prefix, module, found);
        } else {
            at += 1;
        }
    }
}

/// `crate::…` and `super::…` from the crate's root; a dependency's path as it is; `None` for anything local.
fn absolute(segments: Vec<String>, module: &[String]) -> Option<Vec<String>> {
    let root = || std::iter::once("crate".to_owned());
    match segments[0].as_str() {
        "crate" | "token_broker" if segments.len() > 1 => {
            Some(root().chain(segments[1..].iter().cloned()).collect())
        }
        "super" => {
            let ups = segments.iter().take_while(|segment| *segment == "super").count();
            let base = &module[..module.len().saturating_sub(ups)];
            Some(root().chain(base.iter().cloned()).chain(segments[ups..].iter().cloned()).collect())
        }
        first if first.starts_with(|c: char| c.is_ascii_lowercase()) && segments.len() > 1 => Some(segments),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    tokens.len() > at + 1 && is_punct(&tokens[at], ':') && is_punct(&tokens[at + 1], ':')
}

fn is_cfg_test(tokens: &[TokenTree], at: usize) -> bool {
    let Some([hash, TokenTree::Group(attribute)]) = tokens.get(at..at + 2) else { return false };
    is_punct(hash, '#') && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Behind the next block in braces or semicolon.
fn end_of_item(tokens: &[TokenTree], from: usize) -> usize {
    let ends = |token: &TokenTree| {
        is_punct(token, ';')
            || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    tokens[from..].iter().position(ends).map_or(tokens.len(), |length| from + length + 1)
}

fn lies_in(module: &str, parent: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What is wrong with an import, if anything.
fn violation(module: &[String], import: &[String], dependencies: &BTreeSet<String>) -> Option<String> {
    let here = module.join("::");
    if here.is_empty() || EVERYTHING.iter().any(|everything| lies_in(&here, everything)) {
        return None;
    }
    let rule = MODULES.iter().filter(|(name, _)| lies_in(&here, name)).max_by_key(|(name, _)| name.len());
    let Some((name, may_use)) = rule else {
        return Some(format!(
            "module `{here}` is not in the table of tests/it/architecture.rs and src/lib.rs"
        ));
    };
    if import[0] == "crate" {
        let used = import[1..].join("::");
        return (!used.is_empty() && !may_use.iter().any(|allowed| lies_in(&used, allowed)))
            .then(|| format!("`{name}` may not use `{used}`"));
    }
    let krate = &import[0];
    if !dependencies.contains(krate) {
        return None;
    }
    if lies_in(&here, "domain") && !DOMAIN_CRATES.contains(&krate.as_str()) {
        return Some(format!("the domain may not use `{krate}`"));
    }
    let owners = OWNED_CRATES.iter().find(|(owned, _)| owned == krate).map(|(_, owners)| owners)?;
    (!owners.iter().any(|owner| lies_in(&here, owner)))
        .then(|| format!("`{krate}` is the business of {owners:?}"))
}

pub(crate) fn sources() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// `src/infra/storage/mod.rs` → `infra`, `storage`.
fn module_of(file: &Path) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = file.strip_prefix(root).unwrap().with_extension("");
    let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

fn name_of(file: &Path) -> String {
    file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn imports_run_one_way() {
    let dependencies =
        cargo_toml::names(&["dependencies"]).into_iter().map(|name| name.replace('-', "_")).collect();
    let mut violations = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        if module
            .last()
            .is_some_and(|last| last == "tests" || last == "gen" || last.starts_with("tokenbroker"))
        {
            continue; // tests in files of their own, generated code
        }
        for import in imports(&std::fs::read_to_string(&file).unwrap(), &module) {
            if let Some(problem) = violation(&module, &import, &dependencies) {
                violations.push(format!("{}: {problem}", name_of(&file)));
            }
        }
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn the_check_sees_violations_however_they_are_written() {
    let dependencies: BTreeSet<String> = ["tokio", "sqlx", "tonic", "jiff", "axum"].map(str::to_owned).into();
    let cases: &[(&str, &str, &[&str])] = &[
        ("domain::key", "use crate::application::Broker;", &["`domain` may not use `application::Broker`"]),
        ("domain::key", "use super::super::infra;", &["`domain` may not use `infra`"]),
        ("domain::key", "fn f() { tokio::spawn(g()); }", &["the domain may not use `tokio`"]),
        ("domain::key", "use jiff::Timestamp; use super::scope::ScopeSet; use std::fmt;", &[]),
        ("domain::key", "// crate::infra\n/* sqlx::query */ const A: &str = \"crate::infra::x\";", &[]),
        ("domain::key", "fn f() {} #[cfg(test)] mod tests { use crate::infra::system; }", &[]),
        ("domain::key", "#[cfg(test)] mod tests; use crate::config;", &["`domain` may not use `config`"]),
        (
            "application::refresh",
            "use crate::{domain::{key, ports::Clock}, transport::{grpc, http}};",
            &["`application` may not use `transport::grpc`", "`application` may not use `transport::http`"],
        ),
        (
            "application::refresh",
            "type T = Vec<sqlx::Error>;",
            &["`sqlx` is the business of [\"infra::storage\"]"],
        ),
        (
            "infra::oauth::client",
            "use crate::infra::storage::sqlite;",
            &["`infra::oauth` may not use `infra::storage::sqlite`"],
        ),
        ("infra::oauth::client", "use super::request; use crate::infra::outbound::Http;", &[]),
        (
            "infra::outbound::http",
            "use crate::infra::oauth::HttpOAuthClient;",
            &["`infra::outbound` may not use `infra::oauth::HttpOAuthClient`"],
        ),
        (
            "infra::storage::sqlite",
            "macro_rules! m { () => { crate::application::x() } }",
            &["`infra::storage` may not use `application::x`"],
        ),
        (
            "transport::http::callback",
            "use tonic::Status;",
            &["`tonic` is the business of [\"transport::grpc\", \"gen\"]"],
        ),
        ("transport::http::callback", "use axum as a; axum::Router::new();", &[]),
        ("cli::serve", "use crate::infra::storage; use sqlx::query;", &[]),
        (
            "novelty",
            "use crate::domain::key;",
            &["module `novelty` is not in the table of tests/it/architecture.rs and src/lib.rs"],
        ),
    ];
    for (module, source, expected) in cases {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        let found: Vec<String> = imports(source, &module)
            .iter()
            .filter_map(|import| violation(&module, import, &dependencies))
            .collect();
        assert_eq!(found, *expected, "{source}");
    }
}

#[test]
fn files_stay_small() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|file| !file.iter().any(|part| part == "gen"))
        .map(|file| (name_of(file), std::fs::read_to_string(file).unwrap().lines().count()))
        .filter(|(name, lines)| *lines > MAX_LINES && !LONG_FILES.contains(&name.as_str()))
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines:\n{}", long.join("\n"));
}
