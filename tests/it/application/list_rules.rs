//! Lists by rules: what the database filters, what is looked at row by row, and pages over both.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use token_broker::application::types::ListInput;
use token_broker::domain::access_policy::{Action, Allowed, Prefix, Principal, Rule, UserRule};
use token_broker::domain::key::{ProviderId, ServiceId, UserId};
use token_broker::domain::scope::ScopeSet;

use crate::support::rig::{Rig, RigOptions, caller, rights, user_service};

fn only<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> Allowed<T> {
    Allowed::Only(items.into_iter().collect())
}

fn exact(id: &str) -> UserRule {
    UserRule::Exact(UserId::new(id).unwrap())
}

fn prefix(text: &str) -> UserRule {
    UserRule::Prefix(Prefix::new(text).unwrap())
}

fn at(provider: &str, users: &[UserRule]) -> Rule {
    Rule {
        actions: only([Action::ListCredentials]),
        providers: only([ProviderId::new(provider).unwrap()]),
        users: only(users.iter().cloned()),
        ..Rule::everything()
    }
}

/// All pages, as `provider/user`; and every token on the way, decoded.
async fn walk(rig: &Rig, principal: &Principal, page_size: u32) -> (Vec<String>, String) {
    let (mut seen, mut tokens, mut page_token) = (Vec::new(), String::new(), None);
    loop {
        let input = ListInput {
            user: None,
            provider: None,
            covering_scopes: ScopeSet::default(),
            page_size,
            page_token,
        };
        let page = rig.broker.list_credentials(principal, input).await.unwrap();
        assert!(page.credentials.len() <= page_size as usize);
        seen.extend(page.credentials.iter().map(|row| format!("{}/{}", row.key.provider, row.key.user)));
        let Some(token) = page.next_page_token else { return (seen, tokens) };
        assert_eq!(page.credentials.len(), page_size as usize, "only the last page is short");
        tokens += &String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap()).unwrap();
        page_token = Some(token);
    }
}

#[tokio::test]
async fn a_list_without_a_user_shows_what_the_rules_cover() {
    let rig = Rig::with(RigOptions { bolt: true, ..RigOptions::default() }).await;
    for provider in ["acme", "bolt"] {
        for user in ["alice", "bob", "secret-1", "team/a", "team/b", "zoe"] {
            let mut input = rig.import_input();
            input.key = user_service(user, "mail");
            input.key.provider = ProviderId::new(provider).unwrap();
            rig.broker.import_credential(&rig.caller, input).await.unwrap();
        }
        for n in 0..80 {
            let mut input = rig.import_input();
            input.key = user_service(&format!("secret-x{n:03}"), "mail");
            input.key.provider = ProviderId::new(provider).unwrap();
            rig.broker.import_credential(&rig.caller, input).await.unwrap();
        }
    }
    let with = |rules: Vec<Rule>| {
        let mut principal = caller("lister");
        rights(&mut principal).rules = rules;
        principal
    };
    // Each rule has users of its own at a provider of its own: the database is asked for more than may be seen.
    let crossed = with(vec![at("acme", &[prefix("team/")]), at("bolt", &[exact("alice"), exact("zoe")])]);
    for page_size in [1, 2, 3, 100] {
        let (seen, tokens) = walk(&rig, &crossed, page_size).await;
        assert_eq!(seen, ["acme/team/a", "acme/team/b", "bolt/alice", "bolt/zoe"], "pages of {page_size}");
        assert!(!tokens.contains("secret"), "{tokens}");
    }
    let own = Principal { user: Some(UserId::new("bob").unwrap()), ..with(vec![Rule::everything()]) };
    assert_eq!(walk(&rig, &own, 1).await.0, ["acme/bob", "bolt/bob"]);
    let mut elsewhere = at("acme", &[exact("alice")]);
    elsewhere.services = only([ServiceId::new("admin").unwrap()]);
    assert!(walk(&rig, &with(vec![elsewhere.clone()]), 5).await.0.is_empty(), "another grant's service");
    elsewhere.services = only([ServiceId::new("files").unwrap()]);
    assert_eq!(walk(&rig, &with(vec![elsewhere]), 5).await.0, ["acme/alice"], "the same grant");
    let everything = walk(&rig, &with(vec![Rule::everything()]), 50).await.0;
    assert_eq!(everything.len(), 2 * 86);
}

#[tokio::test]
async fn providers_are_shown_with_the_services_of_a_rule() {
    let rig = Rig::with(RigOptions { bolt: true, ..RigOptions::default() }).await;
    let mut principal = caller("lister");
    let mail = Rule {
        providers: only([ProviderId::new("acme").unwrap()]),
        services: only([ServiceId::new("mail").unwrap(), ServiceId::new("nosuch").unwrap()]),
        ..Rule::everything()
    };
    let nothing = Rule {
        providers: only([ProviderId::new("bolt").unwrap()]),
        services: only([ServiceId::new("nosuch").unwrap()]),
        ..Rule::everything()
    };
    rights(&mut principal).rules = vec![mail, nothing];
    let shown = rig.broker.list_providers(&principal).await.unwrap();
    let shown: Vec<_> = shown
        .iter()
        .map(|view| {
            (
                view.provider.id.as_str(),
                view.provider.services.keys().map(ServiceId::as_str).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(shown, [("acme", vec!["mail"])]);
}
