//! Refresh, and the refresh algorithm.
//!
//! A rotating refresh token is a one-shot permit: the provider ends the grant if it sees one twice. So the broker records
//! before the call that the token may be spent, and never takes the end of a claim, or of a lock, for the end of the call.
//!
//! 1. **Join**: one refresh per credential in this process (`single_flight.rs`), in a task of its own.
//! 2. **Read and decide** (`domain/refresh_policy.rs`). Another replica is at it: wait (`elsewhere.rs`).
//! 3. **Gates**: what can fail without harm fails now. The circuit is closed and there is a place (`gates.rs`), the endpoints
//!    are known, the refresh token and the profile open, the data keys that will seal the answer are in memory, the journal
//!    can be written, the leases let it go.
//! 4. **Permit**: the permit store gives it to one replica. A successor there is adopted without a call (`adopt.rs`), a
//!    tombstone ends the matter. If the permit store can't be reached, the claim alone does: the permit only saves calls.
//! 5. **Claim**: one statement turns the row to `refreshing` under a new epoch. No connection is held from here on.
//! 6. **Dispatch** within 2 seconds of asking for the permit by the monotonic clock: one POST, never repeated.
//! 7. **Record**: seal the answer; journal and permit store get it in parallel, and one of the two is waited for.
//! 8. **Persist** by lineage, until the database answers.
//! 9. **Publish**: waiters wake and read the row. The permit has become the successor; nothing is unlocked.
//!
//! An unknown outcome leaves the row `refreshing` and the permit standing. After `settle_at` the same steps run with
//! [`claim_for_settle`] for step 5, after a look for a successor in the permit store and the journal: one more presentation
//! under a new epoch, the last chance.
//!
//! Each step has a name ([`Step`]); the fault tests use the same.
//!
//! [`claim_for_settle`]: crate::domain::ports::CredentialStore::claim_for_settle

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::Broker;
use super::endings::{later, storage_failed, vault_failed};
use super::error::BrokerError;
use super::gates::Slot;
use super::lease_gate::{LeaseGate, waits_for_leases};
use super::metrics;
use super::sealing::Profile;
use super::single_flight::{Flight, FlightEnd};
use super::token_answer::Reading;
use super::types::{RefreshInput, TokenAnswer};
use crate::domain::access_policy::{Action, Principal};
use crate::domain::cipher::{Field, Sealer};
use crate::domain::coordination::{Permit, PermitRequest};
use crate::domain::credential::{
    Claim, Credential, CredentialState, Epoch, RefreshFailure, StoredRefreshToken, StoredTokens,
};
use crate::domain::key::CredentialId;
use crate::domain::ports::{ClaimRequest, Persisted, ProviderFailure, ProviderStanding};
use crate::domain::provider::{Provider, RefreshTimings, Rotation};
use crate::domain::refresh_policy::{Decision, Demand, decide};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::SecretString;
use crate::domain::step::Step;
use crate::domain::token_set::TokenResponse;

/// How often a refresh that lost a race reads again. Somebody else's success ends the race, so losing often is a fault.
const MAX_RACES: u32 = 8;
/// How soon a settling that can't look for a successor is tried again.
const SETTLE_RETRY: Duration = Duration::from_secs(5);
/// How soon a settling is tried again while a dead process's journal is replayed.
const REPLAY_RETRY: Duration = Duration::from_secs(1);

/// A row that passed the gates.
pub(super) struct Ready {
    pub(super) provider: Arc<Provider>,
    pub(super) timings: RefreshTimings,
    pub(super) row: Credential,
    pub(super) tokens: StoredTokens,
    pub(super) refresh: StoredRefreshToken,
    /// The refresh token itself.
    pub(super) token: SecretString,
    /// The answer may add to it.
    pub(super) profile: Profile,
    /// Seals the answer, whatever becomes of the database meanwhile.
    pub(super) sealer: Arc<dyn Sealer>,
    /// How many refreshes had failed before.
    pub(super) failures: u32,
    /// The outcome of an earlier presentation is unknown.
    settles: bool,
    /// The place at the provider.
    slot: Slot,
}

