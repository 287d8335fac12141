//! Revoke: gone here at once, the provider is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::endings::later;
use super::error::BrokerError;
use super::orphan::Pair;
use super::types::{ProviderRevocation, RevokeAnswer, ServiceKey};
use super::{Broker, metrics};
use crate::domain::access_policy::{Action, Principal};
use crate::domain::cipher::{CipherError, Field};
use crate::domain::credential::{Credential, CredentialState};
use crate::domain::key::{CredentialKey, OutboxId};
use crate::domain::ports::{
    OutboxPair, PendingRevocation, ProviderFailure, ProviderStanding, RevocationOutcome, RevokeWrite,
    RevokedRow,
};
use crate::domain::refresh_policy::back_off_delay;
use crate::domain::scope::ScopeSet;
use crate::domain::step::Step;

/// How long the caller waits for the provider's word.
const WAIT: Duration = Duration::from_secs(5);
/// How long a tombstone's key is waited for.
const SEALING: Duration = Duration::from_secs(1);
/// A taken revocation is nobody else's for this long: longer than a provider call may take.
const LEASE: Duration = Duration::from_secs(90);
/// After this the broker gives up.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);

/// How one attempt ended.
enum Attempt {
    Finished(RevocationOutcome),
    /// Not over; not before this, if the provider has said so.
    Later(Option<Duration>),
}

impl Broker {
    /// Gone here at once; the provider is told.
    pub async fn revoke(
        self: &Arc<Self>,
        principal: &Principal,
        key: ServiceKey,
        force: bool,
    ) -> Result<RevokeAnswer, BrokerError> {
        let target = self.target(principal, Action::Revoke, key, &ScopeSet::default()).await?;
        let held = self.ports.credentials.load(&target.key).await?;
        if let Some(row) = &held
            && !force
        {
            self.refuse_if_leased(row).await?;
        }
        let app = match &held {
            Some(row) if row.configuration != target.provider.configuration() => {
                self.provider_of(row).await?.and_then(ProviderStanding::known)
            }
            _ => Some(Arc::clone(&target.provider)),
        };
        let told = app.as_ref().is_some_and(|app| app.supports_revocation());
        let (row, outbox) = self.end_credential(&target.key, held.as_ref(), told).await?;
        let provider = match outbox {
            _ if !row.deleted => None,
            // Nobody else can end what an app obtained that is gone.
            None if app.is_none() => Some(ProviderRevocation::Failed),
            None => Some(ProviderRevocation::NotSupported),
            Some(ids) => Some(self.tell_provider(ids.first).await),
        };
        let scopes = held.as_ref().filter(|_| row.deleted).and_then(|held| held.tokens()).map(|t| &t.scopes);
        let services = scopes.map_or_else(BTreeSet::new, |scopes| {
            target.provider.covered_services(&target.key.grant, scopes).cloned().collect()
        });
        Ok(RevokeAnswer { deleted: row.deleted, provider, services, cancelled_flows: row.cancelled_flows })
    }

    /// Ends the tokens of a key, of which `held` was just read. Answers what was ended, and the outbox rows if the provider
    /// is to be told.
    pub(super) async fn end_credential(
        self: &Arc<Self>,
        key: &CredentialKey,
        held: Option<&Credential>,
        told: bool,
    ) -> Result<(RevokedRow, Option<OutboxPair>), BrokerError> {
        let outbox = told.then(|| self.new_outbox_pair());
        if let Some(row) = held {
            self.bury(row).await;
        }
        let revoke = RevokeWrite { key: key.clone(), grant: None, outbox, now: self.ports.clock.now() };
        let row = self.ports.credentials.revoke_with_outbox(revoke).await?;
        // From here on it is gone, whatever becomes of this call.
        if row.deleted {
            self.bury_what_came_between(key, held).await;
        }
        if let Some(held) = held {
            self.ports.steps.reached(Step::Revoked, held.id);
            self.tell_waiters(&key.tenant, held.id).await;
            self.end_leases(held.id).await;
        } else {
            // Consents may have been cancelled.
            self.tell_watches(&key.tenant);
        }
        Ok((row, outbox))
    }

