//! Each limit of the proto, at it and one beyond it.

use super::*;
use crate::application::error::Violation;

const LEFT: Duration = Duration::from_secs(1);

fn key() -> pb::CredentialKey {
    pb::CredentialKey {
        provider: "google".to_owned(),
        user_id: "alice".to_owned(),
        service: "gmail".to_owned(),
        account: String::new(),
    }
}

fn get() -> pb::GetCredentialRequest {
    pb::GetCredentialRequest { key: Some(key()), ..Default::default() }
}

fn begin() -> pb::BeginOAuthRequest {
    pb::BeginOAuthRequest {
        provider: "google".to_owned(),
        user_id: "alice".to_owned(),
        services: vec!["gmail".to_owned()],
        ..Default::default()
    }
}

fn import() -> pb::ImportCredentialRequest {
    pb::ImportCredentialRequest { key: Some(key()), access_token: "at".to_owned(), ..Default::default() }
}

fn fields<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> Vec<String> {
    match result {
        Ok(_) => vec![],
        Err(BrokerError::InvalidArgument(violations)) => {
            assert!(!violations.is_empty());
            violations.into_iter().map(|Violation { field, .. }| field).collect()
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn strings(count: usize, each: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(each).collect()
}

#[test]
fn a_key_names_each_of_its_mistakes() {
    assert_eq!(fields(revoke(pb::RevokeRequest::default())), ["key"]);
    let empty = Some(pb::CredentialKey::default());
    assert_eq!(
        fields(revoke(pb::RevokeRequest { key: empty, ..Default::default() })),
        ["key.provider", "key.user_id", "key.service"]
    );
    let bad = Some(pb::CredentialKey {
        provider: "Goo gle".to_owned(),
        user_id: "a\0b".to_owned(),
        service: "x".repeat(65),
        account: " a".to_owned(),
    });
    assert_eq!(
        fields(revoke(pb::RevokeRequest { key: bad, ..Default::default() })),
        ["key.provider", "key.user_id", "key.service", "key.account"]
    );
}

#[test]
fn an_absent_account_is_the_default_one() {
    let (parsed, force) = revoke(pb::RevokeRequest { key: Some(key()), ..Default::default() }).unwrap();
    assert!(!force);
    assert_eq!(parsed.account.as_str(), "default");
}

#[test]
fn all_mistakes_of_a_request_come_at_once() {
    let request = pb::GetCredentialRequest {
        key: Some(pb::CredentialKey { provider: "google".to_owned(), ..Default::default() }),
        scopes: vec!["ok".to_owned(), String::new(), "a b".to_owned()],
        min_ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        begin_if_missing: Some(pb::ConsentOptions {
            return_url: "x".repeat(2_049),
            client_state: "x".repeat(1_025),
            login_hint: "x".repeat(257),
            binding: 99,
        }),
    };
    assert_eq!(
        fields(get_credential(request, LEFT)),
        [
            "key.user_id",
            "key.service",
            "scopes[1]",
            "scopes[2]",
            "min_ttl",
            "begin_if_missing.return_url",
            "begin_if_missing.client_state",
            "begin_if_missing.login_hint",
            "begin_if_missing.binding",
        ]
    );
}

#[test]
fn descriptions_never_repeat_a_value() {
    let mut request = import();
    request.access_token = "canary\n".to_owned();
    request.refresh_token = "canary\u{e9}".to_owned();
    request.scopes = vec!["canary canary".to_owned()];
    request.token_type = "canary canary".to_owned();
    request.extra.insert("canary canary".to_owned(), "canary".to_owned());
    let error = import_credential(request).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
}

#[test]
fn get_credential_limits() {
    let ok = |change: fn(&mut pb::GetCredentialRequest)| {
        let mut request = get();
        change(&mut request);
        fields(get_credential(request, LEFT))
    };
    assert!(ok(|_| ()).is_empty());
    assert!(ok(|r| r.scopes = strings(64, |i| format!("s{i}"))).is_empty());
    assert_eq!(ok(|r| r.scopes = strings(65, |i| format!("s{i}"))), ["scopes"]);
    let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    assert!(ok(move |r| r.min_ttl = Some(prost_types::Duration { seconds: 86_400, nanos: 0 })).is_empty());
    assert_eq!(ok(|r| r.min_ttl = Some(prost_types::Duration { seconds: 86_400, nanos: 1 })), ["min_ttl"]);
    let mut request = get();
    request.min_ttl = ttl(90, 500_000_000);
    request.begin_if_missing = Some(pb::ConsentOptions::default());
    let input = get_credential(request, LEFT).unwrap();
    assert_eq!(input.min_ttl, Duration::from_millis(90_500));
    assert_eq!(input.begin_if_missing, Some(ConsentInput::default()));
    assert_eq!(input.time_left, Some(LEFT));
    assert_eq!(get_credential(get(), LEFT).unwrap().begin_if_missing, None);
}

#[test]
fn refresh_needs_a_generation() {
    let request = |expected_generation| pb::RefreshRequest { key: Some(key()), expected_generation };
    for bad in [0, -1, i64::MIN] {
        assert_eq!(fields(refresh(request(bad), LEFT)), ["expected_generation"]);
    }
    assert_eq!(refresh(request(7), LEFT).unwrap().expected_generation, 7);
}

#[test]
fn begin_limits() {
    let check = |change: &dyn Fn(&mut pb::BeginOAuthRequest)| {
        let mut request = begin();
        change(&mut request);
        fields(begin_oauth(request))
    };
    assert!(check(&|_| ()).is_empty());
    assert_eq!(check(&|r| r.services.clear()), ["services"]);
    assert!(check(&|r| r.services = strings(32, |i| format!("s{i}"))).is_empty());
    assert_eq!(check(&|r| r.services = strings(33, |i| format!("s{i}"))), ["services"]);
    assert_eq!(check(&|r| r.services = vec!["ok".to_owned(), "No".to_owned()]), ["services[1]"]);
    assert_eq!(check(&|r| r.provider.clear()), ["provider"]);
    assert_eq!(check(&|r| r.user_id = "é".repeat(129)), ["user_id"]);
    assert_eq!(check(&|r| r.account = "a\u{7}".to_owned()), ["account"]);
    let option = |change: &dyn Fn(&mut pb::ConsentOptions)| {
        let mut options = pb::ConsentOptions::default();
        change(&mut options);
        check(&|r| r.options = Some(options.clone()))
    };
    assert!(option(&|o| o.return_url = "x".repeat(2_048)).is_empty());
    assert_eq!(option(&|o| o.return_url = "a\nb".to_owned()), ["options.return_url"]);
    assert!(option(&|o| o.client_state = "é".repeat(512)).is_empty());
    assert_eq!(option(&|o| o.client_state = "a\0".to_owned()), ["options.client_state"]);
    assert!(option(&|o| o.login_hint = "x".repeat(256)).is_empty());
    assert_eq!(option(&|o| o.login_hint = "\u{1b}[2J".to_owned()), ["options.login_hint"]);
}

#[test]
fn list_limits() {
    let page = |page_size| list_credentials(pb::ListCredentialsRequest { page_size, ..Default::default() });
    assert_eq!(page(0).unwrap().page_size, 50);
    assert_eq!(page(1).unwrap().page_size, 1);
    assert_eq!(page(1_000).unwrap().page_size, 1_000);
    for bad in [-1, 1_001, i32::MIN, i32::MAX] {
        assert_eq!(fields(page(bad)), ["page_size"]);
    }
    let request = pb::ListCredentialsRequest {
        user_id: "a\0".to_owned(),
        provider: "A".to_owned(),
        covering_scopes: strings(65, |i| format!("s{i}")),
        page_size: 5_000,
        page_token: "x".repeat(4_097),
    };
    assert_eq!(
        fields(list_credentials(request)),
        ["user_id", "provider", "covering_scopes", "page_size", "page_token"]
    );
}

#[test]
fn import_limits() {
    let check = |change: &dyn Fn(&mut pb::ImportCredentialRequest)| {
        let mut request = import();
        change(&mut request);
        fields(import_credential(request))
    };
    assert!(check(&|_| ()).is_empty());
    assert_eq!(check(&|r| r.access_token.clear()), ["access_token"]);
    assert!(check(&|r| r.access_token = "x".repeat(16 * 1024)).is_empty());
    assert_eq!(check(&|r| r.access_token = "x".repeat(16 * 1024 + 1)), ["access_token"]);
    assert_eq!(check(&|r| r.refresh_token = "x".repeat(16 * 1024 + 1)), ["refresh_token"]);
    assert_eq!(check(&|r| r.refresh_token = "a\r\nX: y".to_owned()), ["refresh_token"]);
    assert_eq!(check(&|r| r.token_type = "x".repeat(65)), ["token_type"]);
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    assert!(check(&|r| r.expire_time = time(0)).is_empty());
    assert_eq!(check(&|r| r.expire_time = time(i64::MAX)), ["expire_time"]);
    let account = |subject: &str, label: &str| {
        let account = pb::ProviderAccount { subject: subject.to_owned(), label: label.to_owned() };
        check(&|r| r.account = Some(account.clone()))
    };
    assert!(account(&"x".repeat(256), &"x".repeat(256)).is_empty());
    assert_eq!(account(&"x".repeat(257), "a\0"), ["account.subject", "account.label"]);
    let extra = |values: &[(String, String)]| check(&|r| r.extra = values.iter().cloned().collect());
    let many = |count: usize| (0..count).map(|i| (format!("k{i}"), "v".to_owned())).collect::<Vec<_>>();
    assert!(extra(&many(32)).is_empty());
    assert_eq!(extra(&many(33)), ["extra"]);
    assert!(extra(&[("instance_url".to_owned(), "x".repeat(4_096))]).is_empty());
    assert_eq!(extra(&[("instance_url".to_owned(), "x".repeat(4_097))]), ["extra"]);
    for name in [String::new(), "x".repeat(65), "a b".to_owned(), "a\0".to_owned()] {
        assert_eq!(extra(&[(name, String::new())]), ["extra"]);
    }
    assert_eq!(extra(&[("a".to_owned(), "\u{7}".to_owned())]), ["extra"]);
}

#[test]
fn an_import_is_read_whole() {
    let mut request = import();
    request.refresh_token = "rt".to_owned();
    request.scopes = vec!["b".to_owned(), "a".to_owned(), "a".to_owned()];
    request.account = Some(pb::ProviderAccount { subject: "42".to_owned(), label: String::new() });
    request.overwrite = true;
    let input = import_credential(request).unwrap();
    assert_eq!(input.access_token.expose_secret(), "at");
    assert_eq!(input.refresh_token.unwrap().expose_secret(), "rt");
    assert_eq!(input.token_type, "Bearer");
    assert_eq!(input.scopes.to_strings(), ["a", "b"]);
    assert_eq!(input.account, ProviderAccount { subject: Some("42".to_owned()), label: None });
    assert!(input.overwrite && input.expires_at.is_none() && input.extra.is_empty());
}

#[test]
fn flow_ids_are_uuids_in_their_usual_form() {
    let id = "0190f0a8-0000-4000-8000-00000000002a";
    assert_eq!(flow_id(id).unwrap().to_string(), id);
    let braced = format!("{{{id}}}");
    let simple = id.replace('-', "");
    for bad in ["", "x", &braced, &simple, "0190f0a8-0000-4000-8000-00000000002g", &format!("{id} ")] {
        assert_eq!(fields(flow_id(bad)), ["flow_id"], "{bad:?}");
    }
}

#[test]
fn a_completion_names_what_it_lacks_and_takes_halves_of_any_form() {
    let all = ["flow_id", "flow_secret", "completion_code", "user_id"];
    assert_eq!(fields(complete_oauth(pb::CompleteOAuthRequest::default(), LEFT)), all);
    let long = pb::CompleteOAuthRequest {
        flow_id: "not an id".to_owned(),
        flow_secret: "x".repeat(257),
        completion_code: "x".repeat(257),
        user_id: "a\0".to_owned(),
    };
    assert_eq!(fields(complete_oauth(long, LEFT)), all);
    // Whether they are right, CompleteOAuth says, and says of all wrong ones the same.
    let odd = pb::CompleteOAuthRequest {
        flow_id: "0190f0a8-0000-4000-8000-00000000002a".to_owned(),
        flow_secret: "\0".to_owned(),
        completion_code: "\u{e9}".to_owned(),
        user_id: "alice".to_owned(),
    };
    assert!(complete_oauth(odd, LEFT).is_ok());
}
