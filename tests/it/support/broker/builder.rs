//! What a broker of a test has: callers, providers, settings.

use toml::{Table, Value};

use token_broker::app::Overrides;
use token_broker::config::Config;

use super::TestBroker;
use super::site::{Site, Spec, SpecCaller};
use crate::support::hostile::HostileServer;
use crate::support::oidc::{self, OidcServer};

/// The operator's definition of the test's OpenID server: two services and the login share a grant, `archive` has its own.
const OIDC_DEFINITION: &str = r#"
id = "test-oidc"
display_name = "Test Provider"

[variables.issuer]
kind = "url"
description = "the issuer"

[endpoints]
discovery = true
issuer = "{issuer}"

[client]
auth = "basic"
secret = "required"

[authorization]
openid = true

[authorization.params]
prompt = "consent"

[response]
scopes_never_listed = ["offline_access"]

[refresh]
rotation = "strict"

[services.login]
display_name = "Profile"
scopes = ["openid", "profile", "email", "offline_access"]

[services.mail]
display_name = "Mail"
scopes = ["openid", "email", "offline_access", "mail.read"]

[services.calendar]
display_name = "Calendar"
scopes = ["openid", "email", "offline_access", "calendar.read"]

[services.archive]
display_name = "Archive"
grant = "archive"
scopes = ["openid", "email", "offline_access", "mail.read"]
"#;

/// The definition of a hostile server.
const HOSTILE_DEFINITION: &str = r#"
id = "test-hostile"
display_name = "Hostile"

[endpoints]
authorization = "BASE/authorize"
token = "BASE/token"
revocation = "BASE/revoke"

[client]
auth = "basic"
secret = "required"

[refresh]
rotation = "strict"

[services.files]
display_name = "Files"
scopes = ["read", "write"]
"#;

/// What a caller may do, each as the configuration writes it.
#[derive(Clone)]
pub(crate) struct CallerRights {
    pub(super) tenant: String,
    pub(super) actions: Value,
    pub(super) providers: Value,
    pub(super) services: Value,
    pub(super) users: Value,
    pub(super) admin: Value,
    pub(super) all_tenants: bool,
}

impl CallerRights {
    /// Everything, in a tenant.
    pub(crate) fn all(tenant: &str) -> Self {
        let any = || Value::from("any");
        Self { actions: any(), providers: any(), services: any(), users: any(), ..Self::none(tenant) }
    }

    /// Nothing, in a tenant.
    pub(crate) fn none(tenant: &str) -> Self {
        let none = || Value::Array(Vec::new());
        Self {
            tenant: tenant.to_owned(),
            actions: none(),
            providers: none(),
            services: none(),
            users: none(),
            admin: none(),
            all_tenants: false,
        }
    }

    /// May administer everything as well: in its own tenant, or in all.
    pub(crate) fn admin(mut self, all_tenants: bool) -> Self {
        self.admin = "any".into();
        self.all_tenants = all_tenants;
        self
    }

    /// Only these actions, as `get_credential`.
    pub(crate) fn actions(mut self, actions: &[&str]) -> Self {
        self.actions = actions.to_vec().into();
        self
    }

    /// Only these providers.
    pub(crate) fn providers(mut self, providers: &[&str]) -> Self {
        self.providers = providers.to_vec().into();
        self
    }

    /// Only these users, and those whose ids begin so.
    pub(crate) fn users(mut self, exact: &[&str], prefixes: &[&str]) -> Self {
        let rule = |kind: &str, text: &str| Value::Table(Table::from_iter([(kind.to_owned(), text.into())]));
        let rules = exact.iter().map(|id| rule("exact", id));
        self.users =
            rules.chain(prefixes.iter().map(|prefix| rule("prefix", prefix))).collect::<Vec<_>>().into();
        self
    }
}

/// Builds a broker. Without further calls: caller `agent` of tenant `acme` with all rights, no providers, logs as JSON at
/// debug level, a stop without the pause for load balancers,
/// consents by the page that a browser confirms.
#[derive(Clone, Default)]
pub(crate) struct BrokerBuilder {
    spec: Spec,
}

impl BrokerBuilder {
    /// See the type.
    pub(crate) fn new() -> Self {
        Self::default()
            .caller("agent", CallerRights::all("acme"))
            .set("log.level", "debug")
            .set("consent.bindings", vec!["confirm", "app"])
            .set("shutdown.announce", "0s")
    }

    /// A further caller, or other rights for `agent`. Its API key is random.
    pub(crate) fn caller(mut self, id: &str, rights: CallerRights) -> Self {
        self.spec.callers.retain(|caller| caller.id != id);
        self.spec.callers.push(SpecCaller { id: id.to_owned(), rights });
        self
    }

    /// A provider definition as TOML.
    pub(crate) fn definition(mut self, toml: &str) -> Self {
        self.spec.definitions.push(toml.to_owned());
        self
    }

    /// A registration: id, definition, client and variables.
    pub(crate) fn provider(
        self,
        id: &str,
        definition: &str,
        client: (&str, &str),
        variables: &[(&str, &str)],
    ) -> Self {
        let mut builder = self
            .set(&format!("providers.{id}.definition"), definition)
            .set(&format!("providers.{id}.client_id"), client.0)
            .set(&format!("providers.{id}.client_secret"), client.1);
        for (name, value) in variables {
            builder = builder.set(&format!("providers.{id}.variables.{name}"), *value);
        }
        builder
    }

    /// Provider `oidc` at the server, with the services `login`, `mail` and `calendar`, which share a grant, and
    /// `archive`, which has its own.
    pub(crate) fn oidc(self, server: &OidcServer) -> Self {
        self.definition(OIDC_DEFINITION).provider(
            "oidc",
            "test-oidc",
            (oidc::CLIENT_ID, oidc::CLIENT_SECRET),
            &[("issuer", server.issuer())],
        )
    }

    /// Provider `hostile` at the server, with the service `files`, by the letter of the RFCs: strict rotation, endpoints
    /// `/authorize`, `/token` and `/revoke`, no account.
    pub(crate) fn hostile(self, server: &HostileServer) -> Self {
        self.definition(&HOSTILE_DEFINITION.replace("BASE", &server.base())).provider(
            "hostile",
            "test-hostile",
            ("client-1", "client-secret-1"),
            &[],
        )
    }

    /// A setting by its full name, as `grpc.max_deadline`.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.spec.settings.push((key.to_owned(), value.into()));
        self
    }

    /// A table below names that may have dots in them, as `["spiffe", "trust_domains", "example.org"]`.
    pub(crate) fn set_table(mut self, names: &[&str], table: Table) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.spec.tables.push((names, table));
        self
    }

    /// A variable of the process.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.spec.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes folder, key and configuration, and starts nothing.
    pub(crate) fn write(self) -> Site {
        Site::write(self.spec)
    }

    /// Starts the real binary and waits until it listens.
    pub(crate) async fn spawn_process(self) -> TestBroker {
        TestBroker::spawn(self.write()).await
    }

    /// Starts it in the test's own process, with some of its parts replaced. Its log goes nowhere.
    pub(crate) async fn start_in_process(self, overrides: Overrides) -> TestBroker {
        self.start_in_process_with(overrides, |_| {}).await
    }

    /// The same with a configuration that no file could give.
    pub(crate) async fn start_in_process_with(
        self,
        overrides: Overrides,
        change: impl FnOnce(&mut Config),
    ) -> TestBroker {
        TestBroker::start(self.write(), overrides, change).await
    }
}
