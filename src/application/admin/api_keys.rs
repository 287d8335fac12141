//! API keys of callers: made, listed, replaced, revoked. A key is shown once, when it is made.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::super::Broker;
use super::super::endings::later;
use super::super::error::{BrokerError, NotFound, Precondition};
use crate::domain::access_policy::{API_KEY_PREFIX, Identity, Principal};
use crate::domain::admin_policy::AdminAction;
use crate::domain::caller_store::{ApiKey, ApiKeyWrite, NewApiKey};
use crate::domain::key::{ApiKeyId, CallerId, TenantId};
use crate::domain::secret::SecretString;

/// Which caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName {
    /// `None`: the principal's own.
    pub tenant: Option<TenantId>,
    /// Its id.
    pub caller: CallerId,
}

/// A key to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInput {
    /// For people.
    pub label: String,
    /// How long it is good; `None`: until it is revoked.
    pub lifetime: Option<Duration>,
}

impl Broker {
    /// Whether somebody can come in with this key now.
    #[must_use]
    pub fn is_good(&self, key: &ApiKey) -> bool {
        key.is_good(self.ports.clock.now())
    }

    /// Makes a key.
    pub async fn create_api_key(
        &self,
        principal: &Principal,
        of: CallerName,
        input: ApiKeyInput,
    ) -> Result<(ApiKey, SecretString), BrokerError> {
        let caller = self.changeable_caller(principal, of.tenant, &of.caller).await?;
        let (new, secret) = self.new_api_key(caller.tenant, caller.id, input)?;
        written(self.ports.callers.insert_api_key(new.clone()).await?)?;
        Ok((new.key, secret))
    }

    /// All keys of a caller, the newest first.
    pub async fn list_api_keys(
        &self,
        principal: &Principal,
        of: CallerName,
    ) -> Result<Vec<ApiKey>, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageCallers, of.tenant)?;
        if self.configured_caller(&tenant, &of.caller).is_some() {
            // The configuration has their hashes, and nothing to list.
            return Err(BrokerError::FailedPrecondition(Precondition::CallerConfigured));
        }
        self.stored_caller(&tenant, &of.caller).await?;
        Ok(self.ports.callers.list_api_keys(&tenant, &of.caller).await?)
    }

    /// Makes a key in place of another, which stays good for `overlap`.
    pub async fn rotate_api_key(
        &self,
        principal: &Principal,
        of: CallerName,
        old: ApiKeyId,
        overlap: Duration,
        input: ApiKeyInput,
    ) -> Result<(ApiKey, SecretString), BrokerError> {
        let caller = self.changeable_caller(principal, of.tenant, &of.caller).await?;
        let (new, secret) = self.new_api_key(caller.tenant, caller.id, input)?;
        let old_ends_at = later(new.key.created_at, overlap);
        written(self.ports.callers.rotate_api_key(old, old_ends_at, new.clone()).await?)?;
        Ok((new.key, secret))
    }

    /// Ends a key: at once in the database, and on every replica when what it remembers is too old.
    pub async fn revoke_api_key(
        &self,
        principal: &Principal,
        of: CallerName,
        id: ApiKeyId,
    ) -> Result<ApiKey, BrokerError> {
        let caller = self.changeable_caller(principal, of.tenant, &of.caller).await?;
        let now = self.ports.clock.now();
        let revoked = self.ports.callers.revoke_api_key(&caller.tenant, &caller.id, id, now).await?;
        revoked.ok_or(BrokerError::NotFound(NotFound::ApiKey))
    }

    fn new_api_key(
        &self,
        tenant: TenantId,
        caller: CallerId,
        input: ApiKeyInput,
    ) -> Result<(NewApiKey, SecretString), BrokerError> {
        let bytes = self.random::<32>();
        let secret = SecretString::new(format!("{API_KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)));
        let Some(Identity::ApiKey(hash)) = Identity::of_api_key(&secret) else {
            return Err(BrokerError::Internal);
        };
        let now = self.ports.clock.now();
        let key = ApiKey {
            id: ApiKeyId::from_random(self.random()),
            tenant,
            caller,
            label: input.label,
            created_at: now,
            expires_at: input.lifetime.map(|lifetime| later(now, lifetime)),
            revoked_at: None,
            last_used_at: None,
        };
        Ok((NewApiKey { key, hash }, secret))
    }
}

fn written(write: ApiKeyWrite) -> Result<(), BrokerError> {
    match write {
        ApiKeyWrite::Done => Ok(()),
        ApiKeyWrite::Unknown => Err(BrokerError::NotFound(NotFound::ApiKey)),
        ApiKeyWrite::TooMany => Err(BrokerError::FailedPrecondition(Precondition::TooManyApiKeys)),
    }
}
