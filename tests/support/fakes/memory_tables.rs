//! The smaller ports of the database in memory: flows, the outbox, data keys, events.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::caller_store::Tenant;
use token_broker::domain::data_key::{DataKeyId, DataKeyPurpose, DataKeyStore, WrappedDataKey};
use token_broker::domain::event::{EventPage, EventPosition, EventQuery, EventStore};
use token_broker::domain::flow::{Flow, FlowFailure, FlowStatus, SecretHash, StateHash};
use token_broker::domain::key::{CredentialKey, FlowId, OutboxId, ProviderId, TenantId, UserId};
use token_broker::domain::ports::{
    CancelledFlows, Consumed, FlowStore, HeldCode, OutboxStore, PendingRevocation, RevocationOutcome,
    StoreError,
};

use super::memory_store::{FlowRow, MemoryStore, RevocationRow, Tables};

impl Tables {
    fn flow(&mut self, found: impl Fn(&Flow) -> bool) -> Option<&mut FlowRow> {
        self.flows.iter_mut().find(|row| found(&row.flow))
    }

    fn revocation(&mut self, id: OutboxId) -> Option<&mut RevocationRow> {
        self.revocations.iter_mut().find(|row| row.pending.id == id && row.finished.is_none())
    }

    fn newest_key(&self, tenant: &TenantId, purpose: DataKeyPurpose) -> Option<WrappedDataKey> {
        let mut keys = self.data_keys.iter().filter(|key| key.tenant == *tenant && key.purpose == purpose);
        keys.find(|key| key.superseded_at.is_none()).cloned()
    }
}

/// Takes a flow that stands so and has time left a step further, if the step says so.
fn advance(
    found: Option<&mut FlowRow>,
    from: FlowStatus,
    now: Timestamp,
    step: impl FnOnce(&mut FlowRow) -> bool,
) -> Consumed {
    let Some(row) = found else { return Consumed::Unknown };
    let in_time = row.flow.expires_at > now;
    if row.flow.status == from && in_time && step(row) {
        return Consumed::Won(Box::new(row.flow.clone()));
    }
    match row.flow.status {
        FlowStatus::Pending | FlowStatus::Returned if !in_time => Consumed::Spent(FlowStatus::Expired),
        status => Consumed::Spent(status),
    }
}

#[async_trait]
impl FlowStore for MemoryStore {
    async fn insert_flow(&self, flow: &Flow, max_pending: u32) -> Result<bool, StoreError> {
        self.write(|tables| {
            let twin = |row: &FlowRow| {
                let same_link = flow.proof.link.is_some() && row.flow.proof.link == flow.proof.link;
                row.flow.state_hash == flow.state_hash || same_link
            };
            if tables.flows.iter().any(twin) {
                return Err(StoreError::Unavailable("there is a flow with this state or link".into()));
            }
            let of_user = |other: &Flow| {
                let (one, two) = (&other.key, &flow.key);
                (&one.tenant, &one.provider, &one.user) == (&two.tenant, &two.provider, &two.user)
                    && other.status == FlowStatus::Pending
                    && other.expires_at > flow.created_at
            };
            let pending = tables.flows.iter().filter(|row| of_user(&row.flow)).count();
            let fits = pending < max_pending as usize;
            if fits {
                tables.flows.push(FlowRow { flow: flow.clone(), exchange_began_at: None });
            }
            Ok(fits)
        })
    }

    async fn load_flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Flow>, StoreError> {
        Ok(self.read(|tables| {
            let mut flows = tables.flows.iter().map(|row| &row.flow);
            flows.find(|flow| flow.id == id && flow.key.tenant == *tenant).cloned()
        }))
    }

    async fn latest_flow(&self, key: &CredentialKey) -> Result<Option<Flow>, StoreError> {
        Ok(self.read(|tables| {
            let flows = tables.flows.iter().map(|row| &row.flow).filter(|flow| flow.key == *key);
            flows.max_by_key(|flow| flow.created_at).cloned()
        }))
    }

    async fn pending_flows(&self, key: &CredentialKey, now: Timestamp) -> Result<Vec<Flow>, StoreError> {
        Ok(self.read(|tables| {
            let flows = tables.flows.iter().rev().map(|row| &row.flow);
            let mut pending: Vec<_> = flows
                .filter(|flow| {
                    flow.key == *key && flow.status == FlowStatus::Pending && flow.expires_at > now
                })
                .cloned()
                .collect();
            pending.sort_by_key(|flow| std::cmp::Reverse(flow.expires_at));
            pending
        }))
    }

