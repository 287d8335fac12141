//! `[[callers.<id>.allow]]`: what a caller may do.

use std::collections::BTreeSet;

use super::reader::{AnyOr, Key, Section};
use crate::domain::access_policy::{Action, Allowed, Prefix, Rule, ScopeRule, UserRule};
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::{ProviderId, ServiceId, UserId};
use crate::domain::scope::Scope;

pub(super) fn read(section: &Section<'_>) -> Option<Rule> {
    let actions = allowed(&section.required("actions"), |key| key.parsed(str::parse::<Action>));
    let providers = allowed(&section.required("providers"), |key| key.parsed(|text| ProviderId::new(text)));
    let services = or_any(&section.optional("services"), |key| key.parsed(|text| ServiceId::new(text)));
    let scopes = or_any(&section.optional("scopes"), scope_rule);
    let users = allowed(&section.required("users"), user_rule);
    let asserts = section.optional("assert_user_id");
    let assert_user_id = if asserts.is_set() { asserts.boolean() } else { Some(false) };
    section.finish();
    let rule = Rule {
        actions: actions?,
        providers: providers?,
        services: services?,
        scopes: scopes?,
        users: users?,
        assert_user_id: assert_user_id?,
    };
    let mistakes = rule.mistakes();
    for mistake in &mistakes {
        section.optional(mistake.field()).problem(mistake.to_string());
    }
    mistakes.is_empty().then_some(rule)
}

/// What a caller may administer.
pub(super) fn read_admin(key: &Key<'_>) -> Option<BTreeSet<AdminAction>> {
    if !key.is_set() {
        return Some(BTreeSet::new());
    }
    Some(match key.any_or(|item| item.parsed(str::parse::<AdminAction>))? {
        AnyOr::Any => AdminAction::ALL.into(),
        AnyOr::These(actions) => actions.into_iter().collect(),
    })
}

fn allowed<T: Ord + Clone>(key: &Key<'_>, item: impl Fn(&Key<'_>) -> Option<T>) -> Option<Allowed<T>> {
    Some(match key.any_or(item)? {
        AnyOr::Any => Allowed::Any,
        AnyOr::These(items) => Allowed::Only(items.into_iter().collect()),
    })
}

fn or_any<T: Ord + Clone>(key: &Key<'_>, item: impl Fn(&Key<'_>) -> Option<T>) -> Option<Allowed<T>> {
    if key.is_set() { allowed(key, item) } else { Some(Allowed::Any) }
}

fn user_rule(key: &Key<'_>) -> Option<UserRule> {
    if key.is_text("own") {
        return Some(UserRule::Own);
    }
    let (kind, value) = key.one_of(&["exact", "prefix"])?;
    if kind == "exact" {
        value.parsed(|text| UserId::new(text)).map(UserRule::Exact)
    } else {
        value.parsed(|text| Prefix::new(text)).map(UserRule::Prefix)
    }
}

fn scope_rule(key: &Key<'_>) -> Option<ScopeRule> {
    let (kind, value) = key.one_of(&["exact", "prefix"])?;
    if kind == "exact" {
        value.parsed(|text| Scope::new(text)).map(ScopeRule::Exact)
    } else {
        value.parsed(|text| Prefix::new(text)).map(ScopeRule::Prefix)
    }
}
