//! Steps 7 and 8 of a refresh: the provider's answer is sealed, copied to where it survives this process, and written.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Broker;
use super::endings::vault_failed;
use super::metrics;
use super::pauses::Pauses;
use super::refresh::{Claimed, Ready};
use super::sealing::{seal_profile, seal_text};
use super::single_flight::FlightEnd;
use crate::domain::cipher::{Binding, CipherError, Field};
use crate::domain::coordination::Successor;
use crate::domain::credential::{StoredRefreshToken, StoredTokens};
use crate::domain::key::TenantId;
use crate::domain::ports::{LineageWrite, Persisted, StoreError};
use crate::domain::refresh_policy::next_refresh;
use crate::domain::step::Step;
use crate::domain::token_set::{AccessLife, TokenResponse};

/// The copies under way.
pub(super) struct Copies(mpsc::Receiver<bool>);

impl Copies {
    /// Waits for all of them.
    pub(super) async fn all_made(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Broker {
    /// The answer as the row will have it. Tries until the vault can: its keys were in memory before the claim, and the user's
    /// is held by the sealer. What is sealed with a key that was deleted meanwhile is a token pair of a row that is revoked.
    pub(super) async fn seal_answer(
        &self,
        claimed: &Claimed,
        response: &TokenResponse,
    ) -> Result<LineageWrite, FlightEnd> {
        let ready = &claimed.ready;
        let obtained_at = self.ports.clock.now();
        let mut pauses = Pauses::new();
        loop {
            match self.renew(claimed, response, AccessLife::starting(obtained_at, response.expires_in)).await
            {
                Ok(tokens) => {
                    return Ok(LineageWrite {
                        id: ready.row.id,
                        grant_id: ready.row.grant_id,
                        epoch: claimed.epoch,
                        parent_fingerprint: ready.refresh.fingerprint,
                        tokens,
                        now: obtained_at,
                    });
                }
                Err(error @ (CipherError::Store(_) | CipherError::KeyService(_))) => {
                    tracing::error!(credential = %ready.row.id, %error, "a new token pair is not sealed yet");
                    pauses.wait().await;
                }
                Err(
                    error @ (CipherError::UnknownKey | CipherError::KeysDeleted | CipherError::DoesNotOpen),
                ) => {
                    return Err(vault_failed(error));
                }
            }
        }
    }

    /// Appends to the journal and writes the successor, in parallel, each in a task of its own. Answers when one of them is
    /// durable, or both have failed: then the row will be the first copy.
    pub(super) async fn copy(self: &Arc<Self>, tenant: &TenantId, write: &LineageWrite) -> Copies {
        let (done, mut made) = mpsc::channel(2);
        let (broker, copy, told) = (Arc::clone(self), write.clone(), done.clone());
        self.tasks.spawn(async move {
            let result = broker.ports.journal.append(&copy).await;
            match &result {
                Ok(()) => broker.ports.steps.reached(Step::Journaled, copy.id),
                Err(error) => {
                    tracing::error!(credential = %copy.id, %error, "a new token pair is not in the journal");
                    metrics::journal_error();
                }
            }
            // Who waited may have all it needs.
            let _ = told.send(result.is_ok()).await;
        });
        let (broker, tenant, copy) = (Arc::clone(self), tenant.clone(), write.clone());
        self.tasks.spawn(async move {
            let kept = broker.keep_successor(&tenant, copy).await;
            let _ = done.send(kept).await;
        });
        while let Some(durable) = made.recv().await {
            if durable {
                break;
            }
        }
        Copies(made)
    }

    /// Puts a pair where all replicas see it. False: the permit store does not have it.
    pub(super) async fn keep_successor(&self, tenant: &TenantId, write: LineageWrite) -> bool {
        let id = write.id;
        let mac = match self.ports.cipher.successor_mac(tenant, &write).await {
            Ok(mac) => mac,
            Err(error) => {
                tracing::warn!(credential = %id, %error, "a new token pair is not in the permit store for want of a key");
                return false;
            }
        };
        match self.ports.permits.keep_successor(&Successor { write, mac }).await {
            Ok(()) => {
                self.ports.steps.reached(Step::SuccessorCopied, id);
                true
            }
            Err(error) => {
                tracing::warn!(credential = %id, %error, "a new token pair is not in the permit store");
                metrics::permit_store_error("keep_successor");
                false
            }
        }
    }

    /// Step 8: the write by descent, until the database answers.
    pub(super) async fn persist(&self, write: &mut LineageWrite) -> Result<Persisted, FlightEnd> {
        let mut pauses = Pauses::new();
        loop {
            write.now = self.ports.clock.now();
            match self.ports.credentials.persist_lineage(write.clone()).await {
                Ok(persisted) => return Ok(persisted),
                Err(StoreError::Corrupt(what)) => {
                    tracing::error!(credential = %write.id, what, "a token pair can't be stored: its row is damaged");
                    return Err(FlightEnd::DataLoss);
                }
                Err(StoreError::Unavailable(cause)) => {
                    tracing::error!(credential = %write.id, %cause, "a token pair is not stored yet");
                    pauses.wait().await;
                }
            }
        }
    }

    /// The row's new tokens.
    async fn renew(
        &self,
        claimed: &Claimed,
        response: &TokenResponse,
        access_life: AccessLife,
    ) -> Result<StoredTokens, CipherError> {
        let Ready { row, tokens, refresh, profile, provider, sealer, .. } = &claimed.ready;
        let (key, grant) = (&row.key, row.grant_id);
        let seal = |field, text| seal_text(&**sealer, Binding { key, grant, field }, text);
        // No refresh token in the answer: the old one stays good.
        let (sealed, fingerprint) = match &response.refresh_token {
            Some(token) => (seal(Field::RefreshToken, token)?, self.fingerprint(key, token).await?),
            None => (refresh.sealed.clone(), refresh.fingerprint),
        };
        let profile_sealed = if response.extra.is_empty() {
            tokens.profile_sealed.clone()
        } else {
            let mut profile = profile.clone();
            profile.extra.extend(response.extra.clone());
            seal_profile(&**sealer, (key, grant), &profile)?
        };
        // Absent: unchanged (RFC 6749 section 6). Empty: some providers send "" on every refresh.
        let (scopes, scopes_assumed) = match &response.scopes {
            Some(granted) if !granted.is_empty() => {
                (provider.normalise_granted(granted, &tokens.scopes), false)
            }
            _ => (tokens.scopes.clone(), tokens.scopes_assumed),
        };
        let [random] = self.random::<1>();
        Ok(StoredTokens {
            access_sealed: seal(Field::AccessToken, &response.access_token)?,
            access_life,
            token_type: response.token_type.clone(),
            refresh: Some(StoredRefreshToken {
                sealed,
                fingerprint,
                parent_fingerprint: Some(refresh.fingerprint),
                epoch: claimed.epoch,
            }),
            profile_sealed,
            scopes,
            scopes_assumed,
            next_refresh_at: next_refresh(access_life, self.refresh_policy(provider), random),
        })
    }
}