impl Ready {
    /// An earlier presentation may have spent the token, and another would end the grant: no failure of this attempt may make
    /// the row look as if the token were unspent.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.settles && self.provider.refresh.rotation == Rotation::Strict
    }
}

/// A row whose refresh token this task may present, once.
pub(super) struct Claimed {
    pub(super) ready: Ready,
    pub(super) epoch: Epoch,
    /// When the outcome is settled, should it stay unknown.
    settle_at: Timestamp,
}

/// What step 2 finds.
enum Next {
    /// Go on.
    Ready(Box<Ready>),
    /// Another replica has claimed the row.
    Others(Box<Credential>),
    /// There is nothing to do (any more).
    Nothing,
}

/// What step 4 finds.
enum Admission {
    /// This process may go on to the claim.
    Mine,
    /// Another replica has the permit.
    Others,
    /// The row has changed by what was found; look again.
    Again,
}

/// What steps 4 to 9 come to.
enum Turn {
    /// The row says what came of it.
    Done,
    /// Another replica is at it.
    Others(Box<Credential>),
    /// Look again.
    Again,
}

impl Broker {
    /// A token newer than the expected generation.
    pub async fn refresh(
        self: &Arc<Self>,
        principal: &Principal,
        input: RefreshInput,
    ) -> Result<TokenAnswer, BrokerError> {
        let target = self.target(principal, Action::Refresh, input.key, &ScopeSet::default()).await?;
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
        for _ in 0..MAX_RACES {
            let ready = match self.prepare(id, demand).await? {
                Next::Ready(ready) => *ready,
                Next::Nothing => return Ok(()),
                // Nobody waits for the background's refreshes.
                Next::Others(_) if demand == Demand::Ahead => return Ok(()),
                Next::Others(row) => {
                    self.wait_for_others(&row).await?;
                    continue;
                }
            };
            let provider = Arc::clone(&ready.provider);
            let turn = self.take_turn(ready).await;
            // It holds up no lease any more. A drain that another replica waits for is left to that one, unless there was a
            // refresh.
            if matches!(turn, Ok(Turn::Done))
                || waits_for_leases(demand) && !matches!(turn, Ok(Turn::Others(_)))
            {
                self.leases_settled(&provider, id).await;
            }
            match turn? {
                Turn::Done => return Ok(()),
                Turn::Again => {}
                Turn::Others(_) if demand == Demand::Ahead => return Ok(()),
                Turn::Others(row) => self.wait_for_others(&row).await?,
            }
        }
        Err(FlightEnd::Broken)
    }

    /// Steps 4 to 9.
    async fn take_turn(self: &Arc<Self>, ready: Ready) -> Result<Turn, FlightEnd> {
        // From the permit on: one that has run out meanwhile is no permit any more.
        let started = self.ports.clock.monotonic();
        match self.take_permit(&ready).await? {
            Admission::Mine => {}
            Admission::Others => return Ok(Turn::Others(Box::new(ready.row))),
            Admission::Again => return Ok(Turn::Again),
        }
        let Some(claimed) = self.claim(ready).await? else { return Ok(Turn::Again) };
        if self.ports.clock.monotonic().saturating_sub(started) > claimed.ready.timings.dispatch_within {
            // The process was paused, or the database was slow. Nothing was sent, and the epoch guards the release.
            tracing::warn!(credential = %claimed.ready.row.id, "claimed too long ago to dispatch");
            if claimed.ready.is_in_doubt() {
                return Err(FlightEnd::OutcomeUnknown { settle_at: claimed.settle_at });
            }
            self.release(&claimed, RefreshFailure::ProviderUnavailable, None).await;
            return Ok(Turn::Done);
        }
        let end = self.present(claimed).await;
        metrics::refresh_duration(self.ports.clock.monotonic().saturating_sub(started).as_secs_f64());
        end.map(|()| Turn::Done)
    }

