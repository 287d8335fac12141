//! The read path that GetCredential and Refresh share: read the row, decide, and if there is no token to hand out join
//! the refresh and read again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::Broker;
use super::error::{BrokerError, Unavailable};
use super::single_flight::{Flight, FlightEnd};
use super::target::Target;
use super::types::{AccessGrant, ConsentReason};
use crate::domain::cipher::Field;
use crate::domain::credential::{Credential, CredentialState, RefreshFailure};
use crate::domain::ports::ProviderStanding;
use crate::domain::provider::Provider;
use crate::domain::refresh_policy::{Decision, Demand, Reauthorize, decide};
use crate::domain::scope::ScopeSet;

/// What the row had to say.
pub(super) enum Reading {
    /// A token.
    Token(Box<AccessGrant>),
    /// The user must consent.
    Missing(Missing),
}

/// Why there is no token.
pub(super) struct Missing {
    pub(super) reason: ConsentReason,
    pub(super) lacking: ScopeSet,
    /// When the row last changed; `None`: there is none.
    pub(super) since: Option<Timestamp>,
}

/// A caller that reads while refreshes come and go gives up after so many rounds: each takes a refresh that ended without
/// what this caller needs.
const MAX_ROUNDS: u32 = 16;
/// When to come back while a refresh is under way.
const IN_PROGRESS_RETRY: Duration = Duration::from_secs(1);

impl Broker {
    /// Finds a token that meets the demand and has the scopes.
    pub(super) async fn read_token(
        self: &Arc<Self>,
        target: &Target,
        demand: Demand,
        required: &ScopeSet,
        time_left: Option<Duration>,
    ) -> Result<Reading, BrokerError> {
        let max_wait = self.settings.max_wait;
        let give_up = Instant::now() + time_left.map_or(max_wait, |left| left.min(max_wait));
        let mut first_generation = None;
        for _ in 0..MAX_ROUNDS {
            let Some(row) = self.ports.credentials.load(&target.key).await? else {
                return Ok(missing(ConsentReason::NotConnected, None));
            };
            let Some(provider) = self.app_of(target, &row).await? else {
                return Ok(missing(ConsentReason::AppGone, Some(row.updated_at)));
            };
            let now = self.ports.clock.now();
            let mut decision = decide(&row, now, demand, self.refresh_policy(&provider));
            // Fresh from the provider and expired all the same (a lifetime of 0): that is as good as it gets.
            let renewed = row.generation > *first_generation.get_or_insert(row.generation);
            if renewed && decision == Decision::Refresh {
                decision = Decision::Serve { refresh_behind: false, failure: None };
            }
            if let Decision::Reauthorize(why) = decision {
                let reason = match why {
                    Reauthorize::Revoked => ConsentReason::Revoked,
                    Reauthorize::Reason(reason) => reason.into(),
                };
                return Ok(missing(reason, Some(row.updated_at)));
            }
            if let Some(lacking) = lacking_scopes(&row, required) {
                return Ok(Reading::Missing(Missing {
                    reason: ConsentReason::ScopesMissing,
                    lacking,
                    since: Some(row.updated_at),
                }));
            }
            let end = match decision {
                Decision::Serve { refresh_behind, failure } => {
                    if refresh_behind {
                        self.start_refresh(row.id, Demand::Ahead);
                    }
                    return self.hand_out(target, &row, failure).await;
                }
                Decision::BackOff { until, failure } => return Err(unavailable(failure, until, now)),
                // Somebody else's refresh is waited for in a flight too: once for all readers of this process.
                Decision::Refresh | Decision::Settle | Decision::Wait { .. } => {
                    wait_for(self.start_refresh(row.id, demand), give_up).await
                }
                // Answered above.
                Decision::Reauthorize(_) => continue,
            };
            let failed = match end {
                Some(FlightEnd::SeeRow) => continue,
                // The waiting began before this caller came.
                Some(FlightEnd::Elsewhere) if Instant::now() < give_up => continue,
                None | Some(FlightEnd::Elsewhere) => in_progress(&row, now),
                Some(FlightEnd::OutcomeUnknown { settle_at }) => {
                    unavailable(RefreshFailure::OutcomeUnknown, settle_at, now)
                }
                Some(FlightEnd::StorageUnavailable) => {
                    BrokerError::Unavailable { what: Unavailable::Storage, retry_after: IN_PROGRESS_RETRY }
                }
                Some(FlightEnd::ProviderUnavailable { why, retry_after }) => {
                    BrokerError::Unavailable { what: why.into(), retry_after }
                }
                // The token is alive: what is left of it is served below.
                Some(FlightEnd::Leased { retry_after }) => {
                    BrokerError::Unavailable { what: Unavailable::RefreshInProgress, retry_after }
                }
                Some(FlightEnd::DataLoss) => BrokerError::DataLoss,
                Some(FlightEnd::Broken) => BrokerError::Internal,
            };
            return self.left_over(target, &provider, &row, demand).await?.ok_or(failed);
        }
        Err(BrokerError::Unavailable { what: Unavailable::RefreshInProgress, retry_after: IN_PROGRESS_RETRY })
    }

