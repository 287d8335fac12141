//! A database in memory: every port of the real ones, under one lock, with the same guards. Commits can be undone, as by a
//! failover that loses the last ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::audit::{Head, Row as AuditRow};
use token_broker::domain::caller_store::{NewApiKey, StoredCaller, Tenant};
use token_broker::domain::credential::{
    Credential, CredentialState, Epoch, Fingerprint, ReauthReason, StoredTokens,
};
use token_broker::domain::data_key::{Reencryption, RowsPerKey, WrappedDataKey};
use token_broker::domain::event::{Change, Event, EventPosition, FlowCause, NewEvent, Standing};
use token_broker::domain::flow::{Flow, FlowStatus};
use token_broker::domain::key::{ClaimOwner, ConfigId, CredentialId, CredentialKey, TenantId};
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, GrantCondition, LineageWrite,
    ListQuery, NewGrant, PendingRevocation, Persisted, Release, RevocationOutcome, RevokeWrite, RevokedRow,
    StoreError, StoreHealth, StoredGrant,
};
use token_broker::domain::provider_config::ProviderConfig;
use token_broker::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion};

use super::memory_users;

/// A tenant's audit log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chain {
    pub(super) head: Head,
    pub(super) rows: Vec<AuditRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) credential: Credential,
    used_at: Timestamp,
    /// Outlives the claim and its release.
    failures: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct FlowRow {
    pub(super) flow: Flow,
    pub(super) exchange_began_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct RevocationRow {
    pub(super) pending: PendingRevocation,
    pub(super) finished: Option<(RevocationOutcome, Timestamp)>,
}

/// The work of moving rows to the active data keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Work {
    pub(super) state: Reencryption,
    pub(super) worker: Option<ClaimOwner>,
    pub(super) rows: BTreeMap<i64, RowsPerKey>,
}

/// What a commit makes durable.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Tables {
    pub(super) rows: BTreeMap<CredentialId, Row>,
    pub(super) flows: Vec<FlowRow>,
    pub(super) revocations: Vec<RevocationRow>,
    pub(super) data_keys: Vec<WrappedDataKey>,
    pub(super) user_keys: Vec<StoredUserKey>,
    pub(super) reencryption: Work,
    pub(super) events: Vec<Event>,
    pub(super) audit: BTreeMap<TenantId, Chain>,
    pub(super) callers: Vec<StoredCaller>,
    pub(super) api_keys: Vec<NewApiKey>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) configs: Vec<ProviderConfig>,
    /// The last number that was given to an event.
    pub(super) last_event: i64,
    /// The row that got a new grant in this transaction.
    granted: Option<CredentialId>,
}

#[derive(Default)]
struct State {
    now: Tables,
    /// Before the last commit that changed something.
    before: Option<Tables>,
    /// Where a commit broke I2.
    backwards: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<State>);

/// A copy of everything.
pub(crate) struct Snapshot(Tables);

impl Tables {
    pub(super) fn credentials(&self) -> impl Iterator<Item = &Credential> {
        self.rows.values().map(|row| &row.credential)
    }

    /// Nothing that was obtained with a configuration is refreshed in the background any more.
    pub(super) fn stop(&mut self, id: ConfigId) {
        for row in self.rows.values_mut().filter(|row| row.credential.configuration == Some(id)) {
            if let Some(tokens) = active_tokens(row) {
                tokens.next_refresh_at = None;
            }
        }
    }

