use std::collections::BTreeSet;

use super::*;
use crate::domain::key::{ProviderId, ServiceId};
use crate::domain::scope::{Scope, ScopeSet};

fn caller(rules: Vec<Rule>) -> Caller {
    Caller::new(CallerId::new("c").unwrap(), TenantId::new("t").unwrap(), rules)
}

fn plain(rules: Vec<Rule>) -> Principal {
    caller(rules).into()
}

fn with_token(own: &str, rules: Vec<Rule>) -> Principal {
    Principal { user: Some(user(own)), ..plain(rules) }
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn provider(id: &str) -> ProviderId {
    ProviderId::new(id).unwrap()
}

fn service(id: &str) -> ServiceId {
    ServiceId::new(id).unwrap()
}

fn scopes(texts: &[&str]) -> ScopeSet {
    texts.iter().map(|text| Scope::new(*text).unwrap()).collect()
}

fn only<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> Allowed<T> {
    Allowed::Only(items.into_iter().collect())
}

fn prefix(text: &str) -> Prefix {
    Prefix::new(text).unwrap()
}

/// A call for alice's mail at google.
fn decide(principal: &Principal, action: Action) -> Decision {
    let (provider, service, user) = (provider("google"), service("mail"), user("alice"));
    principal.decide(&Question::about(action, &provider, [&service], &user))
}

const ALLOWED: Decision = Decision::Allowed { rule: 0 };

#[test]
fn policy_denies_by_default() {
    for principal in [plain(vec![]), with_token("alice", vec![])] {
        for action in Action::ALL {
            assert_eq!(decide(&principal, action), Decision::Denied);
            assert_eq!(principal.decide(&Question::of(action)), Decision::Denied);
        }
    }
    let everything = plain(vec![Rule::everything()]);
    for action in Action::ALL {
        assert_eq!(decide(&everything, action), ALLOWED);
    }
}

/// Each narrows a rule that allows everything, so that it does not allow alice's mail at google any more.
#[test]
fn each_part_of_a_rule_can_be_what_refuses() {
    let get = Action::GetCredential;
    let elsewhere: Vec<(Rule, Mismatch)> = vec![
        (Rule { actions: only([Action::Refresh]), ..Rule::everything() }, Mismatch::Action),
        (Rule { providers: only([provider("github")]), ..Rule::everything() }, Mismatch::Provider),
        (
            Rule { services: only([service("calendar")]), ..Rule::everything() },
            Mismatch::Service(service("mail")),
        ),
        (Rule { users: only([UserRule::Exact(user("alice2"))]), ..Rule::everything() }, Mismatch::User),
        (Rule { users: only([UserRule::Prefix(prefix("alice/"))]), ..Rule::everything() }, Mismatch::User),
        (Rule { users: only([UserRule::Own]), ..Rule::everything() }, Mismatch::User),
        (Rule { assert_user_id: false, ..Rule::everything() }, Mismatch::BareUserId),
    ];
    let (google, mail, alice) = (provider("google"), service("mail"), user("alice"));
    let question = Question::about(get, &google, [&mail], &alice);
    for (rule, why) in &elsewhere {
        let principal = plain(vec![rule.clone()]);
        assert_eq!(principal.decide(&question), Decision::Denied, "{rule:?}");
        assert_eq!(principal.explain(&question), [Some(why.clone())]);
    }
    // All together still allow nothing: rules are not added up.
    let all: Vec<_> = elsewhere.into_iter().map(|(rule, _)| rule).collect();
    let count = all.len();
    assert_eq!(plain(all.clone()).decide(&question), Decision::Denied);
    let with_one_more = [all, vec![Rule::everything()]].concat();
    assert_eq!(plain(with_one_more).decide(&question), Decision::Allowed { rule: count });
}

#[test]
fn users_are_exact_prefixed_own_or_any() {
    let rule = |users| Rule { users, ..Rule::everything() };
    let get = Action::GetCredential;
    for users in [
        Allowed::Any,
        only([UserRule::Exact(user("alice"))]),
        only([UserRule::Prefix(prefix("ali"))]),
        only([UserRule::Prefix(prefix("alice"))]),
        only([UserRule::Own, UserRule::Exact(user("bob")), UserRule::Exact(user("alice"))]),
    ] {
        assert_eq!(decide(&plain(vec![rule(users.clone())]), get), ALLOWED, "{users:?}");
        assert_eq!(decide(&with_token("alice", vec![rule(users)]), get), ALLOWED);
    }
    assert_eq!(decide(&with_token("alice", vec![rule(only([UserRule::Own]))]), get), ALLOWED);
}

#[test]
fn asserting_a_bare_user_id_is_a_permission_of_its_own() {
    let bound = vec![Rule { assert_user_id: false, ..Rule::everything() }];
    let get = Action::GetCredential;
    assert_eq!(decide(&plain(bound.clone()), get), Decision::Denied);
    assert_eq!(decide(&with_token("alice", bound.clone()), get), ALLOWED);
    // A token is for its own user alone, whatever else the caller may.
    for rules in [bound.clone(), vec![Rule::everything()]] {
        assert_eq!(decide(&with_token("bob", rules), get), Decision::Denied);
    }
    // The list of providers is nobody's.
    assert_eq!(plain(bound).decide(&Question::of(Action::ListProviders)), ALLOWED);
}

#[test]
fn scopes_are_what_a_call_names() {
    let rule = |scopes| vec![Rule { scopes, ..Rule::everything() }];
    let narrow =
        only([ScopeRule::Exact(Scope::new("mail.read").unwrap()), ScopeRule::Prefix(prefix("calendar."))]);
    let (google, mail, alice) = (provider("google"), service("mail"), user("alice"));
    for (asked, allowed) in [
        (scopes(&[]), true),
        (scopes(&["mail.read"]), true),
        (scopes(&["mail.read", "calendar.read"]), true),
        (scopes(&["mail.readonly"]), false),
        (scopes(&["mail.read", "mail.send"]), false),
        (scopes(&["calendar"]), false),
    ] {
        let question = Question::about(Action::GetCredential, &google, [&mail], &alice).asking(&asked);
        assert_eq!(plain(rule(narrow.clone())).decide(&question).is_allowed(), allowed, "{asked:?}");
        assert!(plain(rule(Allowed::Any)).decide(&question).is_allowed());
        assert_eq!(plain(rule(only([]))).decide(&question).is_allowed(), asked.is_empty());
    }
}

#[test]
fn one_rule_must_allow_all_services() {
    let (google, alice) = (provider("google"), user("alice"));
    let both = [service("mail"), service("calendar")];
    let question = Question::about(Action::BeginOauth, &google, &both, &alice);
    let one = |id: &str| Rule { services: only([service(id)]), ..Rule::everything() };
    assert_eq!(plain(vec![one("mail"), one("calendar")]).decide(&question), Decision::Denied);
    let together = Rule { services: only(both.clone()), ..Rule::everything() };
    assert_eq!(plain(vec![one("mail"), together]).decide(&question), Decision::Allowed { rule: 1 });
}

#[test]
fn a_suspended_caller_may_nothing() {
    for suspension in [Suspension::Caller, Suspension::Tenant] {
        let caller = Caller { suspension: Some(suspension), ..caller(vec![Rule::everything()]) };
        assert_eq!(decide(&caller.into(), Action::GetCredential), Decision::Denied);
    }
}

#[test]
fn rules_are_written_as_the_configuration_writes_them() {
    let rule = Rule {
        actions: only([Action::GetCredential]),
        providers: Allowed::Any,
        services: only([service("mail")]),
        scopes: only([ScopeRule::Prefix(prefix("calendar."))]),
        users: only([UserRule::Own, UserRule::Exact(user("alice")), UserRule::Prefix(prefix("team-a/"))]),
        assert_user_id: true,
    };
    let json = serde_json::json!({
        "actions": ["get_credential"],
        "providers": "any",
        "services": ["mail"],
        "scopes": [{ "prefix": "calendar." }],
        "users": ["own", { "exact": "alice" }, { "prefix": "team-a/" }],
        "assert_user_id": true,
    });
    assert_eq!(serde_json::to_value(&rule).unwrap(), json);
    assert_eq!(serde_json::from_value::<Rule>(json).unwrap(), rule);
    let least = serde_json::json!({ "actions": "any", "providers": "any", "users": "any" });
    let least: Rule = serde_json::from_value(least).unwrap();
    assert_eq!(least, Rule { assert_user_id: false, ..Rule::everything() });
    for bad in [
        r#"{"actions":"any","providers":"any"}"#,
        r#"{"actions":"all","providers":"any","users":"any"}"#,
        r#"{"actions":["fly"],"providers":"any","users":"any"}"#,
        r#"{"actions":"any","providers":["A"],"users":"any"}"#,
        r#"{"actions":"any","providers":"any","users":[{"prefix":""}]}"#,
        r#"{"actions":"any","providers":"any","users":"any","deny":true}"#,
    ] {
        assert!(serde_json::from_str::<Rule>(bad).is_err(), "{bad}");
    }
    assert!(Action::ALL.iter().all(|action| action.name().parse() == Ok(*action)));
    assert!(Action::ALL.iter().all(|action| serde_json::to_value(action).unwrap() == action.name()));
}

fn small<T: Ord + Clone + std::fmt::Debug + 'static>(
    items: &[T],
) -> impl proptest::strategy::Strategy<Value = Allowed<T>> {
    use proptest::prelude::*;
    prop_oneof![
        1 => Just(Allowed::Any),
        3 => proptest::sample::subsequence(items.to_vec(), 0..=items.len()).prop_map(only),
    ]
}

