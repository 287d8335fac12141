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
use super::types::{CredentialView, ListAnswer, ListInput, MAX_PAGE_BYTES, ViewStatus};
use crate::domain::access_policy::{Action, Principal, Question};
use crate::domain::credential::{Credential, CredentialState, ReauthReason};
use crate::domain::key::{
    Account, CredentialKey, GrantName, ProviderId, ServiceId, TenantId, UserId, append_length_prefixed,
};
use crate::domain::ports::{ListQuery, ProviderStanding};
use crate::domain::provider::Provider;
use crate::domain::scope::Scope;
use crate::domain::token_set::{EXPIRY_MARGIN, ProviderAccount};

/// How many rows are read at a time at most; and at least, if a page had rows that the caller may not see. Sealed tokens come with
/// them, so that a page's rows are not all in memory at once.
const BATCH: u32 = 64;

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
            limit: 0,
        };
        self.page(principal, query, input.page_size as usize, filter).await
    }

    /// So many credentials of those that the caller may see, or as many as fit into an answer.
    async fn page(
        &self,
        principal: &Principal,
        mut query: ListQuery,
        size: usize,
        filter: String,
    ) -> Result<ListAnswer, BrokerError> {
        // One more row tells whether there is a next page.
        query.limit = u32::try_from(size + 1).unwrap_or(BATCH).min(BATCH);
        let (mut credentials, mut bytes) = (Vec::<CredentialView>::new(), 0);
        loop {
            let rows = self.ports.credentials.list(query.clone()).await?;
            let at_end = rows.len() < query.limit as usize;
            query.after = rows.last().map(|row| row.key.clone());
            query.limit = BATCH;
            let rows = self.visible(principal, rows).await?;
            let opened = rows.iter().take(size - credentials.len());
            let profiles = opened.filter_map(|(row, _)| row.tokens().map(|tokens| &tokens.profile_sealed));
            self.ports.cipher.expect(&profiles.collect::<Vec<_>>()).await;
            for (row, provider) in rows {
                let next = if credentials.len() < size {
                    let view = self.view_at(&row, provider.as_deref()).await?;
                    bytes += about_bytes(&view);
                    Some(view).filter(|_| credentials.is_empty() || bytes <= MAX_PAGE_BYTES)
                } else {
                    None
                };
                let Some(view) = next else {
                    // Of a row that the caller may see, so that the token tells of no other.
                    let last = credentials.last().map(|last| PageToken::new(&last.key, filter).encode());
                    return Ok(ListAnswer { credentials, next_page_token: last });
                };
                credentials.push(view);
            }
            if at_end {
                return Ok(ListAnswer { credentials, next_page_token: None });
            }
        }
    }

    /// Those of the rows that the caller may see, each with its provider: the database knows the bounds of its rules, and each row
    /// is looked at.
    async fn visible(
        &self,
        principal: &Principal,
        rows: Vec<Credential>,
    ) -> Result<Vec<(Credential, Option<Arc<Provider>>)>, BrokerError> {
        let mut visible = Vec::new();
        for row in rows {
            let provider = self.provider_of(&row).await?.and_then(ProviderStanding::known);
            let (key, services) = (&row.key, services_at(provider.as_deref(), &row.key));
            if principal.sees(Action::ListCredentials, &key.provider, &services, &key.user) {
                visible.push((row, provider));
            }
        }
        Ok(visible)
    }
}

/// How much of an answer a credential takes, about: its texts, of which the scopes may be many, and as much as all else has.
fn about_bytes(view: &CredentialView) -> usize {
    /// What a text costs beside itself.
    const FRAME: usize = 4;
    const ALL_ELSE: usize = 128;
    let key = &view.key;
    let account = [&view.account.subject, &view.account.label].into_iter().flatten().map(String::as_str);
    let texts = [key.provider.as_str(), key.user.as_str(), key.account.as_str()];
    let texts = texts.into_iter().chain(account);
    let texts =
        texts.chain(view.services.iter().map(ServiceId::as_str)).chain(view.scopes.iter().map(Scope::as_str));
    texts.map(|text| text.len() + FRAME).sum::<usize>() + ALL_ELSE
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
