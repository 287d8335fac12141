//! `tokenbroker.v1.AdminService`, for operators. Each RPC: parse, one use case, convert.

mod audit;
mod keys;
mod provider_configs;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{callers as convert, count, fitting, number};
use super::guard::open;
use crate::application::Broker;
use crate::application::admin::{
    BrokenGlass, CallerName, DeleteUserInput, DeletedUser, TenantChange, WhoAmI,
};
use crate::application::audit::Notes;
use crate::application::keys::Keys;
use crate::domain::audit::Target;
use crate::domain::key::TenantId;
use crate::r#gen::v1 as pb;
use crate::r#gen::v1::admin_service_server::AdminService;

/// The service.
pub(super) struct Admin {
    broker: Arc<Broker>,
    keys: Arc<Keys>,
}

impl Admin {
    /// Over these use cases.
    pub(super) fn new(broker: Arc<Broker>, keys: Arc<Keys>) -> Self {
        Self { broker, keys }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn query_audit(
        &self,
        request: Request<pb::QueryAuditRequest>,
    ) -> Result<Response<pb::QueryAuditResponse>, Status> {
        audit::query(&self.broker, request).await
    }

    async fn verify_audit(
        &self,
        request: Request<pb::VerifyAuditRequest>,
    ) -> Result<Response<pb::VerifyAuditResponse>, Status> {
        audit::verify(&self.broker, request).await
    }

    type ExportAuditStream = audit::Export;

    async fn export_audit(
        &self,
        request: Request<pb::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        audit::export(&self.broker, request).await
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let (call, pb::WhoAmIRequest {}) = open(request)?;
        let WhoAmI { tenant, caller, rights } = self.broker.who_am_i(&call.principal)?;
        let actions = rights.actions.into_iter();
        Ok(Response::new(pb::WhoAmIResponse {
            tenant: tenant.to_string(),
            caller: caller.to_string(),
            actions: actions.map(|action| convert::admin_action_message(action).into()).collect(),
            all_tenants: rights.all_tenants,
        }))
    }

    async fn list_data_keys(
        &self,
        request: Request<pb::ListDataKeysRequest>,
    ) -> Result<Response<pb::ListDataKeysResponse>, Status> {
        keys::list(&self.keys, open(request)?).await.map(Response::new)
    }

    async fn rotate_data_keys(
        &self,
        request: Request<pb::RotateDataKeysRequest>,
    ) -> Result<Response<pb::RotateDataKeysResponse>, Status> {
        keys::rotate(&self.keys, open(request)?).await.map(Response::new)
    }

    async fn rewrap_data_keys(
        &self,
        request: Request<pb::RewrapDataKeysRequest>,
    ) -> Result<Response<pb::RewrapDataKeysResponse>, Status> {
        keys::rewrap(&self.keys, open(request)?).await.map(Response::new)
    }

    async fn retire_data_key(
        &self,
        request: Request<pb::RetireDataKeyRequest>,
    ) -> Result<Response<pb::RetireDataKeyResponse>, Status> {
        keys::retire(&self.keys, open(request)?).await.map(Response::new)
    }

    async fn create_caller(
        &self,
        request: Request<pb::CreateCallerRequest>,
    ) -> Result<Response<pb::CreateCallerResponse>, Status> {
        let (call, pb::CreateCallerRequest { tenant, caller, settings }) = open(request)?;
        let (CallerName { tenant, caller }, _, settings) =
            convert::caller_settings(tenant, caller, None, settings)?;
        call.notes.acts_on(target(tenant.as_ref()).and(CALLER, &caller));
        let made = self.broker.create_caller(&call.principal, tenant, caller, settings).await?;
        Ok(Response::new(pb::CreateCallerResponse { caller: Some(convert::caller_message(made)) }))
    }

    async fn get_caller(
        &self,
        request: Request<pb::GetCallerRequest>,
    ) -> Result<Response<pb::GetCallerResponse>, Status> {
        let (call, pb::GetCallerRequest { tenant, caller }) = open(request)?;
        let CallerName { tenant, caller } = convert::caller_name(tenant, caller)?;
        call.notes.acts_on(target(tenant.as_ref()).and(CALLER, &caller));
        let found = self.broker.get_caller(&call.principal, tenant, caller).await?;
        Ok(Response::new(pb::GetCallerResponse { caller: Some(convert::caller_message(found)) }))
    }

    async fn list_callers(
        &self,
        request: Request<pb::ListCallersRequest>,
    ) -> Result<Response<pb::ListCallersResponse>, Status> {
        let (call, message) = open(request)?;
        let (tenant, (after, size)) = convert::caller_page(message)?;
        about_tenant(&call.notes, tenant.as_ref());
        let (page, more) = self.broker.list_callers(&call.principal, tenant, after, size).await?;
        let (callers, more) = fitting(page.into_iter().map(convert::caller_message), more);
        let last = callers.last().filter(|_| more).map(|caller| caller.caller.clone());
        Ok(Response::new(pb::ListCallersResponse { callers, next_page_token: last.unwrap_or_default() }))
    }

    async fn update_caller(
        &self,
        request: Request<pb::UpdateCallerRequest>,
    ) -> Result<Response<pb::UpdateCallerResponse>, Status> {
        let (call, pb::UpdateCallerRequest { tenant, caller, revision, settings }) = open(request)?;
        let (CallerName { tenant, caller }, revision, settings) =
            convert::caller_settings(tenant, caller, Some(revision), settings)?;
        call.notes.acts_on(target(tenant.as_ref()).and(CALLER, &caller));
        let changed = self.broker.update_caller(&call.principal, tenant, caller, revision, settings).await?;
        Ok(Response::new(pb::UpdateCallerResponse { caller: Some(convert::caller_message(changed)) }))
    }

    async fn delete_caller(
        &self,
        request: Request<pb::DeleteCallerRequest>,
    ) -> Result<Response<pb::DeleteCallerResponse>, Status> {
        let (call, pb::DeleteCallerRequest { tenant, caller }) = open(request)?;
        let CallerName { tenant, caller } = convert::caller_name(tenant, caller)?;
        call.notes.acts_on(target(tenant.as_ref()).and(CALLER, &caller));
        self.broker.delete_caller(&call.principal, tenant, caller).await?;
        Ok(Response::new(pb::DeleteCallerResponse {}))
    }

    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let (call, pb::CreateApiKeyRequest { tenant, caller, label, lifetime }) = open(request)?;
        let of = convert::caller_name(tenant, caller)?;
        let on = of_caller(&of);
        call.notes.acts_on(on.clone());
        let input = convert::new_key(label, lifetime)?;
        let (key, secret) = self.broker.create_api_key(&call.principal, of, input).await?;
        call.notes.acts_on(on.and(KEY, &key.id));
        Ok(Response::new(pb::CreateApiKeyResponse {
            key: Some(self.key(key)),
            api_key: secret.expose_secret().to_owned(),
        }))
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let (call, pb::ListApiKeysRequest { tenant, caller }) = open(request)?;
        let of = convert::caller_name(tenant, caller)?;
        call.notes.acts_on(of_caller(&of));
        let keys = self.broker.list_api_keys(&call.principal, of).await?;
        Ok(Response::new(pb::ListApiKeysResponse {
            keys: keys.into_iter().map(|key| self.key(key)).collect(),
        }))
    }