    async fn flow_of_state(
        &self,
        state: StateHash,
        provider: &ProviderId,
    ) -> Result<Option<Flow>, StoreError> {
        Ok(self.read(|tables| {
            let mut flows = tables.flows.iter().map(|row| &row.flow);
            flows.find(|flow| flow.state_hash == state && flow.key.provider == *provider).cloned()
        }))
    }

    async fn flow_of_link(&self, link: SecretHash) -> Result<Option<Flow>, StoreError> {
        Ok(self.read(|tables| {
            let mut flows = tables.flows.iter().map(|row| &row.flow);
            flows.find(|flow| flow.proof.link == Some(link)).cloned()
        }))
    }

    async fn flow_of_browser(&self, id: FlowId) -> Result<Option<Flow>, StoreError> {
        Ok(self.read(|tables| tables.flows.iter().map(|row| &row.flow).find(|flow| flow.id == id).cloned()))
    }

    async fn admit_browser(
        &self,
        id: FlowId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let found = tables
                .flow(|flow| flow.id == id && flow.status == FlowStatus::Pending && flow.expires_at > now);
            let Some(row) = found else { return false };
            row.flow.proof.browser = Some(browser);
            true
        }))
    }

    async fn consume_flow(
        &self,
        state: StateHash,
        provider: &ProviderId,
        browser: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        Ok(self.write(|tables| {
            let found = tables.flow(|flow| flow.state_hash == state && flow.key.provider == *provider);
            advance(found, FlowStatus::Pending, now, |row| {
                let is_browser = row.flow.proof.browser == Some(browser);
                if is_browser {
                    row.flow.status = FlowStatus::Exchanging;
                    row.exchange_began_at = Some(now);
                }
                is_browser
            })
        }))
    }

    async fn hold_code(&self, held: HeldCode, now: Timestamp) -> Result<Consumed, StoreError> {
        Ok(self.write(|tables| {
            let found =
                tables.flow(|flow| flow.state_hash == held.state && flow.key.provider == held.provider);
            advance(found, FlowStatus::Pending, now, |row| {
                row.flow.status = FlowStatus::Returned;
                row.flow.code_sealed = Some(held.code);
                row.flow.proof.completion_code = Some(held.completion_code);
                true
            })
        }))
    }

    async fn redeem_flow(
        &self,
        id: FlowId,
        completion_code: SecretHash,
        now: Timestamp,
    ) -> Result<Consumed, StoreError> {
        Ok(self.write(|tables| {
            advance(tables.flow(|flow| flow.id == id), FlowStatus::Returned, now, |row| {
                let is_half = row.flow.proof.completion_code == Some(completion_code);
                if is_half {
                    row.flow.status = FlowStatus::Exchanging;
                    row.flow.code_sealed = None;
                    row.exchange_began_at = Some(now);
                }
                is_half
            })
        }))
    }

    async fn end_flow(
        &self,
        id: FlowId,
        from: FlowStatus,
        status: FlowStatus,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let may_end = matches!(from, FlowStatus::Pending | FlowStatus::Exchanging);
            let found = tables.flow(|flow| flow.id == id && flow.status == from && may_end);
            let Some(row) = found else { return false };
            (row.flow.status, row.flow.ended_at) = (status, Some(now));
            true
        }))
    }

    async fn cancel_flow(
        &self,
        tenant: &TenantId,
        id: FlowId,
        now: Timestamp,
    ) -> Result<Option<Flow>, StoreError> {
        Ok(self.write(|tables| {
            let row = tables.flow(|flow| flow.id == id && flow.key.tenant == *tenant)?;
            let flow = &mut row.flow;
            if matches!(flow.status, FlowStatus::Pending | FlowStatus::Returned) {
                let expired = flow.expires_at <= now;
                flow.status = if expired { FlowStatus::Expired } else { FlowStatus::Cancelled };
                flow.ended_at = Some(flow.expires_at.min(now));
                flow.code_sealed = None;
            }
            Some(flow.clone())
        }))
    }

    async fn cancel_flows(
        &self,
        tenant: &TenantId,
        user: Option<&UserId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<CancelledFlows, StoreError> {
        Ok(self.write(|tables| {
            let of = |flow: &&mut Flow| {
                flow.key.tenant == *tenant
                    && user.is_none_or(|user| flow.key.user == *user)
                    && matches!(
                        flow.status,
                        FlowStatus::Pending | FlowStatus::Returned | FlowStatus::Exchanging
                    )
            };
            let flows = tables.flows.iter_mut().map(|row| &mut row.flow);
            let (mut ended, mut cancelled) = (0, 0);
            for flow in flows.filter(of).take(limit as usize) {
                ended += 1;
                let over = flow.status != FlowStatus::Exchanging && flow.expires_at <= now;
                cancelled += u32::from(!over);
                flow.code_sealed = None;
                (flow.status, flow.ended_at) = if over {
                    (FlowStatus::Expired, Some(flow.expires_at))
                } else {
                    (FlowStatus::Cancelled, Some(now))
                };
            }
            CancelledFlows { cancelled, more: ended >= limit }
        }))
    }

    async fn sweep_flows(
        &self,
        now: Timestamp,
        interrupted_before: Timestamp,
        delete_before: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(self.write(|tables| {
            let count = tables.flows.len();
            tables.flows.retain(|row| row.flow.ended_at.is_none_or(|ended| ended >= delete_before));
            let mut changed = count - tables.flows.len();
            for FlowRow { flow, exchange_began_at } in &mut tables.flows {
                let end = match flow.status {
                    FlowStatus::Pending | FlowStatus::Returned if flow.expires_at <= now => {
                        (FlowStatus::Expired, flow.expires_at)
                    }
                    FlowStatus::Exchanging if exchange_began_at.is_some_and(|t| t < interrupted_before) => {
                        (FlowStatus::Failed(FlowFailure::Interrupted), now)
                    }
                    _ => continue,
                };
                (flow.status, flow.ended_at) = (end.0, Some(end.1));
                flow.code_sealed = None;
                changed += 1;
            }
            u64::try_from(changed).unwrap()
        }))
    }
}