    /// The app that the row's tokens are of, which need not be the one that new consents are made with. `None`: it is gone, and
    /// nobody can do anything with what it obtained. A row without tokens is anybody's.
    async fn app_of(&self, target: &Target, row: &Credential) -> Result<Option<Arc<Provider>>, BrokerError> {
        if row.configuration == target.provider.configuration() || row.tokens().is_none() {
            return Ok(Some(Arc::clone(&target.provider)));
        }
        Ok(self.provider_of(row).await?.and_then(ProviderStanding::ready))
    }

    /// Less life than asked for, but life: better than an error (I6).
    async fn left_over(
        &self,
        target: &Target,
        provider: &Provider,
        row: &Credential,
        demand: Demand,
    ) -> Result<Option<Reading>, BrokerError> {
        let Some(tokens) = row.tokens() else { return Ok(None) };
        let policy = self.refresh_policy(provider);
        let now = self.ports.clock.now();
        let alive = tokens.access_life.is_valid_for(now, Duration::ZERO, policy.margin);
        if !alive || matches!(demand, Demand::NewerThan(_)) {
            return Ok(None);
        }
        // The row read before the wait may have been revoked since; nothing of it is handed out then (I4).
        match self.ports.credentials.load(&target.key).await? {
            Some(current) if current.grant_id == row.grant_id && current.is_connected() => {
                self.hand_out(target, &current, Some(RefreshFailure::OutcomeUnknown)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Opens the row's access token.
    async fn hand_out(
        &self,
        target: &Target,
        row: &Credential,
        failure: Option<RefreshFailure>,
    ) -> Result<Reading, BrokerError> {
        let tokens = row.tokens().ok_or(BrokerError::Internal)?;
        let access_token =
            self.open_text(&row.key, row.grant_id, Field::AccessToken, &tokens.access_sealed).await?;
        let (account, extra) = self.open_profile(row, tokens).await?.account();
        let fingerprint = self.fingerprint(&row.key, &access_token).await?;
        self.used(row.id);
        Ok(Reading::Token(Box::new(AccessGrant {
            key: target.asked.clone(),
            access_token,
            token_type: tokens.token_type.clone(),
            expires_at: tokens.access_life.expires_at,
            scopes: tokens.scopes.clone(),
            scopes_assumed: tokens.scopes_assumed,
            generation: row.generation,
            fingerprint,
            account,
            extra,
            failure,
        })))
    }
}

fn missing(reason: ConsentReason, since: Option<Timestamp>) -> Reading {
    Reading::Missing(Missing { reason, lacking: ScopeSet::default(), since })
}

/// The required scopes that a connected row was not granted.
fn lacking_scopes(row: &Credential, required: &ScopeSet) -> Option<ScopeSet> {
    let granted = match &row.state {
        CredentialState::Active { tokens, .. } | CredentialState::Refreshing { tokens, .. } => &tokens.scopes,
        CredentialState::NeedsReauth { .. } | CredentialState::Revoked => return None,
    };
    Some(required.minus(granted)).filter(|lacking| !lacking.is_empty())
}

/// `None`: it takes longer than the caller waits.
async fn wait_for(flight: Flight, give_up: Instant) -> Option<FlightEnd> {
    timeout_at(give_up, flight.end()).await.ok()
}

/// From `now` to `then`; zero if that is past.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

fn unavailable(failure: RefreshFailure, retry_at: Timestamp, now: Timestamp) -> BrokerError {
    BrokerError::Unavailable { what: failure.into(), retry_after: until(retry_at, now) }
}

/// A refresh takes longer than the caller waits. Past the claim's deadline nobody is at work on it any more; past its settling
/// time somebody is again.
fn in_progress(row: &Credential, now: Timestamp) -> BrokerError {
    match &row.state {
        CredentialState::Refreshing { claim, .. } if now >= claim.deadline && now < claim.settle_at => {
            unavailable(RefreshFailure::OutcomeUnknown, claim.settle_at, now)
        }
        _ => {
            BrokerError::Unavailable { what: Unavailable::RefreshInProgress, retry_after: IN_PROGRESS_RETRY }
        }
    }
}
