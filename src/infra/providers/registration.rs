//! Definition and client become a provider.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use super::catalogue::Catalogue;
use super::client::{self, ClientKeys};
use super::definition::{Definition, EndpointTemplates, RevocationTemplate};
use super::error::{RegistrationError, RegistrationMistake};
use super::template::{self, UrlTemplate};
use crate::domain::cipher::CipherError;
use crate::domain::flow::RecordedEndpoints;
use crate::domain::key::{ConfigId, ProviderId, TenantId};
use crate::domain::ports::{ConfigMistake, ProviderDirectory, ProviderStanding};
use crate::domain::provider::{EndpointSource, OwnConfig, Provider, Revocation};
use crate::domain::provider_config::{ClientAuthentication, ProviderConfig};
use crate::domain::secret::SecretString;

/// The broker's client at a provider, as configured.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The id in keys and in the redirect URI.
    pub id: ProviderId,
    /// Which entry of the catalogue.
    pub definition: String,
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`; `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// What the definition leaves open, by name.
    pub variables: BTreeMap<String, String>,
    /// Keys instead of the secret.
    pub keys: ClientKeys,
}

/// The operator's providers. They are the same for every tenant.
#[derive(Debug, Default)]
pub struct ConfiguredProviders {
    providers: BTreeMap<ProviderId, Arc<Provider>>,
}

impl ConfiguredProviders {
    /// Of providers that are made already.
    #[must_use]
    pub fn of(providers: impl IntoIterator<Item = Arc<Provider>>) -> Self {
        Self { providers: providers.into_iter().map(|provider| (provider.id.clone(), provider)).collect() }
    }

    /// One by id.
    #[must_use]
    pub fn get(&self, id: &ProviderId) -> Option<Arc<Provider>> {
        self.providers.get(id).cloned()
    }

    /// All, sorted by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Provider>> {
        self.providers.values().cloned().collect()
    }
}

/// Where tenants have none of their own.
#[async_trait]
impl ProviderDirectory for ConfiguredProviders {
    async fn current(
        &self,
        _tenant: &TenantId,
        id: &ProviderId,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        Ok(self.get(id).map(ProviderStanding::Ready))
    }

    async fn of_configuration(
        &self,
        tenant: &TenantId,
        id: &ProviderId,
        configuration: Option<ConfigId>,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        if configuration.is_some() { Ok(None) } else { self.current(tenant, id).await }
    }

    async fn all_of(&self, _tenant: &TenantId) -> Result<Vec<Arc<Provider>>, CipherError> {
        Ok(self.all())
    }

    fn configured(&self) -> Vec<Arc<Provider>> {
        self.all()
    }

    fn forget(&self, _tenant: &TenantId) {}

    fn assemble(
        &self,
        _config: &ProviderConfig,
        _secrets: ClientAuthentication<SecretString>,
    ) -> Result<Provider, Vec<ConfigMistake>> {
        let description = "No provider can be configured here.".to_owned();
        Err(vec![ConfigMistake { field: "provider".to_owned(), description }])
    }
}

/// See [`Catalogue::configure`].
pub(super) fn configure(
    catalogue: &Catalogue,
    registrations: Vec<Registration>,
) -> Result<ConfiguredProviders, Vec<RegistrationError>> {
    let mut providers = BTreeMap::new();
    let mut errors = Vec::new();
    for registration in registrations {
        let id = registration.id.clone();
        let mut mistakes = Vec::new();
        if providers.contains_key(&id) {
            mistakes.push(RegistrationMistake::DuplicateId);
        }
        match catalogue.definition(&registration.definition) {
            Some(definition) => match provider(definition, registration, None) {
                Ok(provider) => {
                    providers.entry(id.clone()).or_insert_with(|| Arc::new(provider));
                }
                Err(found) => mistakes.extend(found),
            },
            None => mistakes.push(RegistrationMistake::UnknownDefinition {
                definition: registration.definition,
                known: catalogue.definitions().map(|d| d.id.to_string()).collect(),
            }),
        }
        errors
            .extend(mistakes.into_iter().map(|mistake| RegistrationError { provider: id.clone(), mistake }));
    }
    if errors.is_empty() { Ok(ConfiguredProviders { providers }) } else { Err(errors) }
}