    /// Whether something that was obtained with a configuration is due.
    pub(super) fn is_due(&self, id: ConfigId, now: Timestamp) -> bool {
        self.credentials().filter(|credential| credential.configuration == Some(id)).any(|credential| {
            let CredentialState::Active { tokens, .. } = &credential.state else { return false };
            tokens.next_refresh_at.is_some_and(|at| at <= now)
        })
    }
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.lock().now)
    }

    /// One transaction.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Tables) -> T) -> T {
        let mut state = self.lock();
        let before = state.now.clone();
        let answer = write(&mut state.now);
        if state.now != before {
            let broken = before.rows.iter().filter_map(|(id, old)| i2(old, state.now.rows.get(id)));
            let broken: Vec<_> = broken.collect();
            state.backwards.extend(broken);
            state.now.tell(&before);
            state.before = Some(before);
        }
        answer
    }

    /// Everything as it is.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().now.clone())
    }

    /// Everything as it was.
    pub(crate) fn restore(&self, snapshot: Snapshot) {
        let mut state = self.lock();
        state.now = snapshot.0;
        state.before = None;
    }

    /// Undoes the last commit that changed something, if `wanted` says so of the rows before and after it. False: there
    /// is none, or it is not wanted.
    pub(crate) fn rollback_last_commit(
        &self,
        wanted: impl FnOnce(&[Credential], &[Credential]) -> bool,
    ) -> bool {
        let mut state = self.lock();
        let Some(before) = state.before.take() else { return false };
        if !wanted(&rows(&before), &rows(&state.now)) {
            return false;
        }
        state.now = before;
        true
    }

    /// All credentials.
    #[must_use]
    pub(crate) fn credentials(&self) -> Vec<Credential> {
        rows(&self.lock().now)
    }

    /// Revocations that are not finished.
    #[must_use]
    pub(crate) fn open_revocations(&self) -> usize {
        self.read(|tables| tables.revocations.iter().filter(|row| row.finished.is_none()).count())
    }

    /// Commits that broke I2.
    #[must_use]
    pub(crate) fn backwards(&self) -> Vec<String> {
        self.lock().backwards.clone()
    }
}

fn rows(tables: &Tables) -> Vec<Credential> {
    tables.rows.values().map(|row| row.credential.clone()).collect()
}

/// What of a row went backwards.
fn i2(old: &Row, new: Option<&Row>) -> Option<String> {
    let (old, new) = (&old.credential, &new?.credential);
    let rt_epoch = |row: &Credential| row.tokens().and_then(|t| t.refresh.as_ref()).map(|r| r.epoch);
    let lineage = old.grant_id == new.grant_id && rt_epoch(new).is_some() && rt_epoch(new) < rt_epoch(old);
    let back = new.epoch < old.epoch || new.generation < old.generation || lineage;
    back.then(|| {
        let of = |row: &Credential| (row.epoch, row.generation, rt_epoch(row));
        format!("row {} went from {:?} to {:?} (epoch, generation, rt_epoch)", old.id, of(old), of(new))
    })
}

fn is_over(status: FlowStatus) -> bool {
    !matches!(status, FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging)
}

fn cause(flow: &Flow) -> FlowCause {
    FlowCause { id: flow.id, client_state: flow.options.client_state.clone() }
}

fn fingerprint(tokens: &StoredTokens) -> Option<Fingerprint> {
    tokens.refresh.as_ref().map(|refresh| refresh.fingerprint)
}

impl Tables {
    fn by_key(&self, key: &CredentialKey) -> Option<&Row> {
        self.rows.values().find(|row| row.credential.key == *key)
    }

    /// Writes the events of what has changed.
    fn tell(&mut self, before: &Self) {
        let mut told = Vec::new();
        for (id, row) in &self.rows {
            let old = before.rows.get(id).map(|row| &row.credential);
            told.extend(self.change_of(old, &row.credential, before).map(|change| {
                let (key, at) = (row.credential.key.clone(), row.credential.updated_at);
                NewEvent { key, change, at }
            }));
        }
        for FlowRow { flow, .. } in &self.flows {
            let was = before.flows.iter().find(|old| old.flow.id == flow.id).map(|old| old.flow.status);
            let Some(was) = was.filter(|was| !is_over(*was) && is_over(flow.status)) else { continue };
            let change = Change::FlowEnded { flow: cause(flow), was, is: flow.status };
            told.push(NewEvent { key: flow.key.clone(), change, at: flow.ended_at.unwrap() });
        }
        self.granted = None;
        for told in told {
            self.last_event += 1;
            let position = EventPosition { transaction: 0, sequence: self.last_event };
            self.events.push(Event { position, told });
        }
    }

    fn change_of(&self, old: Option<&Credential>, new: &Credential, before: &Self) -> Option<Change> {
        let was = old.map_or(Standing::NotConnected, |old| Standing::from(&old.state));
        let generation = new.generation;
        match &new.state {
            CredentialState::NeedsReauth { reason, .. } if was == Standing::Connected => {
                Some(Change::NeedsReauth { was, reason: *reason, generation })
            }
            CredentialState::Revoked if was != Standing::Revoked => Some(Change::Revoked { was, generation }),
            CredentialState::Active { .. } => {
                let new_grant = self.granted == Some(new.id);
                let completed = self.flows.iter().find(|row| {
                    row.flow.status == FlowStatus::Completed
                        && row.flow.key == new.key
                        && before.flows.iter().any(|old| {
                            old.flow.id == row.flow.id && old.flow.status == FlowStatus::Exchanging
                        })
                });
                let flow = completed.map(|row| cause(&row.flow));
                (new_grant || was == Standing::NeedsReauth).then_some(Change::Connected {
                    was,
                    generation,
                    flow,
                })
            }
            _ => None,
        }
    }