    /// A consent may have come between the tombstone and the commit: then its grant is the one that was revoked.
    async fn bury_what_came_between(&self, key: &CredentialKey, buried: Option<&Credential>) {
        match self.ports.credentials.load(key).await {
            Ok(Some(row))
                if row.state == CredentialState::Revoked
                    && buried.is_none_or(|buried| buried.grant_id != row.grant_id) =>
            {
                self.bury(&row).await;
            }
            // The tombstone is for a commit that is lost, and this one was answered.
            Ok(_) | Err(_) => {}
        }
    }

    /// The tombstone comes before the commit: a refresh that begins between the two ends at the one or the other, and a
    /// commit that the database loses in a failover is done again by whoever meets the tombstone. A revocation whose
    /// commit fails may therefore still come about later, which is what was asked for.
    async fn bury(&self, row: &Credential) {
        let sealing = self.ports.cipher.tombstone(&row.key.tenant, row.id, row.grant_id);
        // A revocation does not wait for a key service.
        let Ok(Ok(tombstone)) = tokio::time::timeout(SEALING, sealing).await else {
            tracing::warn!(credential = %row.id, "no tombstone for want of a key: the row alone says that it is revoked");
            return;
        };
        match self.ports.permits.bury(row.id, row.grant_id, tombstone).await {
            Ok(()) => self.ports.steps.reached(Step::Tombstoned, row.id),
            Err(error) => {
                tracing::warn!(credential = %row.id, %error, "no tombstone: the row alone says that it is revoked");
                metrics::permit_store_error("bury");
            }
        }
    }

    /// The first attempt, in a task of its own: a caller that hangs up does not stop it.
    async fn tell_provider(self: &Arc<Self>, id: OutboxId) -> ProviderRevocation {
        let broker = Arc::clone(self);
        let attempt = self.tasks.spawn(async move { broker.attempt_revocation(id).await });
        match tokio::time::timeout(WAIT, attempt).await {
            Ok(Ok(Some(RevocationOutcome::Revoked))) => ProviderRevocation::Revoked,
            Ok(Ok(Some(RevocationOutcome::Failed))) => ProviderRevocation::Failed,
            Ok(Ok(Some(RevocationOutcome::NotSupported))) => ProviderRevocation::NotSupported,
            Ok(Ok(None) | Err(_)) | Err(_) => ProviderRevocation::Pending,
        }
    }

    /// One attempt at an outbox row that is due. `None`: it is not over.
    pub(super) async fn attempt_revocation(&self, id: OutboxId) -> Option<RevocationOutcome> {
        let now = self.ports.clock.now();
        let taken = match self.ports.outbox.take_revocation(id, now, later(now, LEASE)).await {
            Ok(taken) => taken?,
            Err(error) => {
                tracing::error!(%error, "a revocation could not be taken from the outbox");
                return None;
            }
        };
        let attempt = self.try_revocation(&taken).await;
        let now = self.ports.clock.now();
        let attempt = match attempt {
            Attempt::Later(_) if now.duration_since(taken.created_at) > GIVE_UP_AFTER => {
                tracing::error!(provider = %taken.key.provider, "a revocation is given up after three days");
                Attempt::Finished(RevocationOutcome::Failed)
            }
            attempt => attempt,
        };
        self.record_attempt(&taken, attempt, now).await
    }

