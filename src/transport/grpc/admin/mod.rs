//! `tokenbroker.v1.AdminService`, for operators. Each RPC: parse, one use case, convert.

mod audit;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::guard::open;
use crate::application::Broker;
use crate::application::admin::WhoAmI;
use crate::domain::admin_policy::AdminAction;
use crate::r#gen::v1 as pb;
use crate::r#gen::v1::admin_service_server::AdminService;

/// The service.
pub(super) struct Admin {
    broker: Arc<Broker>,
}

impl Admin {
    /// Over these use cases.
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
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
        call.limited(None).await?;
        let WhoAmI { tenant, caller, rights } = self.broker.who_am_i(&call.principal)?;
        Ok(Response::new(pb::WhoAmIResponse {
            tenant: tenant.to_string(),
            caller: caller.to_string(),
            actions: rights.actions.into_iter().map(|action| admin_action(action).into()).collect(),
            all_tenants: rights.all_tenants,
        }))
    }
}

fn admin_action(action: AdminAction) -> pb::AdminAction {
    match action {
        AdminAction::ManageCallers => pb::AdminAction::ManageCallers,
        AdminAction::ManageTenants => pb::AdminAction::ManageTenants,
        AdminAction::ManageProviders => pb::AdminAction::ManageProviders,
        AdminAction::ManageKeys => pb::AdminAction::ManageKeys,
        AdminAction::ReadAudit => pb::AdminAction::ReadAudit,
        AdminAction::BreakGlass => pb::AdminAction::BreakGlass,
    }
}
