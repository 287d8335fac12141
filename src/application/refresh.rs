//! Refresh, and the refresh algorithm.
//!
//! A rotating refresh token is a one-shot permit: the provider ends the grant if it sees one twice. So the broker records
//! before the call that the token may be spent, and never takes the end of a claim for the end of the call.
//!
//! 1. **Join**: one refresh per credential in this process (`single_flight.rs`), in a task of its own.
//! 2. **Read and decide** (`domain/refresh_policy.rs`).
//! 3. **Gates**: what can fail without harm fails now: the provider is configured, its endpoints are known, the refresh
//!    token and the profile open, the data keys that will seal the answer are in memory.
//! 4. (The permit of other replicas: SQLite serves one process, which holds the database's lock.)
//! 5. **Claim**: one statement turns the row to `refreshing` under a new epoch.
//! 6. **Dispatch** within 2 seconds of the claim by the monotonic clock: one POST, never repeated.
//! 7. **Record**: seal the answer.
//! 8. **Persist** by lineage, until the database answers.
//! 9. Waiters wake and read the row.
//!
//! An unknown outcome leaves the row `refreshing`. After `settle_at` the same steps run with [`claim_for_settle`] for
//! step 5: one more presentation under a new epoch.
//!
//! [`claim_for_settle`]: crate::domain::ports::CredentialStore::claim_for_settle

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Broker;
use super::error::BrokerError;
use super::metrics;
use super::sealing::Profile;
use super::single_flight::{Flight, FlightEnd};
use super::token_answer::Reading;
use super::types::{RefreshInput, TokenAnswer};
use crate::domain::access_policy::{Action, Caller};
use crate::domain::credential::{
    BackOff, Claim, Credential, CredentialState, Epoch, ReauthReason, RefreshFailure, StoredRefreshToken,
    StoredTokens,
};
use crate::domain::key::CredentialId;
use crate::domain::ports::{
    CipherError, ClaimRequest, Field, LineageWrite, Persisted, ProviderFailure, StoreError,
};
use crate::domain::provider::{Provider, RefreshTimings, Rotation};
use crate::domain::refresh_policy::{Decision, Demand, back_off_delay, decide};
use crate::domain::secret::SecretString;
use crate::domain::token_set::{AccessLife, TokenResponse};

/// The first pause before a write is tried again; doubles up to [`MAX_WRITE_PAUSE`].
const FIRST_WRITE_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause before a write is tried again.
const MAX_WRITE_PAUSE: Duration = Duration::from_secs(1);
/// How often a write that a settling could replace is tried again.
const WRITE_ATTEMPTS: u32 = 5;
/// How often a claim that lost a race reads again. Somebody else's success ends the race, so losing often is a fault.
const MAX_CLAIM_RACES: u32 = 8;

/// A row that passed the gates.
struct Ready {
    provider: Arc<Provider>,
    timings: RefreshTimings,
    row: Credential,
    tokens: StoredTokens,
    refresh: StoredRefreshToken,
    /// The refresh token itself.
    token: SecretString,
    /// The answer may add to it.
    profile: Profile,
    /// How many refreshes had failed before.
    failures: u32,
    /// The outcome of an earlier presentation is unknown.
    settles: bool,
}

/// A row whose refresh token this task may present, once.
struct Claimed {
    ready: Ready,
    epoch: Epoch,
}

impl Broker {
    /// A token newer than the expected generation.
    pub async fn refresh(
        self: &Arc<Self>,
        caller: &Caller,
        input: RefreshInput,
    ) -> Result<TokenAnswer, BrokerError> {
        let target = self.target(caller, Action::Refresh, input.key)?;
        let demand = Demand::NewerThan(input.expected_generation);
        let required = target.service_scopes.clone();
        match self.read_token(&target, demand, &required, input.time_left).await? {
            Reading::Token(token) => {
                metrics::token_answer("token");
                Ok(TokenAnswer::Token(token))
            }
            Reading::Missing(missing) => {
                metrics::token_answer("authorization_required");
                Ok(TokenAnswer::AuthorizationRequired(self.explain(&target, missing).await?))
            }
        }
    }

    /// Step 1.
    pub(super) fn start_refresh(self: &Arc<Self>, id: CredentialId, demand: Demand) -> Flight {
        let broker = Arc::clone(self);
        self.flights.join_or_start(&self.tasks, id, move || async move {
            match broker.fly(id, demand).await {
                Ok(()) => FlightEnd::SeeRow,
                Err(end) => end,
            }
        })
    }