    fn claim(&mut self, request: &ClaimRequest, settle: bool) -> Option<Epoch> {
        let Row { credential, failures, .. } = self.rows.get_mut(&request.id)?;
        let tokens = match &credential.state {
            CredentialState::Active { tokens, .. } if !settle => tokens,
            CredentialState::Refreshing { tokens, claim, .. } if settle && claim.settle_at <= request.now => {
                tokens
            }
            _ => return None,
        };
        let same = fingerprint(tokens) == Some(request.fingerprint)
            && (credential.generation, credential.epoch) == (request.generation, request.epoch);
        if !same {
            return None;
        }
        credential.state =
            CredentialState::Refreshing { tokens: tokens.clone(), claim: request.claim, failures: *failures };
        credential.epoch += 1;
        credential.updated_at = request.now;
        Some(credential.epoch)
    }

    fn persist(&mut self, write: &LineageWrite) -> Persisted {
        let revoked = self.revocations.iter().any(|row| row.pending.grant_id == write.grant_id);
        let Some(Row { credential, failures, .. }) = self.rows.get_mut(&write.id) else {
            return Persisted::Revoked;
        };
        if credential.grant_id != write.grant_id {
            return if revoked { Persisted::Revoked } else { Persisted::Superseded };
        }
        let Some(stored) = credential.tokens().and_then(|tokens| tokens.refresh.clone()) else {
            let gone = credential.state == CredentialState::Revoked;
            return if gone { Persisted::Revoked } else { Persisted::Superseded };
        };
        let parent = write.parent_fingerprint;
        let descends = stored.fingerprint == parent || stored.parent_fingerprint == Some(parent);
        if stored.epoch >= write.epoch || !descends {
            let written = write.tokens.refresh.as_ref().map(|refresh| refresh.fingerprint);
            return if stored.epoch == write.epoch && written == Some(stored.fingerprint) {
                Persisted::AlreadyStored(Box::new(credential.clone()))
            } else {
                Persisted::Superseded
            };
        }
        let mut tokens = write.tokens.clone();
        let refresh = tokens.refresh.get_or_insert(stored);
        (refresh.parent_fingerprint, refresh.epoch) = (Some(parent), write.epoch);
        credential.state = CredentialState::Active { tokens, back_off: None };
        credential.generation += 1;
        credential.epoch = credential.epoch.max(write.epoch);
        credential.updated_at = write.now;
        *failures = 0;
        Persisted::Stored(Box::new(credential.clone()))
    }

    fn holds(&mut self, grant: &NewGrant) -> bool {
        match grant.condition {
            GrantCondition::Flow { id, over } => {
                let row = self.by_key(&grant.key).map(|row| &row.credential);
                if row.filter(|row| row.tokens().is_some()).map(|row| row.grant_id) != over {
                    return false;
                }
                let flow = self.flows.iter_mut().map(|row| &mut row.flow).find(|flow| flow.id == id);
                let Some(flow) = flow.filter(|flow| flow.status == FlowStatus::Exchanging) else {
                    return false;
                };
                (flow.status, flow.ended_at) = (FlowStatus::Completed, Some(grant.now));
                true
            }
            GrantCondition::NotConnected => self.by_key(&grant.key).is_none_or(|row| {
                let dead = |tokens: &StoredTokens| {
                    let ended = tokens.access_life.expires_at.is_some_and(|end| end <= grant.now);
                    tokens.refresh.is_none() && ended
                };
                !row.credential.is_connected() || row.credential.tokens().is_some_and(dead)
            }),
            GrantCondition::Overwrite => true,
        }
    }