    /// Steps 2 and 3.
    async fn prepare(&self, id: CredentialId, demand: Demand) -> Result<Next, FlightEnd> {
        let Some(row) = self.ports.credentials.load_by_id(id).await.map_err(storage_failed)? else {
            return Ok(Next::Nothing);
        };
        let standing = self.provider_of(&row).await.map_err(vault_failed)?;
        let Some(provider) = standing.and_then(ProviderStanding::ready) else {
            tracing::warn!(tenant = %row.key.tenant, provider = %row.key.provider, "a credential's provider is not configured");
            return Err(FlightEnd::Broken);
        };
        let Some(timings) = provider.refresh.timings(&self.settings.timings) else {
            tracing::error!(provider = %provider.id, "the provider's grace is too short for any safe timing");
            return Err(FlightEnd::Broken);
        };
        let decision = decide(&row, self.ports.clock.now(), demand, self.refresh_policy(&provider));
        let settles = match decision {
            Decision::Refresh | Decision::Serve { refresh_behind: true, .. } => {
                matches!(row.state, CredentialState::Refreshing { .. })
            }
            Decision::Settle => true,
            Decision::Wait { .. } => return Ok(Next::Others(Box::new(row))),
            Decision::Serve { refresh_behind: false, .. }
            | Decision::BackOff { .. }
            | Decision::Reauthorize(_) => return Ok(Next::Nothing),
        };
        if self.claim_is_unclear(id) {
            return Err(FlightEnd::StorageUnavailable);
        }
        if settles && self.replaying.load(Ordering::SeqCst) {
            let settle_at = later(self.ports.clock.now(), REPLAY_RETRY);
            return Err(FlightEnd::OutcomeUnknown { settle_at });
        }
        let failures = match &row.state {
            CredentialState::Active { back_off, .. } => back_off.map_or(0, |b| b.failures),
            CredentialState::Refreshing { failures, .. } => *failures,
            CredentialState::NeedsReauth { .. } | CredentialState::Revoked => return Ok(Next::Nothing),
        };
        let Some(tokens) = row.tokens().cloned() else { return Ok(Next::Nothing) };
        let Some(refresh) = tokens.refresh.clone() else { return Ok(Next::Nothing) };
        let token = self
            .open_text(&row.key, row.grant_id, Field::RefreshToken, &refresh.sealed)
            .await
            .map_err(vault_failed)?;
        let profile = self.open_profile(&row, &tokens).await.map_err(vault_failed)?;
        // Sealing and fingerprinting the answer must not be what fails: all keys are in memory from here on.
        let sealer = self.ports.cipher.sealer(&row.key, Some(&refresh.sealed)).await.map_err(vault_failed)?;
        if self.fingerprint(&row.key, &token).await.map_err(vault_failed)? != refresh.fingerprint {
            // The claim and the lineage would be those of another token.
            tracing::error!(credential = %row.id, "a refresh token is not the one that its row says");
            return Err(FlightEnd::DataLoss);
        }
        if let LeaseGate::WaitFor(longest) = self.leases_allow(&provider, &row, demand).await {
            return self.leased(&row, longest).await;
        }
        let slot = match self.pass_gates(&provider, &row.key.tenant).await {
            Ok(slot) => slot,
            Err(end) => {
                if waits_for_leases(demand) {
                    self.leases_settled(&provider, id).await;
                }
                return Err(end);
            }
        };
        Ok(Next::Ready(Box::new(Ready {
            provider,
            timings,
            row,
            tokens,
            refresh,
            token,
            profile,
            sealer,
            failures,
            settles,
            slot,
        })))
    }

    /// Callers are using the token, which this provider would end, and it is alive. The background comes back when the last
    /// lease has ended; readers are given the token as it is.
    async fn leased(&self, row: &Credential, longest: Duration) -> Result<Next, FlightEnd> {
        let again = later(self.ports.clock.now(), longest);
        self.ports.credentials.reschedule(row.id, Some(again)).await.map_err(storage_failed)?;
        Err(FlightEnd::Leased { retry_after: longest })
    }

