//! The RPCs about a tenant's own OAuth apps.

use tonic::{Request, Response, Status};

use super::super::convert::{fitting, provider_configs as convert};
use super::super::guard::open;
use super::about_tenant;
use crate::application::Broker;
use crate::r#gen::v1 as pb;

pub(super) async fn create(
    broker: &Broker,
    request: Request<pb::CreateProviderConfigurationRequest>,
) -> Result<Response<pb::CreateProviderConfigurationResponse>, Status> {
    let (call, message) = open(request)?;
    let (tenant, new) = convert::new_config(message)?;
    call.notes.about_user(None, Some(&new.provider));
    about_tenant(&call.notes, tenant.as_ref());
    let made = broker.create_provider_config(&call.principal, tenant, new).await?;
    let configuration = Some(convert::config_message(made));
    Ok(Response::new(pb::CreateProviderConfigurationResponse { configuration }))
}

pub(super) async fn get(
    broker: &Broker,
    request: Request<pb::GetProviderConfigurationRequest>,
) -> Result<Response<pb::GetProviderConfigurationResponse>, Status> {
    let (call, pb::GetProviderConfigurationRequest { tenant, provider }) = open(request)?;
    let (tenant, provider) = convert::config_name(tenant, provider)?;
    call.notes.about_user(None, Some(&provider));
    about_tenant(&call.notes, tenant.as_ref());
    let found = broker.get_provider_config(&call.principal, tenant, &provider).await?;
    let configuration = Some(convert::config_message(found));
    Ok(Response::new(pb::GetProviderConfigurationResponse { configuration }))
}

pub(super) async fn list(
    broker: &Broker,
    request: Request<pb::ListProviderConfigurationsRequest>,
) -> Result<Response<pb::ListProviderConfigurationsResponse>, Status> {
    let (call, message) = open(request)?;
    let (tenant, (after, size)) = convert::config_page(message)?;
    about_tenant(&call.notes, tenant.as_ref());
    let (page, more) = broker.list_provider_configs(&call.principal, tenant, after, size).await?;
    let (configurations, more) = fitting(page.into_iter().map(convert::config_message), more);
    let last = configurations.last().filter(|_| more).map(|config| config.provider.clone());
    Ok(Response::new(pb::ListProviderConfigurationsResponse {
        configurations,
        next_page_token: last.unwrap_or_default(),
    }))
}

pub(super) async fn update(
    broker: &Broker,
    request: Request<pb::UpdateProviderConfigurationRequest>,
) -> Result<Response<pb::UpdateProviderConfigurationResponse>, Status> {
    let (call, message) = open(request)?;
    let ((tenant, provider), revision, change) = convert::config_change(message)?;
    call.notes.about_user(None, Some(&provider));
    about_tenant(&call.notes, tenant.as_ref());
    let changed = broker.update_provider_config(&call.principal, tenant, &provider, revision, change).await?;
    let configuration = Some(convert::config_message(changed));
    Ok(Response::new(pb::UpdateProviderConfigurationResponse { configuration }))
}

pub(super) async fn delete(
    broker: &Broker,
    request: Request<pb::DeleteProviderConfigurationRequest>,
) -> Result<Response<pb::DeleteProviderConfigurationResponse>, Status> {
    let (call, pb::DeleteProviderConfigurationRequest { tenant, provider, force }) = open(request)?;
    let (tenant, provider) = convert::config_name(tenant, provider)?;
    call.notes.about_user(None, Some(&provider));
    about_tenant(&call.notes, tenant.as_ref());
    broker.delete_provider_config(&call.principal, tenant, &provider, force).await?;
    Ok(Response::new(pb::DeleteProviderConfigurationResponse {}))
}
