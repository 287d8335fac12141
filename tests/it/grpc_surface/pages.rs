//! How much one answer holds, whatever providers and callers have put into the rows.

use prost::Message as _;
use serde_json::json;
use token_broker::application::types::MAX_PAGE_BYTES;
use token_broker::domain::token_set::MAX_GRANTED_SCOPES;
use token_broker::r#gen::v1::get_credential_response::Result as GetResult;
use token_broker::r#gen::v1::{
    GetCredentialRequest, ImportCredentialRequest, ListCredentialsRequest, RefreshRequest,
};

use crate::support::doors::{AGENT, Doors, files};
use crate::support::hostile::Reply;

/// Rows of the largest kind that can be imported: 16 KiB of scopes each.
const ROWS: usize = 150;

/// What a client has to be able to read: the page, and what is about it.
const LARGEST: usize = MAX_PAGE_BYTES + 4_096;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_when_it_is_large_and_all_rows_come_once() {
    let doors = Doors::open().await;
    let mut client = doors.client(AGENT).await;
    let scopes: Vec<_> = (0..64).map(|n| format!("{n:x>256}")).collect();
    let users: Vec<_> = (0..ROWS).map(|n| format!("user-{n:03}")).collect();
    for user in &users {
        let request = ImportCredentialRequest {
            key: Some(files("hostile", user)),
            access_token: "canary-at".to_owned(),
            scopes: scopes.clone(),
            ..Default::default()
        };
        client.import_credential(request).await.unwrap();
    }
    for (page_size, pages) in [(1_000, 3), (149, 3), (63, 3), (0, 3), (7, 22)] {
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        let mut request = ListCredentialsRequest { page_size, ..Default::default() };
        loop {
            let page = client.list_credentials(request.clone()).await.unwrap().into_inner();
            sizes.push(page.encoded_len());
            seen.extend(page.credentials.into_iter().map(|row| row.user_id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(seen, users, "page size {page_size}");
        assert_eq!(sizes.len(), pages, "page size {page_size}: {sizes:?}");
        assert!(sizes.iter().all(|size| *size <= LARGEST), "page size {page_size}: {sizes:?}");
    }
}

/// The whole way of a hostile answer to a refresh: what is kept, what is handed out, and what is presented next.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_answers_without_measure_keeps_its_pair_alone() {
    let doors = Doors::open().await;
    doors.connect(AGENT, "alice", "canary-at-1", "canary-rt-1").await;
    let before = doors.rows().await.len();
    let mut client = doors.client(AGENT).await;
    let mut scopes: Vec<_> = (0..40_000).map(|n| format!("{n:05}")).collect();
    scopes.extend(["read", "write"].map(str::to_owned));
    doors.provider.push(Reply::json(
        200,
        &json!({ "access_token": "canary-at-2", "refresh_token": "canary-rt-2", "scope": scopes.join(" ") }),
    ));
    let key = || Some(files("hostile", "alice"));
    client.refresh(RefreshRequest { key: key(), expected_generation: 1 }).await.unwrap();
    doors.settle().await;
    let get = GetCredentialRequest { key: key(), ..Default::default() };
    let answer = client.get_credential(get).await.unwrap().into_inner().result;
    let Some(GetResult::Credential(token)) = answer else { panic!("no token") };
    assert_eq!((token.access_token.as_str(), token.generation), ("canary-at-2", 2));
    // What the grant had, and the first of the rest.
    let (rest, had) = token.scopes.split_at(MAX_GRANTED_SCOPES - 2);
    assert_eq!((rest, had), (&scopes[..MAX_GRANTED_SCOPES - 2], &scopes[40_000..]));
    let after = doors.rows().await.len();
    assert!(after < before + 16_384, "{before} bytes became {after}");

    doors.provider.push(Reply::tokens("canary-at-3", "canary-rt-3"));
    client.refresh(RefreshRequest { key: key(), expected_generation: 2 }).await.unwrap();
    let presented = doors.provider.requests_at("/token").pop().unwrap();
    assert_eq!(presented.param("refresh_token").as_deref(), Some("canary-rt-2"));
}