proptest::proptest! {
    /// What the database is asked for is never less than what may be seen, and what may be seen is what may be asked for.
    #[test]
    fn rows_that_are_seen_are_within_reach(
        rules in proptest::collection::vec(
            (
                small(&[Action::ListCredentials, Action::GetCredential]),
                small(&[provider("google"), provider("github")]),
                small(&[service("mail"), service("files")]),
                small(&[UserRule::Own, UserRule::Exact(user("alice")), UserRule::Prefix(prefix("team/"))]),
                proptest::bool::ANY,
            ),
            0..4,
        ),
        own in proptest::option::of(proptest::sample::select(vec!["alice", "team/bob", "eve"])),
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(actions, providers, services, users, assert_user_id)| Rule {
            actions, providers, services, scopes: Allowed::Any, users, assert_user_id,
        }).collect();
        let principal = Principal { user: own.map(user), ..plain(rules) };
        let list = Action::ListCredentials;
        let reach = principal.reach(list);
        let mut any = false;
        for p in ["google", "github", "slack"] {
            for s in ["mail", "files", "other"] {
                for u in ["alice", "team/bob", "eve"] {
                    let (p, s, u) = (provider(p), service(s), user(u));
                    let seen = principal.sees(list, &p, &BTreeSet::from([s.clone()]), &u);
                    any |= seen;
                    let asked = principal.decide(&Question::about(list, &p, [&s], &u)).is_allowed();
                    proptest::prop_assert_eq!(seen, asked);
                    if seen {
                        proptest::prop_assert!(reach.providers.as_ref().is_none_or(|ids| ids.contains(&p)));
                        let within = reach.users.as_ref().is_none_or(|users| {
                            users.exact.contains(&u)
                                || users.prefixes.iter().any(|text| u.as_str().starts_with(text.as_str()))
                        });
                        proptest::prop_assert!(within);
                    }
                }
            }
        }
        if any {
            proptest::prop_assert!(principal.decide(&Question::of(list)).is_allowed());
        }
    }
}
