//! What use cases answer, to messages.

use super::time::timestamp;
use super::{count, enums};
use crate::application::types::{
    AccessGrant, AuthorizationRequired, CompletedFlow, CredentialView, EventView, FlowView, LeaseAnswer,
    LeaseView, ListAnswer, ProviderView, RevokeAnswer, ServiceKey, StartedFlow, TokenAnswer, WatchMessage,
};
use crate::domain::event::{Change, Event, FlowCause, NewEvent, Standing};
use crate::domain::flow::ConsentOptions;
use crate::domain::key::ServiceId;
use crate::domain::secret::SecretString;
use crate::domain::token_set::ProviderAccount;
use crate::r#gen::v1 as pb;

/// GetCredential.
pub(in super::super) fn get_credential(answer: TokenAnswer) -> pb::GetCredentialResponse {
    use pb::get_credential_response::Result;
    let result = match answer {
        TokenAnswer::Token(grant) => Result::Credential(credential(*grant)),
        TokenAnswer::AuthorizationRequired(required) => {
            Result::AuthorizationRequired(authorization_required(&required))
        }
    };
    pb::GetCredentialResponse { result: Some(result) }
}

/// Refresh.
pub(in super::super) fn refresh(answer: TokenAnswer) -> pb::RefreshResponse {
    use pb::refresh_response::Result;
    let result = match answer {
        TokenAnswer::Token(grant) => Result::Credential(credential(*grant)),
        TokenAnswer::AuthorizationRequired(required) => {
            Result::AuthorizationRequired(authorization_required(&required))
        }
    };
    pb::RefreshResponse { result: Some(result) }
}

/// Revoke.
pub(in super::super) fn revoke(answer: &RevokeAnswer) -> pb::RevokeResponse {
    pb::RevokeResponse {
        deleted: answer.deleted,
        provider_revocation: enums::provider_revocation(answer.provider).into(),
        services: service_ids(&answer.services),
        cancelled_flows: count(answer.cancelled_flows),
    }
}

/// AcquireLease.
pub(in super::super) fn acquire_lease(answer: LeaseAnswer) -> pb::AcquireLeaseResponse {
    use pb::acquire_lease_response::Result;
    let result = match answer {
        LeaseAnswer::Leased { grant, lease } => Result::Leased(leased(*grant, lease)),
        LeaseAnswer::AuthorizationRequired(required) => {
            Result::AuthorizationRequired(authorization_required(&required))
        }
    };
    pb::AcquireLeaseResponse { result: Some(result) }
}

/// AcquireLease and RenewLease.
pub(in super::super) fn leased(grant: AccessGrant, lease: LeaseView) -> pb::LeasedCredential {
    let lease = pb::Lease {
        lease_id: lease.id.to_string(),
        expire_time: Some(timestamp(lease.expires_at)),
        capped: lease.capped,
        unprotected: lease.unprotected,
    };
    pb::LeasedCredential { credential: Some(credential(grant)), lease: Some(lease) }
}

/// Each of WatchCredentials.
pub(in super::super) fn watch_message(message: WatchMessage) -> pb::WatchCredentialsResponse {
    pb::WatchCredentialsResponse { cursor: message.cursor, event: message.event.map(event) }
}

fn event(view: EventView) -> pb::CredentialEvent {
    let Event { position, told: NewEvent { key, change, at } } = view.event;
    let (change, flow) = event_change(change);
    let (flow_id, client_state) = match flow {
        Some(flow) => (flow.id.to_string(), flow.client_state.unwrap_or_default()),
        None => Default::default(),
    };
    pb::CredentialEvent {
        event_id: format!("{}-{}", position.transaction, position.sequence),
        provider: key.provider.to_string(),
        user_id: key.user.to_string(),
        services: service_ids(&view.services),
        account: key.account.to_string(),
        event_time: Some(timestamp(at)),
        flow_id,
        client_state,
        change: Some(change),
    }
}

fn event_change(change: Change) -> (pb::credential_event::Change, Option<FlowCause>) {
    use pb::credential_event::Change as Told;
    let credential = |was, is, reason: pb::AuthorizationRequiredReason, generation| {
        Told::Credential(pb::CredentialChange {
            old_standing: enums::standing(was).into(),
            new_standing: enums::standing(is).into(),
            needs_reauth_reason: reason.into(),
            generation,
        })
    };
    let no_reason = pb::AuthorizationRequiredReason::Unspecified;
    match change {
        Change::Connected { was, generation, flow } => {
            (credential(was, Standing::Connected, no_reason, generation), flow)
        }
        Change::NeedsReauth { was, reason, generation } => {
            (credential(was, Standing::NeedsReauth, enums::reauth_reason(reason), generation), None)
        }
        Change::Revoked { was, generation } => {
            (credential(was, Standing::Revoked, no_reason, generation), None)
        }
        Change::FlowEnded { flow, was, is } => {
            let (new_status, failure) = enums::flow_status(is);
            let change = pb::FlowChange {
                old_status: enums::flow_status(was).0.into(),
                new_status: new_status.into(),
                failure: failure.to_owned(),
            };
            (Told::Flow(change), Some(flow))
        }
    }
}

/// BeginOAuth.
pub(in super::super) fn begin_oauth(flow: &StartedFlow) -> pb::BeginOAuthResponse {
    pb::BeginOAuthResponse { flow: Some(started_flow(flow)), scopes: flow.scopes.to_strings() }
}

