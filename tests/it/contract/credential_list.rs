//! The contract of `CredentialStore::list`.

use token_broker::domain::access_policy::{Prefix, UserReach};
use token_broker::domain::credential::{Credential, StoredTokens};
use token_broker::domain::key::{CredentialKey, UserId};
use token_broker::domain::ports::{ListQuery, NewGrant};

use super::samples::{key, key_of, new_grant, provider, revoke_write, scopes, set, tenant, tokens};
use super::{Stores, contract};

contract!(
    pages_follow_the_order_of_keys,
    filters_are_applied_before_paging,
    users_are_among_those_named_or_begin_so,
    revoked_rows_and_other_tenants_are_left_out,
);

fn all(limit: u32) -> ListQuery {
    ListQuery {
        tenant: tenant("acme"),
        user: None,
        among: None,
        providers: None,
        covering: scopes(&[]),
        after: None,
        limit,
    }
}

async fn page(stores: &Stores, query: &ListQuery) -> Vec<CredentialKey> {
    stores.credentials.list(query.clone()).await.unwrap().into_iter().map(|row| row.key).collect()
}

/// All pages of a query, one after the other.
async fn walk(stores: &Stores, mut query: ListQuery) -> Vec<CredentialKey> {
    let mut keys = Vec::new();
    loop {
        let page = page(stores, &query).await;
        assert!(page.len() <= usize::try_from(query.limit).unwrap());
        let Some(last) = page.last() else { return keys };
        query.after = Some(last.clone());
        keys.extend(page);
    }
}

/// Users that trip over delimiters, case, length and collation.
const USERS: [&str; 14] = [
    "a",
    "a\u{1F511}",
    "A",
    "a b",
    "a/b",
    "a:b",
    "a|b",
    "a,b",
    "a'b",
    "a%",
    "a_",
    "aa",
    "\u{e9}",
    "e\u{301}",
];

async fn pages_follow_the_order_of_keys(stores: Stores) {
    let mut keys = Vec::new();
    for user in USERS {
        for (provider, grant, account) in [
            ("google", "mail", "default"),
            ("google", "mail", "work"),
            ("google", "mail", "Work"),
            ("google", "files", "default"),
            ("github", "repo", "a:b"),
        ] {
            keys.push(key_of("acme", provider, user, grant, account));
        }
    }
    for (n, key) in (1..).zip(&keys) {
        stores.connected(key.clone(), n).await;
    }
    keys.sort(); // by provider, user, grant, account, each by its bytes
    for limit in [1, 2, 3, 7, 69, 70, 71, 1000] {
        assert_eq!(walk(&stores, all(limit)).await, keys, "pages of {limit}");
    }
    for user in USERS {
        let user = UserId::new(user).unwrap();
        let own: Vec<_> = keys.iter().filter(|key| key.user == user).cloned().collect();
        for limit in [1, 2, 5] {
            let query = ListQuery { user: Some(user.clone()), ..all(limit) };
            assert_eq!(walk(&stores, query).await, own, "{user:?} in pages of {limit}");
        }
    }
    // A page may begin behind a key that is not there (any more), and behind another tenant's.
    let behind = |tenant| Some(key_of(tenant, "google", "a", "mail", "e"));
    let next = keys.iter().filter(|key| **key > behind("acme").unwrap()).take(2).cloned().collect::<Vec<_>>();
    for tenant in ["acme", "zzz"] {
        assert_eq!(page(&stores, &ListQuery { after: behind(tenant), ..all(2) }).await, next);
    }
    assert_eq!(page(&stores, &all(0)).await, []);
}