/// Definition and client become a provider; `own`: of this tenant's configuration, at this revision.
pub(super) fn provider(
    definition: &Definition,
    mut registration: Registration,
    own: Option<(ConfigId, u64)>,
) -> Result<Provider, Vec<RegistrationMistake>> {
    let mut mistakes = Vec::new();
    // What a tenant says leads where a tenant may send the broker; a default of the definition is the operator's word.
    let tenants = match own {
        Some(_) => registration.variables.keys().cloned().collect(),
        None => BTreeSet::new(),
    };
    let Registration { client_id, client_secret, keys, .. } = &mut registration;
    let client = client::client(
        definition,
        std::mem::take(client_id),
        client_secret.take(),
        std::mem::take(keys),
        &mut mistakes,
    );
    let values = values(definition, registration.variables, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut fill =
        Fill { values: &values, tenants: &tenants, named_by_tenant: Vec::new(), mistakes: Vec::new() };
    let endpoints = fill.endpoints(&definition.endpoints);
    let revocation = fill.revocation(&definition.revocation);
    let Fill { named_by_tenant, mistakes, .. } = fill;
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let (Some(endpoints), Some(revocation)) = (endpoints, revocation) else { return Err(mistakes) };
    let mut identity = definition.identity.clone();
    if let (Some(userinfo), EndpointSource::Literal(literal)) = (&mut identity.userinfo, &endpoints) {
        userinfo.url.clone_from(&literal.userinfo);
    }
    Ok(Provider {
        id: registration.id,
        display_name: definition.display_name.clone(),
        endpoints,
        client,
        authorization: definition.authorization.clone(),
        token: definition.token.clone(),
        response: definition.response.clone(),
        refresh: definition.refresh,
        revocation,
        identity,
        services: definition.services.clone(),
        own: own.map(|(id, revision)| OwnConfig { id, revision, named_by_tenant }),
    })
}

/// The variables with their defaults.
fn values(
    definition: &Definition,
    mut given: BTreeMap<String, String>,
    mistakes: &mut Vec<RegistrationMistake>,
) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (name, variable) in &definition.variables {
        let value = match (given.remove(name), &variable.default) {
            (Some(value), _) => value,
            (None, Some(default)) => default.clone(),
            (None, None) => {
                mistakes.push(RegistrationMistake::MissingVariable {
                    name: name.clone(),
                    description: variable.description.clone(),
                });
                continue;
            }
        };
        match template::check_value(variable.kind, &value) {
            Ok(()) => {
                values.insert(name.clone(), value);
            }
            Err(problem) => mistakes.push(RegistrationMistake::BadVariable { name: name.clone(), problem }),
        }
    }
    mistakes.extend(given.into_keys().map(|name| RegistrationMistake::UnknownVariable {
        name,
        definition: definition.id.to_string(),
        known: definition.variables.keys().cloned().collect(),
    }));
    values
}

/// Fills templates in; collects those that don't become good URLs.
struct Fill<'a> {
    values: &'a BTreeMap<String, String>,
    /// Which of the values are a tenant's.
    tenants: &'a BTreeSet<String>,
    /// The URLs with one of those in them.
    named_by_tenant: Vec<Url>,
    mistakes: Vec<RegistrationMistake>,
}

impl Fill<'_> {
    fn url(&mut self, field: &str, template: &UrlTemplate) -> Option<Url> {
        let url = template::check_url(&template.fill(self.values))
            .map_err(|problem| {
                self.mistakes.push(RegistrationMistake::BadUrl { field: field.to_owned(), problem });
            })
            .ok()?;
        if let Some(name) = template.variables().find(|name| self.tenants.contains(*name)) {
            if url.scheme() != "https" {
                let problem = "must lead to an https address";
                self.mistakes.push(RegistrationMistake::BadVariable { name: name.to_owned(), problem });
            }
            self.named_by_tenant.push(url.clone());
        }
        Some(url)
    }

    /// Issuers stay texts: they are compared exactly, and a parsed URL is a normalised one.
    fn issuer(&mut self, template: &UrlTemplate) -> Option<String> {
        self.url("endpoints.issuer", template)?;
        Some(template.fill(self.values))
    }

    fn endpoints(&mut self, templates: &EndpointTemplates) -> Option<EndpointSource> {
        match templates {
            EndpointTemplates::Discovered { issuer } => {
                Some(EndpointSource::Discovered { issuer: self.issuer(issuer)? })
            }
            EndpointTemplates::Literal {
                issuer,
                iss_required,
                authorization,
                token,
                revocation,
                userinfo,
            } => {
                let authorization = self.url("endpoints.authorization", authorization);
                let token = self.url("endpoints.token", token);
                let revocation = revocation.as_ref().map(|url| self.url("endpoints.revocation", url));
                let userinfo = userinfo.as_ref().map(|url| self.url("endpoints.userinfo", url));
                let issuer = issuer.as_ref().map(|issuer| self.issuer(issuer));
                // `Some(None)` is a mistake, reported already.
                Some(EndpointSource::Literal(RecordedEndpoints {
                    issuer: issuer.map_or(Some(None), |found| found.map(Some))?,
                    iss_required: *iss_required,
                    authorization: authorization?,
                    token: token?,
                    revocation: revocation.map_or(Some(None), |found| found.map(Some))?,
                    userinfo: userinfo.map_or(Some(None), |found| found.map(Some))?,
                }))
            }
        }
    }

    fn revocation(&mut self, template: &RevocationTemplate) -> Option<Revocation> {
        Some(match template {
            RevocationTemplate::Rfc7009 { token } => Revocation::Rfc7009 { token: *token },
            RevocationTemplate::NotSupported => Revocation::NotSupported,
            RevocationTemplate::Call { call, url } => {
                // `{client_id}` stays: the OAuth client encodes it into the path.
                let mut with_client = self.values.clone();
                with_client.insert("client_id".to_owned(), "client".to_owned());
                let mut fill = Fill {
                    values: &with_client,
                    tenants: self.tenants,
                    named_by_tenant: Vec::new(),
                    mistakes: Vec::new(),
                };
                let checked = fill.url("revocation.url", url);
                self.mistakes.extend(fill.mistakes);
                self.named_by_tenant.extend(fill.named_by_tenant);
                checked?;
                Revocation::Call(crate::domain::provider::RevocationCall {
                    url: url.fill(self.values),
                    ..call.clone()
                })
            }
        })
    }
}