    fn store_grant(&mut self, grant: NewGrant) -> StoredGrant {
        if grant.user_key.is_some_and(|id| self.user_keys.iter().all(|key| key.id != id)) {
            return StoredGrant::KeyDeleted;
        }
        if !self.holds(&grant) {
            return StoredGrant::ConditionFailed;
        }
        let old = self.by_key(&grant.key).map(|row| row.credential.clone());
        let credential = Credential {
            id: old.as_ref().map_or(grant.id_if_new, |old| old.id),
            key: grant.key,
            created_at: old.as_ref().map_or(grant.now, |old| old.created_at),
            updated_at: grant.now,
            grant_id: grant.grant_id,
            configuration: grant.configuration,
            generation: old.as_ref().map_or(1, |old| old.generation + 1),
            epoch: old.as_ref().map_or(1, |old| old.epoch + 1),
            state: CredentialState::Active { tokens: grant.tokens, back_off: None },
        };
        let row = Row { credential: credential.clone(), used_at: grant.now, failures: 0 };
        self.granted = Some(credential.id);
        self.rows.insert(credential.id, row);
        StoredGrant::Stored(Box::new(credential))
    }

    fn revoke(&mut self, revoke: &RevokeWrite) -> RevokedRow {
        let now = revoke.now;
        let row = self.rows.values_mut().find(|row| row.credential.key == revoke.key).filter(|row| {
            let row = &row.credential;
            row.state != CredentialState::Revoked && revoke.grant.is_none_or(|grant| grant == row.grant_id)
        });
        let deleted = row.is_some();
        if let Some(Row { credential, failures, .. }) = row {
            if let (Some(ids), Some(tokens)) = (revoke.outbox, credential.tokens()) {
                let pending = |id, next_attempt_at| PendingRevocation {
                    id,
                    key: credential.key.clone(),
                    grant_id: credential.grant_id,
                    configuration: credential.configuration,
                    access_sealed: tokens.access_sealed.clone(),
                    refresh_sealed: tokens.refresh.as_ref().map(|refresh| refresh.sealed.clone()),
                    attempts: 0,
                    created_at: now,
                    next_attempt_at,
                };
                let after = match &credential.state {
                    CredentialState::Refreshing { claim, .. } => {
                        Some(pending(ids.after_refresh, claim.settle_at))
                    }
                    _ => None,
                };
                for pending in [Some(pending(ids.first, now)), after].into_iter().flatten() {
                    self.revocations.push(RevocationRow { pending, finished: None });
                }
            }
            credential.state = CredentialState::Revoked;
            credential.epoch += 1;
            credential.updated_at = now;
            *failures = 0;
        }
        let mut cancelled_flows = 0;
        for flow in self.flows.iter_mut().map(|row| &mut row.flow).filter(|flow| flow.key == revoke.key) {
            match flow.status {
                FlowStatus::Pending | FlowStatus::Returned if flow.expires_at <= now => {
                    flow.code_sealed = None;
                    (flow.status, flow.ended_at) = (FlowStatus::Expired, Some(flow.expires_at));
                }
                FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging => {
                    flow.code_sealed = None;
                    (flow.status, flow.ended_at) = (FlowStatus::Cancelled, Some(now));
                    cancelled_flows += 1;
                }
                _ => {}
            }
        }
        RevokedRow { deleted, cancelled_flows }
    }
}

fn active_tokens(row: &mut Row) -> Option<&mut StoredTokens> {
    match &mut row.credential.state {
        CredentialState::Active { tokens, .. } => Some(tokens),
        _ => None,
    }
}