    async fn fly(self: &Arc<Self>, id: CredentialId, demand: Demand) -> Result<(), FlightEnd> {
        for _ in 0..MAX_CLAIM_RACES {
            let Some(ready) = self.prepare(id, demand).await? else { return Ok(()) };
            let started = self.ports.clock.monotonic();
            let Some(claimed) = self.claim(ready).await? else { continue };
            if self.ports.clock.monotonic().saturating_sub(started) > claimed.ready.timings.dispatch_within {
                // The process was paused, or the database was slow. Nothing was sent, and the epoch guards the release.
                tracing::warn!(credential = %id, "claimed too long ago to dispatch");
                self.release(&claimed, RefreshFailure::ProviderUnavailable, None).await;
                return Ok(());
            }
            return self.present(claimed).await;
        }
        Err(FlightEnd::Broken)
    }

    /// Steps 2 and 3. `None`: there is nothing to do (any more).
    async fn prepare(&self, id: CredentialId, demand: Demand) -> Result<Option<Ready>, FlightEnd> {
        let Some(row) = self.ports.credentials.load_by_id(id).await.map_err(storage_failed)? else {
            return Ok(None);
        };
        let Some(provider) = self.ports.providers.provider(&row.key.tenant, &row.key.provider) else {
            tracing::warn!(provider = %row.key.provider, "a stored credential's provider is not configured");
            return Err(FlightEnd::Broken);
        };
        let Some(timings) = provider.refresh.timings() else {
            tracing::error!(provider = %provider.id, "the provider's grace is too short for any safe timing");
            return Err(FlightEnd::Broken);
        };
        let decision = decide(&row, self.ports.clock.now(), demand, self.refresh_policy(&provider));
        let settles = match decision {
            Decision::Refresh | Decision::Serve { refresh_behind: true, .. } => {
                matches!(row.state, CredentialState::Refreshing { .. })
            }
            Decision::Settle => true,
            Decision::Serve { refresh_behind: false, .. }
            | Decision::Wait { .. }
            | Decision::BackOff { .. }
            | Decision::Reauthorize(_) => return Ok(None),
        };
        let failures = match &row.state {
            CredentialState::Active { back_off, .. } => back_off.map_or(0, |b| b.failures),
            CredentialState::Refreshing { failures, .. } => *failures,
            CredentialState::NeedsReauth { .. } | CredentialState::Revoked => return Ok(None),
        };
        let Some(tokens) = row.tokens().cloned() else { return Ok(None) };
        let Some(refresh) = tokens.refresh.clone() else { return Ok(None) };
        let token = self
            .open_text(&row.key, row.grant_id, Field::RefreshToken, &refresh.sealed)
            .await
            .map_err(vault_failed)?;
        let profile = self.open_profile(&row, &tokens).await.map_err(vault_failed)?;
        // A discovered endpoint is looked up now: after the claim the request must leave at once.
        if let Err(failure) = self.ports.oauth.endpoints(&provider).await {
            tracing::warn!(provider = %provider.id, %failure, "the provider's endpoints could not be discovered");
            return Err(FlightEnd::ProviderUnavailable);
        }
        // Sealing and fingerprinting the answer must not be what fails: both keys are in memory from here on.
        self.seal_text(&row.key, row.grant_id, Field::RefreshToken, &token).await.map_err(vault_failed)?;
        if self.fingerprint(&row.key, &token).await.map_err(vault_failed)? != refresh.fingerprint {
            // The claim and the lineage would be those of another token.
            tracing::error!(credential = %row.id, "a refresh token is not the one that its row says");
            return Err(FlightEnd::DataLoss);
        }
        Ok(Some(Ready { provider, timings, row, tokens, refresh, token, profile, failures, settles }))
    }