async fn filters_are_applied_before_paging(stores: Stores) {
    let grants: [(&str, &str, &[&str]); 6] = [
        ("google", "u1", &["mail.read", "mail.send"]),
        ("google", "u2", &["mail.read"]),
        ("google", "u3", &[]),
        ("github", "u1", &["repo", "mail.read"]),
        ("slack", "u1", &["mail.read", "mail.send", "chat"]),
        ("slack", "u2", &["mail", "read", "mail.readonly"]),
    ];
    for (n, (provider, user, granted)) in (1..).zip(grants) {
        let key = key_of("acme", provider, user, "g", "default");
        let tokens = StoredTokens { scopes: scopes(granted), ..tokens(n) };
        stores.stored(NewGrant { tokens, ..new_grant(key, n) }).await;
    }
    let found = async |query| {
        let keys = walk(&stores, query).await;
        keys.iter().map(|key| format!("{} {}", key.provider, key.user)).collect::<Vec<_>>()
    };
    let covering = |names: &[&str]| ListQuery { covering: scopes(names), ..all(1) };
    assert_eq!(found(covering(&["mail.read"])).await, ["github u1", "google u1", "google u2", "slack u1"]);
    assert_eq!(found(covering(&["mail.read", "mail.send"])).await, ["google u1", "slack u1"]);
    assert_eq!(found(covering(&["chat", "mail.read", "repo"])).await, [""; 0]);
    assert_eq!(found(covering(&["mail"])).await, ["slack u2"], "scopes are compared whole");
    let user = |name: &str| Some(UserId::new(name).unwrap());
    let of_user = ListQuery { user: user("u1"), ..covering(&["mail.send"]) };
    assert_eq!(found(of_user).await, ["google u1", "slack u1"]);
    let at = |names: &[&str]| Some(set(names.iter().map(|name| provider(name))));
    let two = ListQuery { providers: at(&["github", "google"]), ..covering(&["mail.read"]) };
    assert_eq!(found(two).await, ["github u1", "google u1", "google u2"]);
    let one = ListQuery { providers: at(&["slack"]), user: user("u2"), ..all(1) };
    assert_eq!(found(one).await, ["slack u2"]);
    assert_eq!(found(ListQuery { providers: at(&[]), ..all(1) }).await, [""; 0], "none is none, not all");
    let nobody = ListQuery { user: user("u"), ..all(1) };
    assert_eq!(found(nobody).await, [""; 0], "a user is no prefix");
}

async fn revoked_rows_and_other_tenants_are_left_out(stores: Stores) {
    let rows: Vec<Credential> = vec![
        stores.connected(key("alice"), 1).await,
        stores.connected(key("bob"), 2).await,
        stores.connected(key("carol"), 3).await,
    ];
    stores.connected(key_of("acme2", "google", "alice", "mail", "default"), 4).await;
    stores.connected(key_of("acm", "google", "alice", "mail", "default"), 5).await;
    stores
        .credentials
        .revoke_with_outbox(revoke_write(&key("bob"), None, super::samples::at(9)))
        .await
        .unwrap();
    let listed = stores.credentials.list(all(9)).await.unwrap();
    assert_eq!(listed, [rows[0].clone(), rows[2].clone()]);
    let nobody = ListQuery { tenant: tenant("nobody"), ..all(9) };
    assert_eq!(stores.credentials.list(nobody).await.unwrap(), []);
}

async fn users_are_among_those_named_or_begin_so(stores: Stores) {
    for (n, user) in (1..).zip(USERS) {
        stores.credentials.store_grant(new_grant(key(user), n)).await.unwrap();
    }
    let among = async |exact: &[&str], prefixes: &[&str]| {
        let among = UserReach {
            exact: exact.iter().map(|id| UserId::new(*id).unwrap()).collect(),
            prefixes: prefixes.iter().map(|text| Prefix::new(*text).unwrap()).collect(),
        };
        let keys = walk(&stores, ListQuery { among: Some(among), ..all(2) }).await;
        set(keys.into_iter().map(|key| key.user.to_string()).collect::<Vec<_>>())
    };
    let users = |users: &[&str]| set(users.iter().map(|user| (*user).to_owned()).collect::<Vec<_>>());
    assert_eq!(among(&[], &[]).await, users(&[]));
    assert_eq!(among(&["a", "A", "nobody"], &[]).await, users(&["a", "A"]));
    // As they are written: no pattern, no case, no collation.
    assert_eq!(among(&[], &["a%"]).await, users(&["a%"]));
    assert_eq!(among(&[], &["a_"]).await, users(&["a_"]));
    assert_eq!(among(&[], &["a'"]).await, users(&["a'b"]));
    assert_eq!(among(&["A"], &["a\u{1F511}", "aa"]).await, users(&["A", "a\u{1F511}", "aa"]));
    assert_eq!(among(&[], &["e"]).await, users(&["e\u{301}"]));
}
