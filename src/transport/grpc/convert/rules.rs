//! Rules of callers, between messages and terms of the domain.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::check::Check;
use crate::domain::access_policy::{Action, Allowed, Prefix, Rule, ScopeRule, UserRule};
use crate::domain::key::{ProviderId, ServiceId, UserId};
use crate::domain::scope::Scope;
use crate::r#gen::v1 as pb;

/// The most items of one list.
const MAX_ITEMS: usize = 1000;

pub(super) fn rule(check: &mut Check, field: &str, message: pb::AllowRule) -> Option<Rule> {
    let part = |name: &str| format!("{field}.{name}");
    let actions = check.required(&part("actions"), message.actions);
    let actions =
        actions.and_then(|names| allowed(check, &part("actions"), names, |text| text.parse::<Action>()));
    let providers = check.required(&part("providers"), message.providers);
    let providers = providers.and_then(|names| allowed(check, &part("providers"), names, ProviderId::new));
    let services = match message.services {
        Some(names) => allowed(check, &part("services"), names, ServiceId::new),
        None => Some(Allowed::Any),
    };
    let scopes = match message.scopes {
        Some(texts) => {
            matches(check, &part("scopes"), texts, Scope::new, ScopeRule::Exact, ScopeRule::Prefix, None)
        }
        None => Some(Allowed::Any),
    };
    let users = check.required(&part("users"), message.users);
    let users = users.and_then(|texts| {
        let own = Some(UserRule::Own);
        matches(check, &part("users"), texts, UserId::new, UserRule::Exact, UserRule::Prefix, own)
    });
    let rule = Rule {
        actions: actions?,
        providers: providers?,
        services: services?,
        scopes: scopes?,
        users: users?,
        assert_user_id: message.assert_user_id,
    };
    let mistakes = rule.mistakes();
    for mistake in &mistakes {
        check.fail::<()>(part(mistake.field()), mistake.to_string());
    }
    mistakes.is_empty().then_some(rule)
}

fn allowed<T: Ord + Clone, E: Display>(
    check: &mut Check,
    field: &str,
    names: pb::AllowedNames,
    parse: impl Fn(String) -> Result<T, E>,
) -> Option<Allowed<T>> {
    if names.any {
        return if names.names.is_empty() { Some(Allowed::Any) } else { both(check, field) };
    }
    items(check, &format!("{field}.names"), names.names, parse).map(Allowed::Only)
}

fn matches<T, R: Ord + Clone, E: Display>(
    check: &mut Check,
    field: &str,
    texts: pb::AllowedTexts,
    parse: impl Fn(String) -> Result<T, E>,
    as_exact: impl Fn(T) -> R,
    as_prefix: impl Fn(Prefix) -> R,
    own: Option<R>,
) -> Option<Allowed<R>>
where
    T: Ord,
{
    if texts.own && own.is_none() {
        return check.fail(format!("{field}.own"), "is for users only");
    }
    if texts.any {
        let alone = texts.exact.is_empty() && texts.prefixes.is_empty() && !texts.own;
        return if alone { Some(Allowed::Any) } else { both(check, field) };
    }
    let exact = items(check, &format!("{field}.exact"), texts.exact, parse);
    let prefixes = items(check, &format!("{field}.prefixes"), texts.prefixes, Prefix::new);
    let mut rules: BTreeSet<R> = exact?.into_iter().map(as_exact).collect();
    rules.extend(prefixes?.into_iter().map(as_prefix));
    rules.extend(own.filter(|_| texts.own));
    Some(Allowed::Only(rules))
}

fn both<T>(check: &mut Check, field: &str) -> Option<T> {
    check.fail(field, "must be `any` or name some, not both")
}

fn items<T: Ord, E: Display>(
    check: &mut Check,
    field: &str,
    texts: Vec<String>,
    parse: impl Fn(String) -> Result<T, E>,
) -> Option<BTreeSet<T>> {
    if texts.len() > MAX_ITEMS {
        return check.fail(field, format!("must be at most {MAX_ITEMS}"));
    }
    let read: Vec<_> = texts
        .into_iter()
        .enumerate()
        .map(|(index, text)| check.parsed(format!("{field}[{index}]"), parse(text)))
        .collect();
    read.into_iter().collect()
}

/// A rule that this version of the broker knows.
pub(crate) fn read_rule(message: pb::AllowRule) -> Option<Rule> {
    rule(&mut Check::default(), "rule", message)
}

/// The rule as a message.
pub(crate) fn rule_message(rule: Rule) -> pb::AllowRule {
    let (mut scopes, mut users) = (texts(&rule.scopes), texts(&rule.users));
    if let Allowed::Only(rules) = rule.scopes {
        for one in rules {
            match one {
                ScopeRule::Exact(scope) => scopes.exact.push(scope.into()),
                ScopeRule::Prefix(prefix) => scopes.prefixes.push(prefix.into()),
            }
        }
    }
    if let Allowed::Only(rules) = rule.users {
        for one in rules {
            match one {
                UserRule::Own => users.own = true,
                UserRule::Exact(user) => users.exact.push(user.into()),
                UserRule::Prefix(prefix) => users.prefixes.push(prefix.into()),
            }
        }
    }
    pb::AllowRule {
        actions: Some(names(rule.actions, |action| action.name().to_owned())),
        providers: Some(names(rule.providers, Into::into)),
        services: Some(names(rule.services, Into::into)),
        scopes: Some(scopes),
        users: Some(users),
        assert_user_id: rule.assert_user_id,
    }
}

fn names<T: Ord + Clone>(allowed: Allowed<T>, name: impl Fn(T) -> String) -> pb::AllowedNames {
    match allowed {
        Allowed::Any => pb::AllowedNames { any: true, names: Vec::new() },
        Allowed::Only(items) => pb::AllowedNames { any: false, names: items.into_iter().map(name).collect() },
    }
}

fn texts<T: Ord + Clone>(allowed: &Allowed<T>) -> pb::AllowedTexts {
    pb::AllowedTexts { any: *allowed == Allowed::Any, ..pb::AllowedTexts::default() }
}