    async fn rotate_api_key(
        &self,
        request: Request<pb::RotateApiKeyRequest>,
    ) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
        let (call, message) = open(request)?;
        let of = convert::caller_name(message.tenant, message.caller)?;
        let old = convert::key_id(&message.key_id)?;
        let on = of_caller(&of).and(KEY, &old);
        call.notes.acts_on(on.clone());
        let overlap = convert::overlap(message.overlap)?;
        let input = convert::new_key(message.label, message.lifetime)?;
        let (key, secret) = self.broker.rotate_api_key(&call.principal, of, old, overlap, input).await?;
        call.notes.acts_on(on.and(NEW_KEY, &key.id));
        Ok(Response::new(pb::RotateApiKeyResponse {
            key: Some(self.key(key)),
            api_key: secret.expose_secret().to_owned(),
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
        let (call, pb::RevokeApiKeyRequest { tenant, caller, key_id }) = open(request)?;
        let of = convert::caller_name(tenant, caller)?;
        let id = convert::key_id(&key_id)?;
        call.notes.acts_on(of_caller(&of).and(KEY, &id));
        let key = self.broker.revoke_api_key(&call.principal, of, id).await?;
        Ok(Response::new(pb::RevokeApiKeyResponse { key: Some(self.key(key)) }))
    }

    async fn explain_access(
        &self,
        request: Request<pb::ExplainAccessRequest>,
    ) -> Result<Response<pb::ExplainAccessResponse>, Status> {
        let (call, message) = open(request)?;
        let input = convert::explain(message)?;
        call.notes.about_user(input.user.as_ref(), input.provider.as_ref());
        call.notes.acts_on(of_caller(&input.caller));
        let explanation = self.broker.explain_access(&call.principal, input).await?;
        let rules = explanation.rules.into_iter();
        let rules = rules.map(|rule| rule.map_or_else(|| "allows it".to_owned(), |why| why.to_string()));
        Ok(Response::new(pb::ExplainAccessResponse {
            allowed: explanation.decision.is_allowed(),
            decided_by: explanation.decision.to_string(),
            rules: rules.collect(),
        }))
    }

    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let (call, pb::CreateTenantRequest { tenant, display_name }) = open(request)?;
        let (id, name) = (convert::tenant_id(tenant)?, convert::display_name(display_name)?);
        call.notes.acts_on(target(Some(&id)));
        let made = self.broker.create_tenant(&call.principal, id, name).await?;
        Ok(Response::new(pb::CreateTenantResponse { tenant: Some(convert::tenant_message(made)) }))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        let (call, pb::GetTenantRequest { tenant }) = open(request)?;
        let id = convert::tenant_id(tenant)?;
        call.notes.acts_on(target(Some(&id)));
        let found = self.broker.get_tenant(&call.principal, id).await?;
        Ok(Response::new(pb::GetTenantResponse { tenant: Some(convert::tenant_message(found)) }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let (call, message) = open(request)?;
        let (after, size) = convert::tenant_page(message)?;
        let (page, more) = self.broker.list_tenants(&call.principal, after, size).await?;
        let last = page.last().filter(|_| more).map(|tenant| tenant.id.to_string());
        Ok(Response::new(pb::ListTenantsResponse {
            tenants: page.into_iter().map(convert::tenant_message).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<pb::UpdateTenantRequest>,
    ) -> Result<Response<pb::UpdateTenantResponse>, Status> {
        let (call, pb::UpdateTenantRequest { tenant, display_name, disabled }) = open(request)?;
        let id = convert::tenant_id(tenant)?;
        call.notes.acts_on(target(Some(&id)));
        let change =
            TenantChange { display_name: display_name.map(convert::display_name).transpose()?, disabled };
        let changed = self.broker.update_tenant(&call.principal, id, change).await?;
        Ok(Response::new(pb::UpdateTenantResponse { tenant: Some(convert::tenant_message(changed)) }))
    }

    async fn delete_tenant(
        &self,
        request: Request<pb::DeleteTenantRequest>,
    ) -> Result<Response<pb::DeleteTenantResponse>, Status> {
        let (call, pb::DeleteTenantRequest { tenant }) = open(request)?;
        let id = convert::tenant_id(tenant)?;
        call.notes.acts_on(target(Some(&id)));
        self.broker.delete_tenant(&call.principal, id).await?;
        Ok(Response::new(pb::DeleteTenantResponse {}))
    }

    async fn revoke_user_credentials(
        &self,
        request: Request<pb::RevokeUserCredentialsRequest>,
    ) -> Result<Response<pb::RevokeUserCredentialsResponse>, Status> {
        let (call, pb::RevokeUserCredentialsRequest { tenant, user_id }) = open(request)?;
        let (tenant, user) = (convert::optional_tenant(tenant)?, convert::user_id(user_id)?);
        call.notes.about_user(Some(&user), None);
        about_tenant(&call.notes, tenant.as_ref());
        let done = self.broker.break_glass(&call.principal, tenant, Some(user)).await?;
        let BrokenGlass { revoked, cancelled_flows, more } = done;
        let (revoked, cancelled_flows) = (count(revoked), count(cancelled_flows));
        Ok(Response::new(pb::RevokeUserCredentialsResponse { revoked, cancelled_flows, more }))
    }

    async fn revoke_tenant_credentials(
        &self,
        request: Request<pb::RevokeTenantCredentialsRequest>,
    ) -> Result<Response<pb::RevokeTenantCredentialsResponse>, Status> {
        let (call, pb::RevokeTenantCredentialsRequest { tenant }) = open(request)?;
        let tenant = convert::optional_tenant(tenant)?;
        // All of it, also if it is the operator's own and goes without a name.
        call.notes.acts_on(target(Some(tenant.as_ref().unwrap_or(call.principal.tenant()))));
        let done = self.broker.break_glass(&call.principal, tenant, None).await?;
        let BrokenGlass { revoked, cancelled_flows, more } = done;
        let (revoked, cancelled_flows) = (count(revoked), count(cancelled_flows));
        Ok(Response::new(pb::RevokeTenantCredentialsResponse { revoked, cancelled_flows, more }))
    }

    async fn create_provider_configuration(
        &self,
        request: Request<pb::CreateProviderConfigurationRequest>,
    ) -> Result<Response<pb::CreateProviderConfigurationResponse>, Status> {
        provider_configs::create(&self.broker, request).await
    }

    async fn get_provider_configuration(
        &self,
        request: Request<pb::GetProviderConfigurationRequest>,
    ) -> Result<Response<pb::GetProviderConfigurationResponse>, Status> {
        provider_configs::get(&self.broker, request).await
    }

    async fn list_provider_configurations(
        &self,
        request: Request<pb::ListProviderConfigurationsRequest>,
    ) -> Result<Response<pb::ListProviderConfigurationsResponse>, Status> {
        provider_configs::list(&self.broker, request).await
    }

    async fn update_provider_configuration(
        &self,
        request: Request<pb::UpdateProviderConfigurationRequest>,
    ) -> Result<Response<pb::UpdateProviderConfigurationResponse>, Status> {
        provider_configs::update(&self.broker, request).await
    }

    async fn delete_provider_configuration(
        &self,
        request: Request<pb::DeleteProviderConfigurationRequest>,
    ) -> Result<Response<pb::DeleteProviderConfigurationResponse>, Status> {
        provider_configs::delete(&self.broker, request).await
    }

    async fn delete_user_data(
        &self,
        request: Request<pb::DeleteUserDataRequest>,
    ) -> Result<Response<pb::DeleteUserDataResponse>, Status> {
        let (call, pb::DeleteUserDataRequest { tenant, user_id, abandon_revocations }) = open(request)?;
        let (tenant, user) = (convert::optional_tenant(tenant)?, convert::user_id(user_id)?);
        call.notes.about_user(Some(&user), None);
        about_tenant(&call.notes, tenant.as_ref());
        let input = DeleteUserInput { tenant, user, abandon_revocations };
        let done = self.broker.delete_user_data(&call.principal, input).await?;
        let DeletedUser { revoked, cancelled_flows, more, waiting_revocations, deleted } = done;
        Ok(Response::new(pb::DeleteUserDataResponse {
            revoked: count(revoked),
            cancelled_flows: count(cancelled_flows),
            more,
            waiting_revocations: number(waiting_revocations),
            deleted,
        }))
    }
}

impl Admin {
    fn key(&self, key: crate::domain::caller_store::ApiKey) -> pb::ApiKey {
        let good = self.broker.is_good(&key);
        convert::key_message(key, good)
    }
}

/// What audit rows call the things that operators act on.
const TENANT: &str = "tenant";
const CALLER: &str = "caller";
const KEY: &str = "key";
/// The one that takes the place of another.
const NEW_KEY: &str = "new_key";

/// A row is in the trail of whoever called: another tenant has to be named.
fn target(tenant: Option<&TenantId>) -> Target {
    tenant.map_or_else(Target::default, |tenant| Target::default().and(TENANT, tenant))
}

fn of_caller(name: &CallerName) -> Target {
    target(name.tenant.as_ref()).and(CALLER, &name.caller)
}

fn about_tenant(notes: &Notes, tenant: Option<&TenantId>) {
    if tenant.is_some() {
        notes.acts_on(target(tenant));
    }
}