    /// Step 4.
    async fn take_permit(self: &Arc<Self>, ready: &Ready) -> Result<Admission, FlightEnd> {
        let (row, refresh, timings) = (&ready.row, &ready.refresh, &ready.timings);
        let mut request = PermitRequest {
            credential: row.id,
            grant: row.grant_id,
            token: refresh.fingerprint,
            row_epoch: refresh.epoch,
            owner: self.owner,
            lifetime: timings.settle_after,
            // Also for the last chance: the permit of the claim that is settled has run out with it. One that stands is of a
            // presentation that the row does not know of, since the database has lost its claim.
            takeover: None,
        };
        loop {
            let answer = self.ports.permits.take(request).await;
            match self.believed(row, refresh.fingerprint, answer).await? {
                Ok(Permit::Taken) => {
                    self.ports.steps.reached(Step::PermitTaken, row.id);
                    let Some(write) = self.journaled(ready).await else { return Ok(Admission::Mine) };
                    // Where the other replicas see it; until then the permit keeps them from the token.
                    self.keep_successor(&row.key.tenant, write.clone()).await;
                    return self.adopt(write, "journal").await.map(|()| Admission::Again);
                }
                Ok(Permit::Successor(kept)) => {
                    return self.adopt(kept.write, "permit_store").await.map(|()| Admission::Again);
                }
                Ok(Permit::Buried(_)) => return self.revoke_again(row).await.map(|()| Admission::Again),
                Ok(Permit::Held { owner, age }) => {
                    // A process that died between permit and claim: its request, if there was one, has ended by now.
                    let over = age >= timings.dispatch_within + timings.http_deadline;
                    let dead = over
                        && request.takeover.is_none()
                        && self.ports.permits.is_dead(owner).await.unwrap_or(false);
                    // Before that it is at work, perhaps about to claim the row for the last chance: the row will tell. One of
                    // this process is nobody's: its flight has ended, and could not give it back.
                    if !dead && ready.settles && (over || owner == self.owner) {
                        let left = timings.settle_after.saturating_sub(age);
                        return Err(FlightEnd::OutcomeUnknown {
                            settle_at: later(self.ports.clock.now(), left),
                        });
                    }
                    if !dead {
                        return Ok(Admission::Others);
                    }
                    request.takeover = Some(owner);
                }
                Err(error) => {
                    metrics::permit_store_error("take");
                    if let Some(write) = self.journaled(ready).await {
                        return self.adopt(write, "journal").await.map(|()| Admission::Again);
                    }
                    if ready.settles && ready.provider.refresh.rotation != Rotation::None {
                        // What came of the first presentation may stand in the permit store: without a look there, the
                        // last chance would be the second presentation that ends the grant.
                        tracing::warn!(credential = %row.id, %error, "settling waits for the permit store");
                        let settle_at = later(self.ports.clock.now(), SETTLE_RETRY);
                        return Err(FlightEnd::OutcomeUnknown { settle_at });
                    }
                    tracing::warn!(credential = %row.id, %error, "no permit: the claim alone decides");
                    return Ok(Admission::Mine);
                }
            }
        }
    }

    /// Step 5. `None`: somebody else moved the row.
    async fn claim(self: &Arc<Self>, ready: Ready) -> Result<Option<Claimed>, FlightEnd> {
        let now = self.ports.clock.now();
        let timings = ready.timings;
        let settle_at = later(now, timings.settle_after);
        let request = ClaimRequest {
            id: ready.row.id,
            fingerprint: ready.refresh.fingerprint,
            generation: ready.row.generation,
            epoch: ready.row.epoch,
            claim: Claim {
                owner: self.owner,
                deadline: later(now, timings.dispatch_within + timings.http_deadline),
                settle_at,
            },
            now,
        };
        let claim = if ready.settles {
            self.ports.credentials.claim_for_settle(request).await
        } else {
            self.ports.credentials.claim_for_refresh(request).await
        };
        match claim {
            Ok(Some(epoch)) => {
                let step = if ready.settles { Step::SettleClaimed } else { Step::Claimed };
                self.ports.steps.reached(step, ready.row.id);
                Ok(Some(Claimed { ready, epoch, settle_at }))
            }
            Ok(None) => {
                self.drop_permit(&ready).await;
                Ok(None)
            }
            Err(error) => {
                self.take_back_claim(ready).await;
                Err(storage_failed(error))
            }
        }
    }

