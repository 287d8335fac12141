//! The background that moves rows to the active data keys.
//!
//! A *pass* looks at every row with ciphertexts, in the order of the tables and of the rows' ids, and seals anew what is not
//! under its tenant's active data key, or in the format of the time before users had keys. Where it is stands in the database
//! after every batch, so that whoever takes the work over goes on there. One replica works at a time; should two, nothing is lost, since a row is replaced only where it is
//! as it was read.
//!
//! One pass is not enough: a refresh that was under way may store a profile that it read before, a replica may have learned
//! of a rotation late, a revocation may have moved a row behind the pass. So passes follow each other until one has found
//! nothing to do and began after every replica had learned of the last rotation. That one's counts are what `status` shows
//! and `retire` relies on.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Keys;
use crate::application::endings::later;
use crate::application::metrics;
use crate::domain::cipher::{Binding, CipherError, Field};
use crate::domain::credential::Sealed;
use crate::domain::data_key::{
    LEARNED_AFTER, PassCounts, PassPlace, PassStep, Reencryption, RenewedRow, SealedRow, SealedTable,
};
use crate::domain::ports::StoreError;

/// Rows of one step. Small enough that the rows' locks are held for milliseconds.
const BATCH: u32 = 100;
/// For so long nobody else works after a step: many times what a step takes, and the time that is lost by a crash.
const LEASE: Duration = Duration::from_secs(20);
/// How often those that do not work look whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two passes: what was skipped has probably been done by then.
const BETWEEN_PASSES: Duration = Duration::from_secs(10);

/// Why a step was not done. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cipher(CipherError),
}

/// What became of a row.
enum Looked {
    UpToDate,
    Renewed(SealedRow),
    Unreadable,
}