/// GetFlow and CancelFlow.
pub(in super::super) fn flow(flow: FlowView) -> pb::Flow {
    let (status, failure) = enums::flow_status(flow.status);
    let ConsentOptions { return_url: _, client_state, login_hint: _ } = flow.options;
    pb::Flow {
        flow_id: flow.id.to_string(),
        status: status.into(),
        provider: flow.key.provider.to_string(),
        user_id: flow.key.user.to_string(),
        services: service_ids(&flow.services),
        account: flow.key.account.to_string(),
        scopes: flow.scopes.to_strings(),
        failure: failure.to_owned(),
        client_state: client_state.unwrap_or_default(),
        create_time: Some(timestamp(flow.created_at)),
        expire_time: Some(timestamp(flow.expires_at)),
        end_time: flow.ended_at.map(timestamp),
        binding: enums::binding(flow.binding).into(),
    }
}

/// CompleteOAuth.
pub(in super::super) fn complete_oauth(answer: CompletedFlow) -> pb::CompleteOAuthResponse {
    pb::CompleteOAuthResponse {
        flow: Some(flow(answer.flow)),
        credential: answer.credential.map(credential_summary),
    }
}

/// ListCredentials.
pub(in super::super) fn list_credentials(answer: ListAnswer) -> pb::ListCredentialsResponse {
    pb::ListCredentialsResponse {
        credentials: answer.credentials.into_iter().map(credential_summary).collect(),
        next_page_token: answer.next_page_token.unwrap_or_default(),
    }
}

/// ImportCredential and each of ListCredentials.
pub(in super::super) fn credential_summary(view: CredentialView) -> pb::CredentialSummary {
    let (status, reason) = enums::credential_status(view.status);
    pb::CredentialSummary {
        provider: view.key.provider.to_string(),
        user_id: view.key.user.to_string(),
        services: service_ids(&view.services),
        account: view.key.account.to_string(),
        status: status.into(),
        needs_reauth_reason: reason.into(),
        scopes: view.scopes.to_strings(),
        scopes_assumed: view.scopes_assumed,
        generation: view.generation,
        provider_account: Some(provider_account(view.account)),
        expire_time: view.expires_at.map(timestamp),
        create_time: Some(timestamp(view.created_at)),
        update_time: Some(timestamp(view.updated_at)),
        refreshable: view.refreshable,
    }
}

/// ListProviders.
pub(in super::super) fn list_providers(views: &[ProviderView]) -> pb::ListProvidersResponse {
    pb::ListProvidersResponse { providers: views.iter().map(provider).collect() }
}

fn provider(view: &ProviderView) -> pb::Provider {
    let services = view.provider.services.iter().map(|(id, service)| pb::Service {
        id: id.to_string(),
        display_name: service.display_name.clone(),
        scopes: service.scopes.to_strings(),
        grant: service.grant.to_string(),
    });
    pb::Provider {
        id: view.provider.id.to_string(),
        display_name: view.provider.display_name.clone(),
        services: services.collect(),
        supports_revocation: view.provider.supports_revocation(),
        redirect_uri: view.redirect_uri.to_string(),
    }
}

fn credential(grant: AccessGrant) -> pb::Credential {
    let refresh_state = match grant.failure {
        None => pb::RefreshState::Fresh,
        Some(_) => pb::RefreshState::LastRefreshFailed,
    };
    pb::Credential {
        access_token: grant.access_token.expose_secret().to_owned(),
        token_type: grant.token_type,
        expire_time: grant.expires_at.map(timestamp),
        scopes: grant.scopes.to_strings(),
        scopes_assumed: grant.scopes_assumed,
        generation: grant.generation,
        account: Some(provider_account(grant.account)),
        extra: grant.extra.into_iter().collect(),
        refresh_state: refresh_state.into(),
        refresh_failure: grant.failure.map(enums::refresh_failure).unwrap_or_default().to_owned(),
        key: Some(credential_key(&grant.key)),
    }
}

fn authorization_required(required: &AuthorizationRequired) -> pb::AuthorizationRequired {
    pb::AuthorizationRequired {
        reason: enums::consent_reason(required.reason).into(),
        missing_scopes: required.missing_scopes.to_strings(),
        flow: required.flow.as_ref().map(started_flow),
    }
}

fn started_flow(flow: &StartedFlow) -> pb::StartedFlow {
    pb::StartedFlow {
        flow_id: flow.id.to_string(),
        authorization_url: flow.authorization_url.expose_secret().to_owned(),
        expire_time: Some(timestamp(flow.expires_at)),
        flow_secret: flow.flow_secret.as_ref().map_or("", SecretString::expose_secret).to_owned(),
        binding: enums::binding(flow.binding).into(),
    }
}

fn credential_key(key: &ServiceKey) -> pb::CredentialKey {
    pb::CredentialKey {
        provider: key.provider.to_string(),
        user_id: key.user.to_string(),
        service: key.service.to_string(),
        account: key.account.to_string(),
    }
}

fn provider_account(account: ProviderAccount) -> pb::ProviderAccount {
    pb::ProviderAccount {
        subject: account.subject.unwrap_or_default(),
        label: account.label.unwrap_or_default(),
    }
}

fn service_ids<'a>(ids: impl IntoIterator<Item = &'a ServiceId>) -> Vec<String> {
    ids.into_iter().map(ToString::to_string).collect()
}
