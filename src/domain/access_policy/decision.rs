//! The one place that decides. A question is compared with the caller's rules in their order, and the first that allows all
//! of it decides; two rules are never added up, so that the answer has one reason.

use std::collections::BTreeSet;
use std::fmt;

use super::rule::{Allowed, Prefix, Rule, UserRule};
use super::{Action, Principal};
use crate::domain::key::{ProviderId, ServiceId, UserId};
use crate::domain::scope::{Scope, ScopeSet};

/// What is asked of the policy. What a call does not name is left out; it then limits nothing.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// To do what.
    pub action: Action,
    /// Where.
    pub provider: Option<&'a ProviderId>,
    /// With what; all of them by one rule.
    pub services: Vec<&'a ServiceId>,
    /// The scopes that the call names itself; all of them by one rule.
    pub scopes: Option<&'a ScopeSet>,
    /// For whom.
    pub user: Option<&'a UserId>,
}

impl<'a> Question<'a> {
    /// Of no provider and no user.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self { action, provider: None, services: Vec::new(), scopes: None, user: None }
    }

    /// Of a service of a user.
    #[must_use]
    pub fn about(
        action: Action,
        provider: &'a ProviderId,
        services: impl IntoIterator<Item = &'a ServiceId>,
        user: &'a UserId,
    ) -> Self {
        let services = services.into_iter().collect();
        Self { action, provider: Some(provider), services, scopes: None, user: Some(user) }
    }

    /// With scopes.
    #[must_use]
    pub fn asking(self, scopes: &'a ScopeSet) -> Self {
        Self { scopes: Some(scopes), ..self }
    }
}

/// The answer. It names its reason, for the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The caller's rule of this index allows it.
    Allowed {
        /// From 0, as `allow[0]` in the configuration.
        rule: usize,
    },
    /// There is no rule that does.
    Denied,
}

impl Decision {
    /// Whether it may be done.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { rule } => write!(f, "allow[{rule}]"),
            Self::Denied => f.write_str("no rule"),
        }
    }
}

/// Why a rule does not allow what is asked: the first part of it that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The caller, or its tenant, is disabled.
    #[error("the caller or its tenant is disabled")]
    Suspended,
    /// Another action.
    #[error("does not name the action")]
    Action,
    /// Another provider.
    #[error("does not name the provider")]
    Provider,
    /// Another service.
    #[error("does not name the service {0}")]
    Service(ServiceId),
    /// Another scope.
    #[error("does not name the scope {0}")]
    Scope(Scope),
    /// The call carries another user's token than the user it is for.
    #[error("the user's token is of another user")]
    NotTheTokensUser,
    /// The call carries no user's token.
    #[error("needs the user's own token (assert_user_id is false)")]
    BareUserId,
    /// Another user.
    #[error("does not name the user")]
    User,
}

/// What rows can be seen at all, for a database that filters by it. [`Principal::sees`] decides about each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// `None`: of all providers.
    pub providers: Option<BTreeSet<ProviderId>>,
    /// `None`: of all users.
    pub users: Option<UserReach>,
}

/// Users that are named one by one, or by how their ids begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserReach {
    /// These.
    pub exact: BTreeSet<UserId>,
    /// And those that begin so.
    pub prefixes: BTreeSet<Prefix>,
}