impl Keys {
    /// Does one step if there is one to do and nobody else is at it. Answers how long to wait before the next call.
    pub async fn work(&self) -> Duration {
        match self.try_to_work().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(%error, "rows can't be moved to the active data keys now");
                LOOK_EVERY
            }
        }
    }

    /// Gives the work back, so that another replica need not wait for the lease to run out.
    pub async fn stop_working(&self) {
        let now = self.ports.clock.now();
        // Prolongs it only where it is this replica's.
        let Ok(state) = self.ports.rows.reencryption().await else { return };
        if state.lease_until.is_some() {
            let step = PassStep { state, ..PassStep::default() };
            let _ = self.ports.rows.save_reencryption(self.worker, &step, now, Duration::ZERO).await;
        }
    }

    async fn try_to_work(&self) -> Result<Duration, StepError> {
        let began = self.ports.clock.monotonic();
        let now = self.ports.clock.now();
        // Read first: most of the time there is nothing to do, and a look writes nothing.
        let seen = self.ports.rows.reencryption().await?;
        if !is_due(&seen, now) {
            return Ok(LOOK_EVERY);
        }
        let Some(state) = self.ports.rows.take_reencryption(self.worker, now, LEASE).await? else {
            return Ok(LOOK_EVERY);
        };
        let Some(place) = state.place else {
            if is_due(&state, now) {
                self.begin(state, now).await?;
            }
            return Ok(Duration::ZERO);
        };
        let step = self.step(state, place).await?;
        if !self.ports.rows.save_reencryption(self.worker, &step, self.ports.clock.now(), LEASE).await? {
            // It took so long that another replica took over; what was renewed is renewed, and will be counted by them.
            return Ok(LOOK_EVERY);
        }
        if step.state.place.is_none() {
            self.ended(&step).await?;
        }
        let rows = u32::try_from(step.state.counts.looked_at - state.counts.looked_at).unwrap_or(u32::MAX);
        let due = Duration::from_secs_f64(f64::from(rows) / f64::from(self.settings.rows_per_second.max(1)));
        Ok(due.saturating_sub(self.ports.clock.monotonic().saturating_sub(began)))
    }

    async fn begin(&self, state: Reencryption, now: Timestamp) -> Result<(), StepError> {
        let expected = self.ports.rows.expected_rows().await?;
        let state = Reencryption {
            pass: state.pass + 1,
            began_at: Some(now),
            place: Some(PassPlace { table: SealedTable::ALL[0], after: None }),
            counts: PassCounts { expected, ..PassCounts::default() },
            ..state
        };
        tracing::info!(pass = state.pass, expected, "moving rows to the active data keys");
        let step = PassStep { state, ..PassStep::default() };
        self.ports.rows.save_reencryption(self.worker, &step, now, LEASE).await?;
        Ok(())
    }

    async fn step(&self, mut state: Reencryption, place: PassPlace) -> Result<PassStep, StepError> {
        let rows = self.ports.rows.sealed_rows(place.table, place.after, BATCH).await?;
        let last = rows.last().map(|row| row.id);
        let whole = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut step = PassStep::default();
        let mut renewed = Vec::new();
        state.counts.looked_at += count(rows.len());
        for row in rows {
            match self.look_at(&row).await? {
                Looked::UpToDate => self.count_keys(&mut step, place.table, &row),
                Looked::Unreadable => {
                    tracing::error!(table = ?place.table, row = %uuid::Uuid::from_bytes(row.id), "a row does not open, and stays as it is");
                    state.counts.unreadable += 1;
                    self.count_keys(&mut step, place.table, &row);
                }
                Looked::Renewed(is) => renewed.push(RenewedRow { was: row, is }),
            }
        }
        if !renewed.is_empty() {
            let replaced = self.ports.rows.replace_sealed(place.table, &renewed).await?;
            let replaced: BTreeSet<_> = replaced.into_iter().collect();
            for row in &renewed {
                let done = replaced.contains(&row.was.id);
                self.count_keys(&mut step, place.table, if done { &row.is } else { &row.was });
            }
            state.counts.renewed += count(replaced.len());
            state.counts.skipped += count(renewed.len() - replaced.len());
            metrics::reencrypted(count(replaced.len()), count(renewed.len() - replaced.len()));
        }
        state.place = if whole {
            Some(PassPlace { table: place.table, after: last })
        } else {
            place.table.next().map(|table| PassPlace { table, after: None })
        };
        metrics::reencryption_left(state.counts.expected.saturating_sub(state.counts.looked_at));
        if state.place.is_none() {
            state.ended_at = Some(self.ports.clock.now());
            step.done_until = state.requested_at.filter(|requested| is_final(&state, *requested));
        }
        step.state = state;
        Ok(step)
    }

    async fn look_at(&self, was: &SealedRow) -> Result<Looked, StepError> {
        let mut fields: Vec<(Field, Sealed)> = Vec::with_capacity(was.fields.len());
        let mut changed = false;
        for (field, sealed) in &was.fields {
            let binding = Binding { key: &was.key, grant: was.grant_id, field: *field };
            // A row's ciphertexts are one user's: the one before says with which key.
            let beside = fields.last().map(|(_, before)| before);
            match self.ports.keeper.renew(binding, sealed, beside).await {
                Ok(None) => fields.push((*field, sealed.clone())),
                Ok(Some(renewed)) => {
                    changed = true;
                    fields.push((*field, renewed));
                }
                Err(CipherError::DoesNotOpen | CipherError::UnknownKey | CipherError::KeysDeleted) => {
                    return Ok(Looked::Unreadable);
                }
                Err(error @ (CipherError::Store(_) | CipherError::KeyService(_))) => {
                    return Err(StepError::Cipher(error));
                }
            }
        }
        if !changed {
            return Ok(Looked::UpToDate);
        }
        let SealedRow { id, ref key, grant_id, .. } = *was;
        Ok(Looked::Renewed(SealedRow { id, key: key.clone(), grant_id, fields }))
    }

    fn count_keys(&self, step: &mut PassStep, table: SealedTable, row: &SealedRow) {
        let keys: BTreeSet<_> =
            row.fields.iter().filter_map(|(_, sealed)| self.ports.keeper.made_with(sealed)).collect();
        for key in keys {
            *step.rows.entry((key, table)).or_default() += 1;
        }
    }

    async fn ended(&self, step: &PassStep) -> Result<(), StepError> {
        let PassCounts { looked_at, renewed, skipped, unreadable, .. } = step.state.counts;
        let done = step.done_until.is_some();
        tracing::info!(
            pass = step.state.pass,
            looked_at,
            renewed,
            skipped,
            unreadable,
            done,
            "a pass through all rows has ended"
        );
        metrics::reencryption_left(0);
        self.ports.rows.forget_passes(step.state.pass).await?;
        Ok(())
    }
}

/// Whether there is a step to do now, as far as the stored state says: somebody asked for it, nobody is at it, and where
/// the next step would begin a pass, it is time for one.
fn is_due(state: &Reencryption, now: Timestamp) -> bool {
    let Some(requested_at) = state.requested_at else { return false };
    if state.place.is_some() {
        return true;
    }
    let rested = state.ended_at.is_none_or(|ended| later(ended, BETWEEN_PASSES) <= now);
    learned_at(requested_at) <= now && rested
}

/// When all replicas know what was done until then.
fn learned_at(time: Timestamp) -> Timestamp {
    later(time, LEARNED_AFTER)
}

/// Whether a pass that has ended shows that all is done that was asked for until `requested`.
fn is_final(state: &Reencryption, requested: Timestamp) -> bool {
    let PassCounts { renewed, skipped, .. } = state.counts;
    let late_enough = state.began_at.is_some_and(|began| began >= learned_at(requested));
    renewed == 0 && skipped == 0 && late_enough
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