    /// Step 5. `None`: somebody else moved the row.
    async fn claim(&self, ready: Ready) -> Result<Option<Claimed>, FlightEnd> {
        let now = self.ports.clock.now();
        let timings = ready.timings;
        let request = ClaimRequest {
            id: ready.row.id,
            fingerprint: ready.refresh.fingerprint,
            generation: ready.row.generation,
            epoch: ready.row.epoch,
            claim: Claim {
                owner: self.owner,
                deadline: later(now, timings.dispatch_within + timings.http_deadline),
                settle_at: later(now, timings.settle_after),
            },
            now,
        };
        let epoch = if ready.settles {
            self.ports.credentials.claim_for_settle(request).await
        } else {
            self.ports.credentials.claim_for_refresh(request).await
        };
        Ok(epoch.map_err(storage_failed)?.map(|epoch| Claimed { ready, epoch }))
    }

    /// Steps 6 to 8.
    async fn present(self: &Arc<Self>, claimed: Claimed) -> Result<(), FlightEnd> {
        let ready = &claimed.ready;
        let answer = self
            .ports
            .oauth
            .refresh(&ready.provider, &ready.token, &ready.tokens.scopes, ready.timings.http_deadline)
            .await;
        let outcome = match &answer {
            Ok(_) => "success",
            Err(ProviderFailure::InvalidGrant) if ready.settles => "window_loss",
            Err(ProviderFailure::InvalidGrant) => "invalid_grant",
            Err(ProviderFailure::ClientRejected) => "client_rejected",
            Err(ProviderFailure::Refused) => "refused",
            Err(ProviderFailure::NotSent) => "not_sent",
            Err(ProviderFailure::RateLimited { .. }) => "rate_limited",
            Err(ProviderFailure::Ambiguous) => "ambiguous",
        };
        metrics::refresh(&ready.provider.id, outcome);
        tracing::info!(
            credential = %ready.row.id, provider = %ready.provider.id, epoch = claimed.epoch,
            settles = ready.settles, outcome, "refresh token presented",
        );
        match answer {
            Ok(response) => return self.keep(&claimed, response).await,
            Err(ProviderFailure::InvalidGrant) => self.grant_is_dead(&claimed).await,
            Err(ProviderFailure::ClientRejected | ProviderFailure::Refused) => {
                self.release(&claimed, RefreshFailure::ClientRejected, None).await;
            }
            Err(ProviderFailure::NotSent) => {
                self.release(&claimed, RefreshFailure::ProviderUnavailable, None).await;
            }
            Err(ProviderFailure::RateLimited { retry_after }) => {
                self.release(&claimed, RefreshFailure::RateLimited, retry_after).await;
            }
            // Presenting it again is harmless where it does not rotate; elsewhere the row stays as it is until it is
            // settled.
            Err(ProviderFailure::Ambiguous) if ready.provider.refresh.rotation == Rotation::None => {
                self.release(&claimed, RefreshFailure::ProviderUnavailable, None).await;
            }
            Err(ProviderFailure::Ambiguous) => {}
        }
        Ok(())
    }

