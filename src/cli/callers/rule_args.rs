//! One rule on the command line, and rules as texts.

use crate::domain::access_policy::{Action, Allowed, Prefix, Rule, ScopeRule, UserRule};
use crate::domain::admin_policy::{AdminAction, AdminRights};
use crate::domain::key::{KeyError, ProviderId, ServiceId, UserId};
use crate::domain::scope::Scope;

/// What is not named is not allowed; without services or scopes, all of them are.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RuleArgs {
    /// An action it may do, as `get_credential`; repeat for more
    #[arg(long = "action", value_name = "ACTION", value_parser = str::parse::<Action>)]
    actions: Vec<Action>,
    /// It may do everything
    #[arg(long, conflicts_with = "actions")]
    any_action: bool,
    /// A provider it may use; repeat for more
    #[arg(long = "provider", value_name = "ID", value_parser = |text: &str| ProviderId::new(text))]
    providers: Vec<ProviderId>,
    /// It may use every provider
    #[arg(long, conflicts_with = "providers")]
    any_provider: bool,
    /// A service it may use; repeat for more [default: all]
    #[arg(long = "service", value_name = "ID", value_parser = |text: &str| ServiceId::new(text))]
    services: Vec<ServiceId>,
    /// A scope it may ask for; repeat for more [default: all]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = |text: &str| Scope::new(text))]
    scopes: Vec<Scope>,
    /// It may ask for scopes that begin so; repeat for more
    #[arg(long = "scope-prefix", value_name = "PREFIX", value_parser = prefix)]
    scope_prefixes: Vec<Prefix>,
    /// A user it may act for; repeat for more
    #[arg(long = "user", value_name = "ID", value_parser = |text: &str| UserId::new(text))]
    users: Vec<UserId>,
    /// It may act for users whose ids begin so; repeat for more
    #[arg(long = "user-prefix", value_name = "PREFIX", value_parser = prefix)]
    user_prefixes: Vec<Prefix>,
    /// It may act for the user whose own token comes with the call
    #[arg(long)]
    own: bool,
    /// It may act for every user
    #[arg(long, conflicts_with_all = ["users", "user_prefixes", "own"])]
    any_user: bool,
    /// It may name a user without that user's own token
    #[arg(long)]
    assert_user_id: bool,
}

fn prefix(text: &str) -> Result<Prefix, KeyError> {
    Prefix::new(text)
}

impl RuleArgs {
    /// The rule; `None` if nothing is named.
    pub(super) fn rule(&self) -> Result<Option<Rule>, String> {
        fn some<T: Ord + Clone>(any: bool, items: impl IntoIterator<Item = T>) -> Allowed<T> {
            if any { Allowed::Any } else { Allowed::Only(items.into_iter().collect()) }
        }
        let users = self.users.iter().cloned().map(UserRule::Exact);
        let users = users.chain(self.user_prefixes.iter().cloned().map(UserRule::Prefix));
        let scopes = self.scopes.iter().cloned().map(ScopeRule::Exact);
        let scopes = scopes.chain(self.scope_prefixes.iter().cloned().map(ScopeRule::Prefix));
        let any_scope = self.scopes.is_empty() && self.scope_prefixes.is_empty();
        let rule = Rule {
            actions: some(self.any_action, self.actions.iter().copied()),
            providers: some(self.any_provider, self.providers.iter().cloned()),
            services: some(self.services.is_empty(), self.services.iter().cloned()),
            scopes: some(any_scope, scopes),
            users: some(self.any_user, users.chain(self.own.then_some(UserRule::Own))),
            assert_user_id: self.assert_user_id,
        };
        let nothing = rule.actions.is_empty() && rule.providers.is_empty() && rule.users.is_empty();
        if nothing {
            return Ok(None);
        }
        match rule.mistakes().first() {
            None => Ok(Some(rule)),
            Some(mistake) => Err(format!("{}: {mistake}", mistake.field())),
        }
    }
}

/// What it may administer: nothing that is not named.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct AdminArgs {
    /// What it may administer, as `manage_callers`, or `any`; repeat for more
    #[arg(long = "admin", value_name = "AREA", value_parser = area)]
    admin: Vec<Option<AdminAction>>,
    /// Of all tenants, and not only of its own
    #[arg(long, requires = "admin")]
    all_tenants: bool,
}

/// `None`: any.
fn area(text: &str) -> Result<Option<AdminAction>, crate::domain::access_policy::UnknownAction> {
    if text == "any" { Ok(None) } else { text.parse().map(Some) }
}

impl AdminArgs {
    pub(super) fn rights(&self) -> AdminRights {
        let actions = if self.admin.contains(&None) {
            AdminAction::ALL.into()
        } else {
            self.admin.iter().copied().flatten().collect()
        };
        AdminRights { actions, all_tenants: self.all_tenants }
    }
}

/// A text in TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A part of a rule as the configuration writes it.
pub(super) fn in_toml(part: &impl serde::Serialize) -> String {
    // Texts, lists of texts and tables of texts always have a TOML form.
    toml::Value::try_from(part).map(|value| value.to_string()).unwrap_or_default()
}

/// The lines of a rule in the configuration, without its heading.
pub(super) fn lines(rule: &Rule) -> String {
    let mut text =
        format!("actions = {}\nproviders = {}\n", in_toml(&rule.actions), in_toml(&rule.providers));
    if rule.services != Allowed::Any {
        text = text + "services = " + &in_toml(&rule.services) + "\n";
    }
    if rule.scopes != Allowed::Any {
        text = text + "scopes = " + &in_toml(&rule.scopes) + "\n";
    }
    text = text + "users = " + &in_toml(&rule.users) + "\n";
    if rule.assert_user_id {
        text.push_str("assert_user_id = true\n");
    }
    text
}

/// The same in one line, for tables.
pub(super) fn summary(rule: &Rule) -> String {
    lines(rule).trim_end().replace('\n', ", ")
}
