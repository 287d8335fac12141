//! The tables.

use token_broker::r#gen::v1::{
    BeginOAuthRequest, ConsentOptions, GetCredentialRequest, ImportCredentialRequest, ListCredentialsRequest,
    ListProvidersRequest, ProviderAccount, RefreshRequest, RevokeRequest,
};
use tonic::Code;

use super::keys::rows;
use super::{FORBIDDEN, NO_PROVIDER, NO_SERVICE, Row, Stage, invalid, run_table};
use crate::support::doors::{BOBS, POWERLESS, files};

fn many(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("s{i}")).collect()
}

fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_credential() {
    fn options(m: &mut GetCredentialRequest) -> &mut ConsentOptions {
        m.begin_if_missing.get_or_insert_default()
    }
    let good = || GetCredentialRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    let mut table: Vec<Row<GetCredentialRequest>> = rows();
    let more: Vec<Row<GetCredentialRequest>> = vec![
        ("an empty scope", |m| m.scopes = vec![String::new()], invalid(&["scopes[0]"])),
        ("two scopes in one", |m| m.scopes = vec!["a".into(), "b c".into()], invalid(&["scopes[1]"])),
        ("NUL in a scope", |m| m.scopes = vec!["canary\0".into()], invalid(&["scopes[0]"])),
        ("a long scope", |m| m.scopes = vec!["x".repeat(257)], invalid(&["scopes[0]"])),
        ("65 scopes", |m| m.scopes = many(65), invalid(&["scopes"])),
        ("a negative time", |m| m.min_ttl = Some(duration(-1, 0)), invalid(&["min_ttl"])),
        ("over a day", |m| m.min_ttl = Some(duration(86_401, 0)), invalid(&["min_ttl"])),
        ("odd nanoseconds", |m| m.min_ttl = Some(duration(1, -1)), invalid(&["min_ttl"])),
        (
            "a long return URL",
            |m| options(m).return_url = format!("https://app.example/{}", "x".repeat(2_048)),
            invalid(&["begin_if_missing.return_url"]),
        ),
        (
            "a return URL elsewhere",
            |m| options(m).return_url = "https://evil.example/canary".into(),
            invalid(&["begin_if_missing.return_url"]),
        ),
        (
            "a script as return URL",
            |m| options(m).return_url = "javascript:canary".into(),
            invalid(&["begin_if_missing.return_url"]),
        ),
        (
            "a long client state",
            |m| options(m).client_state = "x".repeat(1_025),
            invalid(&["begin_if_missing.client_state"]),
        ),
        (
            "NUL in the client state",
            |m| options(m).client_state = "canary\0".into(),
            invalid(&["begin_if_missing.client_state"]),
        ),
        (
            "a long login hint",
            |m| options(m).login_hint = "x".repeat(257),
            invalid(&["begin_if_missing.login_hint"]),
        ),
        (
            "several mistakes",
            |m| {
                m.scopes = vec![String::new()];
                m.min_ttl = Some(duration(-1, 0));
                m.key = None;
            },
            invalid(&["key", "scopes[0]", "min_ttl"]),
        ),
    ];
    table.extend(more);
    run_table!(get_credential, good(), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh() {
    let good = || RefreshRequest { key: Some(files("hostile", "alice")), expected_generation: 7 };
    let mut table: Vec<Row<RefreshRequest>> = rows();
    let more: Vec<Row<RefreshRequest>> = vec![
        ("no generation", |m| m.expected_generation = 0, invalid(&["expected_generation"])),
        ("a negative generation", |m| m.expected_generation = i64::MIN, invalid(&["expected_generation"])),
    ];
    table.extend(more);
    run_table!(refresh, good(), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke() {
    let good = || RevokeRequest { key: Some(files("hostile", "alice")), ..Default::default() };
    let stage = run_table!(revoke, good(), rows::<RevokeRequest>());
    assert_eq!(stage.doors.provider.requests_at("/revoke").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn begin_oauth() {
    fn options(m: &mut BeginOAuthRequest) -> &mut ConsentOptions {
        m.options.get_or_insert_default()
    }
    let good = || BeginOAuthRequest {
        provider: "hostile".into(),
        user_id: "alice".into(),
        services: vec!["files".into()],
        options: Some(ConsentOptions {
            return_url: "https://app.example/chat/1".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let table: Vec<Row<BeginOAuthRequest>> = vec![
        ("nothing", |m| *m = BeginOAuthRequest::default(), invalid(&["provider", "user_id", "services"])),
        ("NUL in the provider", |m| m.provider = "canary\0".into(), invalid(&["provider"])),
        ("a long provider", |m| m.provider = "x".repeat(65), invalid(&["provider"])),
        ("an unknown provider", |m| m.provider = "canary".into(), NO_PROVIDER),
        ("an empty user", |m| m.user_id.clear(), invalid(&["user_id"])),
        ("NUL in the user", |m| m.user_id = "canary\0".into(), invalid(&["user_id"])),
        ("a long user", |m| m.user_id = "x".repeat(257), invalid(&["user_id"])),
        ("no service", |m| m.services.clear(), invalid(&["services"])),
        ("33 services", |m| m.services = many(33), invalid(&["services"])),
        ("a bad service", |m| m.services.push("A canary".into()), invalid(&["services[1]"])),
        ("an unknown service", |m| m.services.push("canary".into()), NO_SERVICE),
        ("a long account", |m| m.account = "x".repeat(257), invalid(&["account"])),
        ("a bad scope", |m| m.scopes = vec!["canary canary".into()], invalid(&["scopes[0]"])),
        ("65 scopes", |m| m.scopes = many(65), invalid(&["scopes"])),
        (
            "a return URL on another host",
            |m| options(m).return_url = "https://app.example.evil.example/chat".into(),
            invalid(&["options.return_url"]),
        ),
        (
            "a return URL on another path",
            |m| options(m).return_url = "https://app.example/chatter".into(),
            invalid(&["options.return_url"]),
        ),
        (
            "a return URL with a user",
            |m| options(m).return_url = "https://app.example@evil.example/chat".into(),
            invalid(&["options.return_url"]),
        ),
        (
            "a relative return URL",
            |m| options(m).return_url = "//app.example/chat".into(),
            invalid(&["options.return_url"]),
        ),
        (
            "a long client state",
            |m| options(m).client_state = "x".repeat(1_025),
            invalid(&["options.client_state"]),
        ),
        (
            "a bad login hint",
            |m| options(m).login_hint = "\u{1b}[2J".into(),
            invalid(&["options.login_hint"]),
        ),
    ];
    run_table!(begin_o_auth, good(), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_credentials() {
    let good = || ListCredentialsRequest {
        provider: "hostile".into(),
        user_id: "alice".into(),
        ..Default::default()
    };
    let table: Vec<Row<ListCredentialsRequest>> = vec![
        ("NUL in the user", |m| m.user_id = "canary\0".into(), invalid(&["user_id"])),
        ("a long user", |m| m.user_id = "x".repeat(257), invalid(&["user_id"])),
        ("a bad provider", |m| m.provider = "A canary".into(), invalid(&["provider"])),
        ("an unknown provider", |m| m.provider = "canary".into(), NO_PROVIDER),
        ("a bad scope", |m| m.covering_scopes = vec!["\"".into()], invalid(&["covering_scopes[0]"])),
        ("65 scopes", |m| m.covering_scopes = many(65), invalid(&["covering_scopes"])),
        ("a negative page size", |m| m.page_size = -1, invalid(&["page_size"])),
        ("a large page size", |m| m.page_size = 1_001, invalid(&["page_size"])),
        ("a made-up page token", |m| m.page_token = "canary".into(), invalid(&["page_token"])),
        ("a long page token", |m| m.page_token = "x".repeat(4_097), invalid(&["page_token"])),
        ("NUL in the page token", |m| m.page_token = "canary\0".into(), invalid(&["page_token"])),
    ];
    let stage = run_table!(list_credentials, good(), table);
    let nobody = ListCredentialsRequest { user_id: String::new(), ..good() };
    // By one who acts for bob, it is his.
    let his = stage.doors.client(BOBS).await.list_credentials(nobody).await.unwrap().into_inner();
    assert!(his.credentials.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn import_credential() {
    fn account(m: &mut ImportCredentialRequest) -> &mut ProviderAccount {
        m.account.get_or_insert_default()
    }
    let good = || ImportCredentialRequest {
        key: Some(files("other", "alice")),
        access_token: "at-9".into(),
        refresh_token: "rt-9".into(),
        ..Default::default()
    };
    let mut table: Vec<Row<ImportCredentialRequest>> = rows();
    let more: Vec<Row<ImportCredentialRequest>> = vec![
        ("no access token", |m| m.access_token.clear(), invalid(&["access_token"])),
        ("a long access token", |m| m.access_token = "x".repeat(16 * 1024 + 1), invalid(&["access_token"])),
        ("NUL in the access token", |m| m.access_token = "canary\0".into(), invalid(&["access_token"])),
        (
            "a header in the access token",
            |m| m.access_token = "canary\r\nX: y".into(),
            invalid(&["access_token"]),
        ),
        (
            "a long refresh token",
            |m| m.refresh_token = "x".repeat(16 * 1024 + 1),
            invalid(&["refresh_token"]),
        ),
        ("letters beyond ASCII", |m| m.refresh_token = "canary\u{e9}".into(), invalid(&["refresh_token"])),
        ("a bad token type", |m| m.token_type = "Bearer canary".into(), invalid(&["token_type"])),
        (
            "a time that is none",
            |m| m.expire_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
            invalid(&["expire_time"]),
        ),
        (
            "expired without a refresh token",
            |m| {
                m.refresh_token.clear();
                m.expire_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
            },
            invalid(&["expire_time"]),
        ),
        ("a bad scope", |m| m.scopes = vec!["canary canary".into()], invalid(&["scopes[0]"])),
        ("65 scopes", |m| m.scopes = many(65), invalid(&["scopes"])),
        ("a long subject", |m| account(m).subject = "x".repeat(257), invalid(&["account.subject"])),
        ("NUL in the label", |m| account(m).label = "canary\0".into(), invalid(&["account.label"])),
        (
            "33 extra values",
            |m| m.extra = many(33).into_iter().map(|name| (name, String::new())).collect(),
            invalid(&["extra"]),
        ),
        (
            "a long extra value",
            |m| m.extra = [("a".to_owned(), "x".repeat(4_097))].into(),
            invalid(&["extra"]),
        ),
        (
            "a bad name of an extra value",
            |m| m.extra = [("canary canary".to_owned(), String::new())].into(),
            invalid(&["extra"]),
        ),
        (
            "a credential that is in order",
            |m| m.key = Some(files("hostile", "alice")),
            (Code::FailedPrecondition, "CREDENTIAL_EXISTS", &[]),
        ),
    ];
    table.extend(more);
    run_table!(import_credential, good(), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_providers() {
    let stage = Stage::set().await;
    let answer = stage.doors.client(POWERLESS).await.list_providers(ListProvidersRequest {}).await;
    stage.refused("without the action", answer, FORBIDDEN).await;
    let seen = stage.doors.client(BOBS).await.list_providers(ListProvidersRequest {}).await.unwrap();
    let ids: Vec<_> = seen.into_inner().providers.into_iter().map(|provider| provider.id).collect();
    assert_eq!(ids, ["hostile"], "only what the caller may use");
}
