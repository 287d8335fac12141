//! ExplainAccess: which rule decides.

use super::super::Broker;
use super::super::error::{BrokerError, NotFound};
use super::api_keys::CallerName;
use crate::domain::access_policy::{Action, Caller, Decision, Mismatch, Principal, Question, Suspension};
use crate::domain::admin_policy::AdminAction;
use crate::domain::key::{ProviderId, ServiceId, UserId};
use crate::domain::scope::ScopeSet;

/// A call that somebody wonders about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainInput {
    /// Of whom.
    pub caller: CallerName,
    /// To do what.
    pub action: Action,
    /// Where, if that is asked.
    pub provider: Option<ProviderId>,
    /// With what.
    pub services: Vec<ServiceId>,
    /// With which scopes named by the call.
    pub scopes: ScopeSet,
    /// For whom, if that is asked.
    pub user: Option<UserId>,
    /// Whether the call carries a token of that user.
    pub own: bool,
}

/// How it would be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// By what.
    pub decision: Decision,
    /// What each rule lacks; `None`: allows it.
    pub rules: Vec<Option<Mismatch>>,
}

impl Broker {
    /// Decides as for a call, and does nothing.
    pub async fn explain_access(
        &self,
        principal: &Principal,
        input: ExplainInput,
    ) -> Result<Explanation, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, input.caller.tenant)?;
        let id = &input.caller.caller;
        let mut caller = if let Some(caller) = self.configured_caller(&tenant, id) {
            caller.clone()
        } else {
            let stored = self.stored_caller(&tenant, id).await?;
            let suspension = stored.disabled_at.map(|_| Suspension::Caller);
            Caller { suspension, ..Caller::new(stored.id, stored.tenant, stored.rules) }
        };
        let enabled = match self.ports.tenants.load_tenant(&tenant).await? {
            Some(found) if found.deleted_at.is_some() => return Err(BrokerError::NotFound(NotFound::Tenant)),
            found => found.is_none_or(|tenant| tenant.is_enabled()),
        };
        if !enabled {
            caller.suspension = Some(Suspension::Tenant);
        }
        let who = Principal { user: input.user.clone().filter(|_| input.own), ..caller.into() };
        let question = Question {
            action: input.action,
            provider: input.provider.as_ref(),
            services: input.services.iter().collect(),
            scopes: Some(&input.scopes),
            user: input.user.as_ref(),
        };
        Ok(Explanation { decision: who.decide(&question), rules: who.explain(&question) })
    }
}