#[async_trait]
impl CredentialStore for MemoryStore {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        Ok(self.read(|tables| tables.by_key(key).map(|row| row.credential.clone())))
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        Ok(self.read(|tables| tables.rows.get(&id).map(|row| row.credential.clone())))
    }

    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        Ok(self.write(|tables| tables.claim(&request, false)))
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        Ok(self.write(|tables| tables.claim(&request, true)))
    }

    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        Ok(self.write(|tables| tables.persist(&write)))
    }

    async fn release_claim(&self, release: Release) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let Some(Row { credential, failures, .. }) = tables.rows.get_mut(&release.id) else {
                return false;
            };
            let CredentialState::Refreshing { tokens, claim, .. } = &credential.state else { return false };
            if credential.epoch != release.epoch || claim.owner != release.owner {
                return false;
            }
            let mut tokens = tokens.clone();
            if let Some(back_off) = release.back_off {
                *failures = back_off.failures;
                tokens.next_refresh_at = tokens.next_refresh_at.map(|next| next.max(back_off.not_before));
            }
            credential.state = CredentialState::Active { tokens, back_off: release.back_off };
            credential.updated_at = release.now;
            true
        }))
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        refused: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let Some(Row { credential, failures, .. }) = tables.rows.get_mut(&id) else { return false };
            let CredentialState::Refreshing { tokens, .. } = &credential.state else { return false };
            if credential.epoch != epoch || fingerprint(tokens) != Some(refused) {
                return false;
            }
            let tokens = StoredTokens { next_refresh_at: None, ..tokens.clone() };
            credential.state = CredentialState::NeedsReauth { tokens, reason };
            credential.updated_at = now;
            *failures = 0;
            true
        }))
    }

    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        Ok(self.write(|tables| tables.store_grant(grant)))
    }

    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError> {
        Ok(self.write(|tables| tables.revoke(&revoke)))
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        fn order(key: &CredentialKey) -> [&str; 4] {
            [key.provider.as_str(), key.user.as_str(), key.grant.as_str(), key.account.as_str()]
        }
        let mut page = self.credentials();
        page.retain(|row| {
            let key = &row.key;
            row.tokens().is_some_and(|tokens| query.covering.minus(&tokens.scopes).is_empty())
                && key.tenant == query.tenant
                && query.user.as_ref().is_none_or(|user| key.user == *user)
                && query.among.as_ref().is_none_or(|users| {
                    let text = key.user.as_str();
                    users.exact.contains(&key.user)
                        || users.prefixes.iter().any(|p| text.starts_with(p.as_str()))
                })
                && query.providers.as_ref().is_none_or(|ids| ids.contains(&key.provider))
                && query.after.as_ref().is_none_or(|after| order(key) > order(after))
        });
        page.sort_by(|one, two| order(&one.key).cmp(&order(&two.key)));
        page.truncate(query.limit as usize);
        Ok(page)
    }

    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError> {
        let mut due: Vec<_> = self
            .credentials()
            .into_iter()
            .filter_map(|row| match row.state {
                CredentialState::Refreshing { claim, .. } => Some((claim.settle_at, row.id)),
                _ => None,
            })
            .filter(|(settle_at, _)| *settle_at <= now)
            .collect();
        due.sort();
        Ok(due.into_iter().take(limit as usize).map(|(_, id)| id).collect())
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        Ok(self.write(|tables| {
            let mut changed = 0;
            for row in tables.rows.values_mut() {
                let CredentialState::Refreshing { claim, .. } = &mut row.credential.state else { continue };
                let is_dead = match dead {
                    DeadOwners::One(dead) => claim.owner == dead,
                    DeadOwners::AllBut(alive) => claim.owner != alive,
                };
                if is_dead && claim.settle_at > claim.deadline {
                    claim.settle_at = claim.deadline;
                    changed += 1;
                }
            }
            changed
        }))
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        Ok(self.write(|tables| {
            let mut due = Vec::new();
            let wanted = |row: &&mut Row| {
                let credential = &row.credential;
                credential.key.provider == request.provider
                    && credential.configuration == request.configuration
            };
            for row in tables.rows.values_mut().filter(wanted) {
                let (id, used_at) = (row.credential.id, row.used_at);
                let next = active_tokens(row).and_then(|tokens| tokens.next_refresh_at);
                due.extend(next.filter(|next| *next <= request.now).map(|due_at| DueCredential {
                    id,
                    used_at,
                    due_at,
                }));
            }
            due.sort_by_key(|due| due.due_at);
            due.truncate(request.limit as usize);
            for due in &due {
                if let Some(tokens) = tables.rows.get_mut(&due.id).and_then(active_tokens) {
                    tokens.next_refresh_at = Some(request.until);
                }
            }
            due
        }))
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        self.write(|tables| {
            if let Some(tokens) = tables.rows.get_mut(&id).and_then(active_tokens) {
                tokens.next_refresh_at = at;
            }
        });
        Ok(())
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        Ok(self.write(|tables| memory_users::delete_user(tables, deletion)))
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        self.write(|tables| {
            for id in ids {
                if let Some(row) = tables.rows.get_mut(id) {
                    row.used_at = row.used_at.max(now);
                }
            }
        });
        Ok(())
    }
}

#[async_trait]
impl StoreHealth for MemoryStore {
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