    /// Steps 7 and 8: from here on the only copy of the new pair is in this task's hands.
    async fn keep(self: &Arc<Self>, claimed: &Claimed, response: TokenResponse) -> Result<(), FlightEnd> {
        let ready = &claimed.ready;
        let obtained_at = self.ports.clock.now();
        let mut pause = FIRST_WRITE_PAUSE;
        loop {
            let result = match self.renew(claimed, &response, obtained_at).await {
                Ok(tokens) => {
                    let write = LineageWrite {
                        id: ready.row.id,
                        grant_id: ready.row.grant_id,
                        epoch: claimed.epoch,
                        parent_fingerprint: ready.refresh.fingerprint,
                        tokens,
                        now: self.ports.clock.now(),
                    };
                    self.ports.credentials.persist_lineage(write).await
                }
                Err(CipherError::Store(error)) => Err(error),
                Err(error @ (CipherError::UnknownKey | CipherError::DoesNotOpen)) => {
                    return Err(vault_failed(error));
                }
            };
            match result {
                Ok(Persisted::Stored(_) | Persisted::AlreadyStored(_)) => return Ok(()),
                Ok(Persisted::Revoked) => {
                    metrics::refresh(&ready.provider.id, "revoked_meanwhile");
                    self.revoke_orphan(
                        &ready.provider,
                        &ready.row.key,
                        ready.row.grant_id,
                        &response.access_token,
                        Some(response.refresh_token.as_ref().unwrap_or(&ready.token)),
                    )
                    .await;
                    return Ok(());
                }
                Ok(Persisted::Superseded) => {
                    metrics::refresh(&ready.provider.id, "superseded");
                    return Ok(());
                }
                Err(StoreError::Corrupt(what)) => {
                    tracing::error!(credential = %ready.row.id, what, "the row is damaged; a new token pair is lost");
                    return Err(FlightEnd::DataLoss);
                }
                Err(StoreError::Unavailable(cause)) => {
                    tracing::error!(credential = %ready.row.id, %cause, "a new token pair is not stored yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_WRITE_PAUSE);
                }
            }
        }
    }

    /// Step 7: the row's new tokens.
    async fn renew(
        &self,
        claimed: &Claimed,
        response: &TokenResponse,
        obtained_at: Timestamp,
    ) -> Result<StoredTokens, CipherError> {
        let Ready { row, tokens, refresh, profile, provider, .. } = &claimed.ready;
        let (key, grant) = (&row.key, row.grant_id);
        // No refresh token in the answer: the old one stays good.
        let (sealed, fingerprint) = match &response.refresh_token {
            Some(token) => (
                self.seal_text(key, grant, Field::RefreshToken, token).await?,
                self.fingerprint(key, token).await?,
            ),
            None => (refresh.sealed.clone(), refresh.fingerprint),
        };
        let profile_sealed = if response.extra.is_empty() {
            tokens.profile_sealed.clone()
        } else {
            let mut profile = profile.clone();
            profile.extra.extend(response.extra.clone());
            self.seal_profile(key, grant, &profile).await?
        };
        // Absent: unchanged (RFC 6749 section 6). Empty: some providers send "" on every refresh.
        let (scopes, scopes_assumed) = match &response.scopes {
            Some(granted) if !granted.is_empty() => {
                (provider.normalise_granted(granted, &tokens.scopes), false)
            }
            _ => (tokens.scopes.clone(), tokens.scopes_assumed),
        };
        Ok(StoredTokens {
            access_sealed: self.seal_text(key, grant, Field::AccessToken, &response.access_token).await?,
            access_life: AccessLife::starting(obtained_at, response.expires_in),
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
            next_refresh_at: None,
        })
    }

    /// `invalid_grant`: the row needs a new consent, unless its refresh token has moved on (I8): the statement is guarded
    /// by epoch and fingerprint.
    async fn grant_is_dead(&self, claimed: &Claimed) {
        let Ready { row, refresh, .. } = &claimed.ready;
        let now = self.ports.clock.now();
        let reason = ReauthReason::RefreshTokenRejected;
        let credentials = &self.ports.credentials;
        let marked =
            insist(|| credentials.mark_needs_reauth(row.id, claimed.epoch, refresh.fingerprint, reason, now))
                .await;
        if let Err(error) = marked {
            // The row stays `refreshing`; settling asks the provider once more and hears the same.
            tracing::error!(credential = %row.id, %error, "a dead grant could not be marked");
        }
    }

    /// The refresh token was not spent: it may be presented again after a while.
    async fn release(&self, claimed: &Claimed, last: RefreshFailure, at_least: Option<Duration>) {
        let failures = claimed.ready.failures.saturating_add(1);
        let [random] = self.random::<1>();
        let delay = back_off_delay(failures, random).max(at_least.unwrap_or_default());
        let now = self.ports.clock.now();
        let back_off = BackOff { not_before: later(now, delay), failures, last };
        let id = claimed.ready.row.id;
        let credentials = &self.ports.credentials;
        if let Err(error) = insist(|| credentials.release_claim(id, claimed.epoch, back_off, now)).await {
            tracing::error!(credential = %id, %error, "a claim could not be released; it will be settled");
        }
    }
}

/// Tries a write a few times. Without it the row would have to be settled, which takes minutes at a strict provider.
async fn insist<T, F>(write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_WRITE_PAUSE;
    for _ in 0..WRITE_ATTEMPTS {
        match write().await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause = (pause * 2).min(MAX_WRITE_PAUSE);
    }
    write().await
}

fn storage_failed(error: StoreError) -> FlightEnd {
    match BrokerError::from(error) {
        BrokerError::DataLoss => FlightEnd::DataLoss,
        _ => FlightEnd::StorageUnavailable,
    }
}

fn vault_failed(error: CipherError) -> FlightEnd {
    match BrokerError::from(error) {
        BrokerError::DataLoss => FlightEnd::DataLoss,
        _ => FlightEnd::StorageUnavailable,
    }
}

/// `now` and a while. Saturates.
pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