impl Principal {
    /// Whether it may, and by which rule.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.caller
            .rules
            .iter()
            .position(|rule| self.mismatch(rule, question).is_none())
            .map_or(Decision::Denied, |rule| Decision::Allowed { rule })
    }

    /// What each of the caller's rules says to it; `None`: allows it.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Vec<Option<Mismatch>> {
        self.caller.rules.iter().map(|rule| self.mismatch(rule, question)).collect()
    }

    /// Whether a row with these services is among what it may list or watch: one rule allows it for one of them.
    #[must_use]
    pub fn sees(
        &self,
        action: Action,
        provider: &ProviderId,
        services: &BTreeSet<ServiceId>,
        user: &UserId,
    ) -> bool {
        let row = Question::about(action, provider, [], user);
        self.caller.rules.iter().any(|rule| {
            self.mismatch(rule, &row).is_none() && rule.services.some(|service| services.contains(service))
        })
    }

    /// The services of a provider for which it may do this, whoever the user is.
    #[must_use]
    pub fn allowed_services(&self, action: Action, provider: &ProviderId) -> Allowed<ServiceId> {
        let question = Question { provider: Some(provider), ..Question::of(action) };
        let rules = self.caller.rules.iter().filter(|rule| self.mismatch(rule, &question).is_none());
        let mut services = BTreeSet::new();
        for rule in rules {
            match &rule.services {
                Allowed::Any => return Allowed::Any,
                Allowed::Only(these) => services.extend(these.iter().cloned()),
            }
        }
        Allowed::Only(services)
    }

    /// Bounds what [`Principal::sees`] can be true for.
    #[must_use]
    pub fn reach(&self, action: Action) -> Reach {
        let mut providers = Some(BTreeSet::new());
        let mut users = Some(UserReach::default());
        let question = Question::of(action);
        for rule in self.caller.rules.iter().filter(|rule| self.mismatch(rule, &question).is_none()) {
            match &rule.providers {
                Allowed::Any => providers = None,
                Allowed::Only(ids) => {
                    if let Some(all) = &mut providers {
                        all.extend(ids.iter().cloned());
                    }
                }
            }
            match &rule.users {
                Allowed::Any => users = None,
                Allowed::Only(rules) => {
                    if let Some(all) = &mut users {
                        all.add(rules);
                    }
                }
            }
        }
        if let Some(own) = &self.user {
            users = Some(UserReach { exact: [own.clone()].into(), prefixes: BTreeSet::new() });
        }
        Reach { providers, users }
    }

    fn mismatch(&self, rule: &Rule, question: &Question<'_>) -> Option<Mismatch> {
        if self.caller.suspension.is_some() {
            return Some(Mismatch::Suspended);
        }
        if !rule.actions.covers(&question.action) {
            return Some(Mismatch::Action);
        }
        if question.provider.is_some_and(|provider| !rule.providers.covers(provider)) {
            return Some(Mismatch::Provider);
        }
        if let Some(service) = question.services.iter().find(|service| !rule.services.covers(service)) {
            return Some(Mismatch::Service((*service).clone()));
        }
        let scopes = question.scopes.into_iter().flat_map(ScopeSet::iter);
        if let Some(scope) = scopes.into_iter().find(|scope| !rule.scopes.some(|one| one.covers(scope))) {
            return Some(Mismatch::Scope(scope.clone()));
        }
        if question.action.is_about_users() { self.user_mismatch(rule, question.user) } else { None }
    }

    fn user_mismatch(&self, rule: &Rule, asked: Option<&UserId>) -> Option<Mismatch> {
        let Some(own) = &self.user else {
            if !rule.assert_user_id {
                return Some(Mismatch::BareUserId);
            }
            // Of a call that names nobody, somebody must be left.
            let fits = rule.users.some(|one| match one {
                UserRule::Own => false,
                UserRule::Exact(id) => asked.is_none_or(|asked| asked == id),
                UserRule::Prefix(prefix) => {
                    asked.is_none_or(|asked| asked.as_str().starts_with(prefix.as_str()))
                }
            });
            return (!fits).then_some(Mismatch::User);
        };
        if asked.is_some_and(|asked| asked != own) {
            return Some(Mismatch::NotTheTokensUser);
        }
        let fits = rule.users.some(|one| match one {
            UserRule::Own => true,
            UserRule::Exact(id) => id == own,
            UserRule::Prefix(prefix) => own.as_str().starts_with(prefix.as_str()),
        });
        (!fits).then_some(Mismatch::User)
    }
}

impl UserReach {
    /// The one user that this is, or else all of it.
    #[must_use]
    pub fn narrowed(self) -> (Option<UserId>, Option<Self>) {
        match (self.exact.first(), self.exact.len(), self.prefixes.is_empty()) {
            (Some(only), 1, true) => (Some(only.clone()), None),
            _ => (None, Some(self)),
        }
    }

    fn add(&mut self, rules: &BTreeSet<UserRule>) {
        for rule in rules {
            match rule {
                UserRule::Own => {}
                UserRule::Exact(id) => {
                    self.exact.insert(id.clone());
                }
                UserRule::Prefix(prefix) => {
                    self.prefixes.insert(prefix.clone());
                }
            }
        }
    }
}