    async fn try_revocation(&self, taken: &PendingRevocation) -> Attempt {
        let (tenant, id) = (&taken.key.tenant, &taken.key.provider);
        let standing = self.ports.providers.of_configuration(tenant, id, taken.configuration).await;
        let provider = match standing {
            Ok(Some(ProviderStanding::Ready(provider) | ProviderStanding::Disabled(provider))) => provider,
            Ok(None) if taken.configuration.is_some() => {
                tracing::error!(%tenant, provider = %id, "a revocation can't be told: the tenant's app is gone");
                return Attempt::Finished(RevocationOutcome::Failed);
            }
            Ok(None | Some(ProviderStanding::Broken)) => {
                tracing::warn!(%tenant, provider = %id, "a revocation waits for a provider that is not configured");
                return Attempt::Later(None);
            }
            Err(error) => {
                tracing::error!(%tenant, provider = %id, %error, "a revocation waits for its provider's configuration");
                return Attempt::Later(None);
            }
        };
        // Its id alone: the row may have another grant by now, or be damaged.
        let row = self.ports.credentials.load(&taken.key).await.ok().flatten().map(|row| row.id);
        let (access, refresh) = match self.open_pending(taken).await {
            // A refresh that was under way may have left a newer pair.
            Ok(pair) => match row {
                Some(id) => self.newest_known(id, &taken.key, taken.grant_id, pair).await,
                None => pair,
            },
            Err(CipherError::DoesNotOpen | CipherError::KeysDeleted) => {
                tracing::error!(provider = %provider.id, "a token to revoke does not open");
                return Attempt::Finished(RevocationOutcome::Failed);
            }
            Err(error @ (CipherError::UnknownKey | CipherError::Store(_) | CipherError::KeyService(_))) => {
                tracing::error!(provider = %provider.id, %error, "a token to revoke can't be opened now");
                return Attempt::Later(None);
            }
        };
        let result = self.ports.oauth.revoke(&provider, &access, refresh.as_ref()).await;
        let (attempt, outcome) = match result {
            Ok(RevocationOutcome::Revoked) | Err(ProviderFailure::InvalidGrant) => {
                (Attempt::Finished(RevocationOutcome::Revoked), "revoked")
            }
            Ok(RevocationOutcome::NotSupported) => {
                (Attempt::Finished(RevocationOutcome::NotSupported), "not_supported")
            }
            Ok(RevocationOutcome::Failed) | Err(ProviderFailure::Refused) => {
                (Attempt::Finished(RevocationOutcome::Failed), "refused")
            }
            // The operator may mend the client's secret.
            Err(ProviderFailure::ClientRejected) => (Attempt::Later(None), "client_rejected"),
            Err(ProviderFailure::NotSent | ProviderFailure::Ambiguous) => {
                (Attempt::Later(None), "unavailable")
            }
            Err(ProviderFailure::RateLimited { retry_after }) => {
                (Attempt::Later(retry_after), "rate_limited")
            }
        };
        if let Some(id) = row {
            self.ports.steps.reached(Step::RevocationTold, id);
        }
        metrics::revocation(&provider, outcome);
        self.audit_revocation(
            &taken.key,
            matches!(attempt, Attempt::Finished(RevocationOutcome::Revoked)),
            outcome,
        );
        tracing::info!(provider = %provider.id, attempt = taken.attempts, outcome, "revocation presented");
        attempt
    }

    async fn open_pending(&self, taken: &PendingRevocation) -> Result<Pair, CipherError> {
        let (key, grant) = (&taken.key, taken.grant_id);
        let access = self.open_text(key, grant, Field::AccessToken, &taken.access_sealed).await?;
        let refresh = match &taken.refresh_sealed {
            Some(sealed) => Some(self.open_text(key, grant, Field::RefreshToken, sealed).await?),
            None => None,
        };
        Ok((access, refresh))
    }

    async fn record_attempt(
        &self,
        taken: &PendingRevocation,
        attempt: Attempt,
        now: Timestamp,
    ) -> Option<RevocationOutcome> {
        let (recorded, outcome) = match attempt {
            Attempt::Finished(outcome) => {
                (self.ports.outbox.finish_revocation(taken.id, outcome, now).await, Some(outcome))
            }
            Attempt::Later(at_least) => {
                let [random] = self.random::<1>();
                let delay = back_off_delay(taken.attempts, random).max(at_least.unwrap_or_default());
                let next = later(now, delay);
                (self.ports.outbox.postpone_revocation(taken.id, next).await, None)
            }
        };
        if let Err(error) = recorded {
            // Its lease runs out and it is tried again: telling a provider twice is harmless.
            tracing::error!(%error, "the outcome of a revocation could not be recorded");
        }
        outcome
    }
}