#[async_trait]
impl OutboxStore for MemoryStore {
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError> {
        self.write(|tables| {
            if tables.revocations.iter().all(|row| row.pending.id != revocation.id) {
                tables.revocations.push(RevocationRow { pending: revocation, finished: None });
            }
        });
        Ok(())
    }

    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError> {
        Ok(self.write(|tables| {
            let pending =
                &mut tables.revocation(id).filter(|row| row.pending.next_attempt_at <= now)?.pending;
            pending.attempts += 1;
            pending.next_attempt_at = lease_until;
            Some(pending.clone())
        }))
    }

    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError> {
        Ok(self.read(|tables| {
            let open = tables.revocations.iter().filter(|row| row.finished.is_none());
            let mut due: Vec<_> = open.map(|row| (row.pending.next_attempt_at, row.pending.id)).collect();
            due.retain(|(next, _)| *next <= now);
            due.sort_by_key(|(next, _)| *next);
            due.into_iter().take(limit as usize).map(|(_, id)| id).collect()
        }))
    }

    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError> {
        self.write(|tables| {
            if let Some(row) = tables.revocation(id) {
                row.pending.next_attempt_at = next_attempt_at;
            }
        });
        Ok(())
    }

    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|tables| {
            if let Some(row) = tables.revocation(id) {
                row.finished = Some((outcome, now));
            }
        });
        Ok(())
    }

    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.write(|tables| {
            let count = tables.revocations.len();
            tables.revocations.retain(|row| row.finished.is_none_or(|(_, at)| at >= before));
            u64::try_from(count - tables.revocations.len()).unwrap()
        }))
    }
}

#[async_trait]
impl DataKeyStore for MemoryStore {
    async fn data_key(&self, id: [u8; 16]) -> Result<Option<WrappedDataKey>, StoreError> {
        Ok(self.read(|tables| tables.data_keys.iter().find(|key| key.id == id).cloned()))
    }

    async fn newest_data_key_or_insert(
        &self,
        candidate: WrappedDataKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        Ok(self.write(|tables| {
            if let Some(newest) = tables.newest_key(&candidate.tenant, candidate.purpose) {
                return Some(newest);
            }
            let deleted = |there: &Tenant| there.id == candidate.tenant && there.deleted_at.is_some();
            if candidate.purpose == DataKeyPurpose::Encryption && tables.tenants.iter().any(deleted) {
                return None;
            }
            tables.data_keys.push(candidate.clone());
            Some(candidate)
        }))
    }

    async fn newest_data_key(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        Ok(self.read(|tables| tables.newest_key(tenant, purpose)))
    }

