//! `[response]`: how token answers are read.

use std::collections::{BTreeMap, BTreeSet};

use super::super::reader::{Report, Section};
use super::values;
use crate::domain::provider::ResponseRules;
use crate::domain::scope::{Scope, ScopeSet};

/// What a provider's own error word may stand for: RFC 6749 sections 5.2 and 4.1.2.1, RFC 6750 section 3.1 for
/// revocation by Bearer, RFC 8628 section 3.5 for "too many requests".
const ERROR_CODES: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "invalid_token",
    "slow_down",
];

/// `[response]`
pub(super) fn response(
    report: &mut Report<'_>,
    root: &mut Section<'_, '_>,
    request_separator: &str,
) -> ResponseRules {
    let mut section = root.section(report, "response");
    let access_token = values::pointers(report, &mut section, "access_token", &["/access_token"]);
    if section.is_empty_list("access_token") {
        section.missing(report, "access_token", "at least one pointer");
    }
    let refresh_token = values::pointers(report, &mut section, "refresh_token", &["/refresh_token"]);
    let expires_in = values::pointers(report, &mut section, "expires_in", &["/expires_in"]);
    let scope = values::pointers(report, &mut section, "scope", &["/scope"]);
    let unit = section.word(report, "expires_in_unit", &[("seconds", 1_000), ("milliseconds", 1)]);
    let default_lifetime = values::duration(report, &mut section, "default_lifetime");
    if let Some(lifetime) = default_lifetime.as_ref().filter(|lifetime| lifetime.value.is_zero()) {
        report.at(lifetime, "must not be zero; leave it out if tokens don't expire");
    }
    let success_flag = section.text(report, "success_flag").and_then(|text| values::pointer(report, &text));
    let error = section.text(report, "error").and_then(|text| values::pointer(report, &text));
    let extra = extra(report, &mut section);
    let error_aliases = error_aliases(report, &mut section);
    let scope_aliases = scope_aliases(report, &mut section);
    let scope_implies = scope_implies(report, &mut section);
    let never_listed = section.texts(report, "scopes_never_listed").unwrap_or_default();
    let separators = section.text(report, "scope_separators").map(|separators| separators.value);
    section.finish(report);
    ResponseRules {
        access_token,
        refresh_token,
        expires_in,
        scope,
        scope_separators: separators.unwrap_or_else(|| default_separators(request_separator)),
        expires_in_unit_ms: unit.map_or(1_000, |unit| unit.value),
        default_lifetime: default_lifetime.map(|lifetime| lifetime.value),
        success_flag,
        error: error.unwrap_or_else(|| "/error".to_owned()),
        extra,
        error_aliases,
        scope_aliases,
        scope_implies,
        scopes_never_listed: values::scopes(report, &never_listed),
    }
}

fn extra(report: &mut Report<'_>, section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
    let entries = section.text_map(report, "extra");
    entries
        .into_iter()
        .filter_map(|(name, text)| Some((name.value, values::pointer(report, &text)?)))
        .collect()
}

fn error_aliases(report: &mut Report<'_>, section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    for (word, code) in section.text_map(report, "error_aliases") {
        if ERROR_CODES.contains(&code.value.as_str()) {
            aliases.insert(word.value, code.value);
        } else {
            report.at(&code, format!("must be one of {}", ERROR_CODES.join(", ")));
        }
    }
    aliases
}

fn scope_aliases(report: &mut Report<'_>, section: &mut Section<'_, '_>) -> BTreeMap<Scope, Scope> {
    let entries = section.text_map(report, "scope_aliases");
    entries
        .into_iter()
        .filter_map(|(granted, requested)| {
            let (granted, requested) = (values::scope(report, &granted), values::scope(report, &requested));
            Some((granted?, requested?))
        })
        .collect()
}

fn scope_implies(report: &mut Report<'_>, section: &mut Section<'_, '_>) -> BTreeMap<Scope, ScopeSet> {
    let entries = section.texts_map(report, "scope_implies");
    let links = entries
        .into_iter()
        .filter_map(|(wide, narrow)| {
            let (wide, narrow) = (values::scope(report, &wide), values::scopes(report, &narrow));
            Some((wide?, narrow))
        })
        .collect();
    closure(&links)
}

/// A space, and what joins scopes in requests.
fn default_separators(request_separator: &str) -> String {
    let mut separators = " ".to_owned();
    separators.extend(request_separator.chars().filter(|&c| c != ' '));
    separators
}

/// `a` implies `b` and `b` implies `c`: `a` implies `c`. Written down link by link, used all at once.
fn closure(links: &BTreeMap<Scope, ScopeSet>) -> BTreeMap<Scope, ScopeSet> {
    links
        .keys()
        .map(|wide| {
            let mut reached = BTreeSet::new();
            let mut open = vec![wide];
            while let Some(scope) = open.pop() {
                for narrow in links.get(scope).into_iter().flat_map(ScopeSet::iter) {
                    if reached.insert(narrow) {
                        open.push(narrow);
                    }
                }
            }
            (wide.clone(), reached.into_iter().filter(|narrow| *narrow != wide).cloned().collect())
        })
        .collect()
}