    /// Steps 6 to 9.
    async fn present(self: &Arc<Self>, mut claimed: Claimed) -> Result<(), FlightEnd> {
        let ready = &claimed.ready;
        self.ports.steps.reached(Step::Dispatched, ready.row.id);
        let answer = self
            .ports
            .oauth
            .refresh(&ready.provider, &ready.token, &ready.tokens.scopes, ready.timings.http_deadline)
            .await;
        self.ports.steps.reached(Step::Answered, ready.row.id);
        let outcome = match &answer {
            Ok(_) if ready.settles => "last_chance_success",
            Ok(_) => "success",
            Err(ProviderFailure::InvalidGrant) if ready.settles => "window_loss",
            Err(ProviderFailure::InvalidGrant) => "invalid_grant",
            Err(ProviderFailure::ClientRejected) => "client_rejected",
            Err(ProviderFailure::Refused) => "refused",
            Err(ProviderFailure::NotSent) => "not_sent",
            Err(ProviderFailure::RateLimited { .. }) => "rate_limited",
            Err(ProviderFailure::Ambiguous) => "ambiguous",
        };
        metrics::refresh(&ready.provider, outcome);
        self.audit_presentation(&ready.row, answer.is_ok(), outcome);
        tracing::info!(
            credential = %ready.row.id, provider = %ready.provider.id, epoch = claimed.epoch,
            settles = ready.settles, outcome, "refresh token presented",
        );
        let failure = answer.as_ref().err().copied();
        claimed.ready.slot.done(self.ports.clock.monotonic(), failure);
        let claimed = claimed;
        match answer {
            Ok(response) => return self.keep(&claimed, response).await,
            Err(ProviderFailure::InvalidGrant) => return self.grant_is_dead(&claimed).await,
            // This request did not spend the token; an earlier one may have, and that must not be forgotten.
            Err(_) if claimed.ready.is_in_doubt() => {
                return Err(FlightEnd::OutcomeUnknown { settle_at: claimed.settle_at });
            }
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
            Err(ProviderFailure::Ambiguous) if claimed.ready.provider.refresh.rotation == Rotation::None => {
                self.release(&claimed, RefreshFailure::ProviderUnavailable, None).await;
            }
            Err(ProviderFailure::Ambiguous) => {
                return Err(FlightEnd::OutcomeUnknown { settle_at: claimed.settle_at });
            }
        }
        Ok(())
    }

    /// Steps 7 to 9: until the first copy is durable, the only one of the new pair is in this task's hands.
    async fn keep(self: &Arc<Self>, claimed: &Claimed, response: TokenResponse) -> Result<(), FlightEnd> {
        let ready = &claimed.ready;
        let mut write = self.seal_answer(claimed, &response).await?;
        let copies = self.copy(&ready.row.key.tenant, &write).await;
        match self.persist(&mut write).await? {
            Persisted::Stored(_) | Persisted::AlreadyStored(_) => {
                self.ports.steps.reached(Step::Persisted, ready.row.id);
            }
            Persisted::Revoked => {
                metrics::refresh(&ready.provider, "revoked_meanwhile");
                let refresh = response.refresh_token.as_ref().unwrap_or(&ready.token);
                let (key, grant) = (&ready.row.key, ready.row.grant_id);
                self.revoke_orphan(&ready.provider, key, grant, &response.access_token, Some(refresh)).await;
            }
            Persisted::Superseded => metrics::refresh(&ready.provider, "superseded"),
        }
        self.tell_stored(&write).await;
        let broker = Arc::clone(self);
        self.tasks.spawn(async move {
            // Not before the copies are made: the slower one would come to stay for longer.
            copies.all_made().await;
            broker.stored_elsewhere(&write).await;
        });
        Ok(())
    }
}
