//! ListCredentials: what is stored, without tokens.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Broker;
use super::error::{BrokerError, Violation};
use super::target::{permit, services_at};
use super::types::{CredentialView, ListAnswer, ListInput, ViewStatus};
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::credential::{Credential, CredentialState, ReauthReason};
use crate::domain::key::{
    Account, CredentialKey, GrantName, ProviderId, TenantId, UserId, append_length_prefixed,
};
use crate::domain::ports::{ListQuery, ProviderStanding};
use crate::domain::provider::Provider;
use crate::domain::token_set::{EXPIRY_MARGIN, ProviderAccount};

/// How many rows are read at least if a page had rows that the caller may not see.
const NEXT_BATCH: u32 = 64;

impl ListInput {
    /// What the policy has to allow.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        let (provider, user) = (self.provider.as_ref(), self.user.as_ref());
        Question { provider, user, ..Question::of(Action::ListCredentials) }
    }
}

impl Broker {
    /// A page of credentials without tokens.
    pub async fn list_credentials(
        &self,
        principal: &Principal,
        input: ListInput,
    ) -> Result<ListAnswer, BrokerError> {
        permit(principal, &input.question())?;
        if let Some(provider) = &input.provider {
            self.provider_exists(principal, provider).await?;
        }
        let filter = filter_digest(&input);
        let after = match &input.page_token {
            None => None,
            Some(token) => Some(PageToken::parse(token, &filter, principal.tenant()).ok_or_else(|| {
                BrokerError::InvalidArgument(vec![Violation::new(
                    "page_token",
                    "The page token must be the `next_page_token` of an answer to the same request.",
                )])
            })?),
        };
        let reach = principal.reach(Action::ListCredentials);
        let providers = input.provider.map(|provider| [provider].into()).or(reach.providers);
        let (user, among) = match (input.user, reach.users) {
            (Some(user), _) => (Some(user), None),
            (None, Some(users)) => users.narrowed(),
            (None, None) => (None, None),
        };
        let query = ListQuery {
            tenant: principal.tenant().clone(),
            user,
            among,
            providers,
            covering: input.covering_scopes,
            after,
            // One more tells whether there is a next page.
            limit: input.page_size.saturating_add(1),
        };
        let mut rows = self.visible_rows(principal, query).await?;
        let full = rows.len() > input.page_size as usize;
        rows.truncate(input.page_size as usize);
        // Of a row that the caller may see, so that the token tells of no other.
        let next_page_token =
            rows.last().filter(|_| full).map(|(last, _)| PageToken::new(&last.key, filter).encode());
        let mut credentials = Vec::with_capacity(rows.len());
        let profiles = rows.iter().filter_map(|(row, _)| row.tokens().map(|tokens| &tokens.profile_sealed));
        self.ports.cipher.expect(&profiles.collect::<Vec<_>>()).await;
        for (row, provider) in &rows {
            credentials.push(self.view_at(row, provider.as_deref()).await?);
        }
        Ok(ListAnswer { credentials, next_page_token })
    }

    /// So many rows as the query asks for, of those that the caller may see, each with its provider: the database knows the
    /// bounds of its rules, and each row is looked at.
    async fn visible_rows(
        &self,
        principal: &Principal,
        mut query: ListQuery,
    ) -> Result<Vec<(Credential, Option<Arc<Provider>>)>, BrokerError> {
        let wanted = query.limit as usize;
        let mut visible = Vec::new();
        loop {
            let rows = self.ports.credentials.list(query.clone()).await?;
            let at_end = rows.len() < query.limit as usize;
            query.after = rows.last().map(|row| row.key.clone());
            for row in rows {
                let provider = self.provider_of(&row).await?.and_then(ProviderStanding::known);
                let (key, services) = (&row.key, services_at(provider.as_deref(), &row.key));
                if principal.sees(Action::ListCredentials, &key.provider, &services, &key.user) {
                    visible.push((row, provider));
                }
            }
            if at_end || visible.len() >= wanted {
                return Ok(visible);
            }
            query.limit = query.limit.max(NEXT_BATCH);
        }
    }
}

/// The row without its tokens; `None` if it is revoked. Without a provider definition its services are unknown.
pub(super) fn view(
    row: &Credential,
    provider: Option<&Provider>,
    account: ProviderAccount,
    now: Timestamp,
) -> Option<CredentialView> {
    let margin = provider.map_or(EXPIRY_MARGIN, |provider| provider.refresh.expiry_margin);
    let (tokens, status) = match &row.state {
        // As GetCredential answers.
        CredentialState::Active { tokens, .. }
            if tokens.refresh.is_none() && !tokens.access_life.is_valid_for(now, Duration::ZERO, margin) =>
        {
            (tokens, ViewStatus::NeedsReauth(ReauthReason::ExpiredNoRefresh))
        }
        CredentialState::Active { tokens, .. } => (tokens, ViewStatus::Active),
        CredentialState::Refreshing { tokens, .. } => (tokens, ViewStatus::Refreshing),
        CredentialState::NeedsReauth { tokens, reason } => (tokens, ViewStatus::NeedsReauth(*reason)),
        CredentialState::Revoked => return None,
    };
    let services =
        provider.map(|provider| provider.covered_services(&row.key.grant, &tokens.scopes).cloned().collect());
    Some(CredentialView {
        key: row.key.clone(),
        services: services.unwrap_or_default(),
        status,
        scopes: tokens.scopes.clone(),
        scopes_assumed: tokens.scopes_assumed,
        generation: row.generation,
        account,
        expires_at: tokens.access_life.expires_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        refreshable: tokens.refresh.is_some(),
    })
}

/// Where the last page ended. Not a secret and no authority: the tenant and the rights are the caller's, each time.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageToken {
    filter: String,
    provider: String,
    user: String,
    grant: String,
    account: String,
}

impl PageToken {
    fn new(last: &CredentialKey, filter: String) -> Self {
        Self {
            filter,
            provider: last.provider.to_string(),
            user: last.user.to_string(),
            grant: last.grant.to_string(),
            account: last.account.to_string(),
        }
    }

    fn encode(&self) -> String {
        // Five texts always have a JSON form.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn parse(text: &str, filter: &str, tenant: &TenantId) -> Option<CredentialKey> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let token: Self = serde_json::from_slice(&json).ok()?;
        if token.filter != filter {
            return None;
        }
        Some(CredentialKey {
            tenant: tenant.clone(),
            provider: ProviderId::new(token.provider).ok()?,
            user: UserId::new(token.user).ok()?,
            grant: GrantName::new(token.grant).ok()?,
            account: Account::new(token.account).ok()?,
        })
    }
}

/// Tells requests with other filters apart, so that a page token is not used with the wrong one.
fn filter_digest(input: &ListInput) -> String {
    let mut bytes = Vec::new();
    append_length_prefixed(&mut bytes, input.user.as_ref().map_or("", UserId::as_str).as_bytes());
    append_length_prefixed(&mut bytes, input.provider.as_ref().map_or("", ProviderId::as_str).as_bytes());
    append_length_prefixed(&mut bytes, input.covering_scopes.join(" ").as_bytes());
    hex::encode(&Sha256::digest(&bytes)[..8])
}