    async fn kek_ids_in_use(&self) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.read(|tables| tables.data_keys.iter().map(|key| key.kek_id.clone()).collect()))
    }

    async fn data_keys_under(&self, kek_id: &str, limit: u32) -> Result<Vec<WrappedDataKey>, StoreError> {
        Ok(self.read(|tables| {
            let keys = tables.data_keys.iter().rev().filter(|key| key.kek_id == kek_id);
            let mut keys: Vec<_> = keys.cloned().collect();
            keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
            keys.truncate(limit as usize);
            keys
        }))
    }

    async fn data_keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<WrappedDataKey>, StoreError> {
        Ok(self.read(|tables| {
            let behind = tables.data_keys.iter().filter(|key| after.is_none_or(|after| key.id > after));
            let of_tenant = behind.filter(|key| tenant.is_none_or(|tenant| key.tenant == *tenant));
            let mut keys: Vec<_> = of_tenant.cloned().collect();
            keys.sort_by_key(|key| key.id);
            keys.truncate(limit as usize);
            keys
        }))
    }

    async fn data_key_states(
        &self,
        ids: &[DataKeyId],
    ) -> Result<Vec<(DataKeyId, Option<Timestamp>)>, StoreError> {
        Ok(self.read(|tables| {
            let found = tables.data_keys.iter().filter(|key| ids.contains(&key.id));
            found.map(|key| (key.id, key.superseded_at)).collect()
        }))
    }

    async fn supersede_data_key(
        &self,
        over: DataKeyId,
        mut successor: WrappedDataKey,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let of_one =
                |key: &WrappedDataKey| (&key.tenant, key.purpose) == (&successor.tenant, successor.purpose);
            let newest = tables.data_keys.iter().filter(|key| of_one(key)).map(|key| key.created_at).max();
            let active = tables.data_keys.iter_mut();
            let active =
                active.filter(|key| of_one(key)).find(|key| key.id == over && key.superseded_at.is_none());
            let Some(active) = active else { return false };
            active.superseded_at = Some(successor.created_at.max(active.created_at));
            let later = newest.map(|newest| newest + jiff::SignedDuration::from_micros(1));
            successor.created_at =
                later.map_or(successor.created_at, |later| later.max(successor.created_at));
            tables.data_keys.push(successor);
            true
        }))
    }

    async fn rewrap_data_key(&self, was: &WrappedDataKey, is: &WrappedDataKey) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let same = |key: &&mut WrappedDataKey| {
                (key.id, &key.kek_id, &key.wrapped) == (was.id, &was.kek_id, &was.wrapped)
            };
            let Some(key) = tables.data_keys.iter_mut().find(same) else { return false };
            (key.kek_id, key.wrapped) = (is.kek_id.clone(), is.wrapped.clone());
            true
        }))
    }

    async fn retire_data_key(&self, id: DataKeyId, superseded_before: Timestamp) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let count = tables.data_keys.len();
            let old = |key: &WrappedDataKey| key.superseded_at.is_some_and(|since| since < superseded_before);
            tables.data_keys.retain(|key| key.id != id || !old(key));
            tables.data_keys.len() < count
        }))
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn events_after(&self, query: EventQuery) -> Result<EventPage, StoreError> {
        Ok(self.read(|tables| {
            let of_query = tables.events.iter().filter(|event| {
                let key = &event.told.key;
                key.tenant == query.tenant
                    && query.user.as_ref().is_none_or(|user| key.user == *user)
                    && event.position > query.after
            });
            let events: Vec<_> = of_query.take(query.limit as usize).cloned().collect();
            let newest = EventPosition { transaction: 0, sequence: tables.last_event };
            let full = events.len() == query.limit as usize;
            let last = events.last().filter(|_| full).map(|last| last.position);
            EventPage { events, reached: last.unwrap_or(newest.max(query.after)) }
        }))
    }

    async fn newest_position(&self) -> Result<EventPosition, StoreError> {
        Ok(self.read(|tables| EventPosition { transaction: 0, sequence: tables.last_event }))
    }

    async fn may_follow(&self, position: EventPosition) -> Result<bool, StoreError> {
        Ok(position <= self.newest_position().await?)
    }

    async fn delete_events_before(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.write(|tables| {
            let count = tables.events.len();
            let mut left = limit;
            tables.events.retain(|event| {
                let deleted = event.told.at < before && left > 0;
                left -= u32::from(deleted);
                !deleted
            });
            u64::try_from(count - tables.events.len()).unwrap()
        }))
    }
}
