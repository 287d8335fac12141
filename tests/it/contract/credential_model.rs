//! Random sequences of operations on one row, compared step by step with a model that is written in the protocol's own
//! words. After every step the answer and the whole row must be the model's, and I2 must hold.

use jiff::Timestamp;
use proptest::prelude::*;
use token_broker::domain::credential::{
    BackOff, Credential, CredentialState, Epoch, Fingerprint, Generation, ReauthReason, RefreshFailure,
};
use token_broker::domain::key::GrantId;
use token_broker::domain::ports::{
    ClaimRequest, DeadOwners, GrantCondition, LineageWrite, NewGrant, Persisted, Release, RevokedRow,
    StoredGrant,
};

use super::Stores;
use super::samples::{at, claim, fingerprint, key, lineage, new_grant, owner, revoke_write};

/// What can happen. Numbers choose among what is there, modulo its length.
#[derive(Debug, Clone)]
enum Step {
    Store { only_if_not_connected: bool },
    Claim { reading: usize, owner: u32 },
    Settle { reading: usize, owner: u32 },
    Persist { claimed: usize, rotates: bool, parent: usize },
    Release { claimed: usize, failures: u32 },
    NeedsReauth { claimed: usize },
    Revoke,
    OwnersDied { but: u32 },
    Wait { seconds: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(|only_if_not_connected| Step::Store { only_if_not_connected }),
        6 => (0_usize..3, 1_u32..3).prop_map(|(reading, owner)| Step::Claim { reading, owner }),
        4 => (0_usize..3, 1_u32..3).prop_map(|(reading, owner)| Step::Settle { reading, owner }),
        6 => (0_usize..4, any::<bool>(), 0_usize..8)
            .prop_map(|(claimed, rotates, parent)| Step::Persist { claimed, rotates, parent }),
        2 => (0_usize..3, 1_u32..4).prop_map(|(claimed, failures)| Step::Release { claimed, failures }),
        1 => (0_usize..3).prop_map(|claimed| Step::NeedsReauth { claimed }),
        1 => Just(Step::Revoke),
        1 => (1_u32..3).prop_map(|but| Step::OwnersDied { but }),
        4 => prop_oneof![Just(1), Just(30), Just(300)].prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A claim that somebody holds, or held, and the row as it was then.
#[derive(Debug, Clone)]
struct Held {
    row: Credential,
    epoch: Epoch,
}

#[derive(Debug, Default)]
struct World {
    /// The model.
    row: Option<Credential>,
    /// What callers have read, the newest first.
    readings: Vec<Credential>,
    /// The newest first.
    held: Vec<Held>,
    seconds: i64,
    /// Numbers given to pairs.
    pairs: u32,
}

fn refresh_fingerprint(row: &Credential) -> Option<Fingerprint> {
    row.tokens().and_then(|tokens| tokens.refresh.as_ref()).map(|refresh| refresh.fingerprint)
}

impl World {
    fn now(&self) -> Timestamp {
        at(1000 + self.seconds)
    }

    fn pair(&mut self) -> u32 {
        self.pairs += 1;
        self.pairs
    }

    fn store(&mut self, grant: &NewGrant) -> StoredGrant {
        let connected = self.row.as_ref().is_some_and(Credential::is_connected);
        if grant.condition == GrantCondition::NotConnected && connected {
            return StoredGrant::ConditionFailed;
        }
        let old = self.row.as_ref();
        let row = Credential {
            id: old.map_or(grant.id_if_new, |old| old.id),
            key: grant.key.clone(),
            created_at: old.map_or(grant.now, |old| old.created_at),
            updated_at: grant.now,
            grant_id: grant.grant_id,
            configuration: grant.configuration,
            generation: old.map_or(1, |old| old.generation + 1),
            epoch: old.map_or(1, |old| old.epoch + 1),
            state: CredentialState::Active { tokens: grant.tokens.clone(), back_off: None },
        };
        self.row = Some(row.clone());
        StoredGrant::Stored(Box::new(row))
    }

    fn claim(&mut self, request: &ClaimRequest, settle: bool) -> Option<Epoch> {
        let row = self.row.as_mut()?;
        let same = row.epoch == request.epoch
            && row.generation == request.generation
            && refresh_fingerprint(row) == Some(request.fingerprint);
        let (tokens, failures) = match &row.state {
            CredentialState::Active { tokens, back_off } if !settle => {
                (tokens, back_off.map_or(0, |back_off| back_off.failures))
            }
            CredentialState::Refreshing { tokens, claim, failures }
                if settle && claim.settle_at <= request.now =>
            {
                (tokens, *failures)
            }
            _ => return None,
        };
        if !same {
            return None;
        }
        row.state = CredentialState::Refreshing { tokens: tokens.clone(), claim: request.claim, failures };
        row.epoch += 1;
        row.updated_at = request.now;
        Some(row.epoch)
    }

    fn persist(&mut self, write: &LineageWrite) -> Persisted {
        let Some(row) = self.row.as_mut() else { return Persisted::Revoked };
        if row.grant_id != write.grant_id {
            return Persisted::Superseded;
        }
        let Some(tokens) = row.tokens() else { return Persisted::Revoked };
        let Some(stored) = &tokens.refresh else { return Persisted::Superseded };
        let related = stored.fingerprint == write.parent_fingerprint
            || stored.parent_fingerprint == Some(write.parent_fingerprint);
        if stored.epoch < write.epoch && related {
            row.state = CredentialState::Active { tokens: write.tokens.clone(), back_off: None };
            row.generation += 1;
            row.updated_at = write.now;
            return Persisted::Stored(Box::new(row.clone()));
        }
        let written = write.tokens.refresh.as_ref().unwrap().fingerprint;
        if stored.fingerprint == written && stored.epoch == write.epoch {
            Persisted::AlreadyStored(Box::new(row.clone()))
        } else {
            Persisted::Superseded
        }
    }

    /// The row, if it is being refreshed under this epoch.
    fn refreshing(&mut self, epoch: Epoch) -> Option<&mut Credential> {
        let refreshing = |row: &&mut Credential| matches!(row.state, CredentialState::Refreshing { .. });
        self.row.as_mut().filter(|row| row.epoch == epoch).filter(refreshing)
    }

    fn release(&mut self, epoch: Epoch, back_off: BackOff, now: Timestamp) -> bool {
        let Some(row) = self.refreshing(epoch) else { return false };
        let tokens = row.tokens().unwrap().clone();
        row.state = CredentialState::Active { tokens, back_off: Some(back_off) };
        row.updated_at = now;
        true
    }

    fn needs_reauth(&mut self, epoch: Epoch, fingerprint: Fingerprint, now: Timestamp) -> bool {
        let Some(row) = self.refreshing(epoch) else { return false };
        if refresh_fingerprint(row) != Some(fingerprint) {
            return false;
        }
        let tokens = row.tokens().unwrap().clone();
        row.state = CredentialState::NeedsReauth { tokens, reason: ReauthReason::RefreshTokenRejected };
        row.updated_at = now;
        true
    }

    fn revoke(&mut self, now: Timestamp) -> bool {
        let Some(row) = self.row.as_mut().filter(|row| row.tokens().is_some()) else { return false };
        row.state = CredentialState::Revoked;
        row.epoch += 1;
        row.updated_at = now;
        true
    }

    fn owners_died(&mut self, but: u32) -> u64 {
        match self.row.as_mut().map(|row| &mut row.state) {
            Some(CredentialState::Refreshing { claim, .. })
                if claim.owner != owner(but) && claim.settle_at > claim.deadline =>
            {
                claim.settle_at = claim.deadline;
                1
            }
            _ => 0,
        }
    }

    /// Does one step in the store and in the model.
    async fn run(&mut self, step: Step, stores: &Stores) {
        let store = &stores.credentials;
        let now = self.now();
        match step {
            Step::Store { only_if_not_connected } => {
                let mut grant = NewGrant { now, ..new_grant(key("alice"), self.pair()) };
                if only_if_not_connected {
                    grant.condition = GrantCondition::NotConnected;
                }
                assert_eq!(store.store_grant(grant.clone()).await.unwrap(), self.store(&grant));
            }
            Step::Claim { reading, owner } | Step::Settle { reading, owner } => {
                let settle = matches!(step, Step::Settle { .. });
                let Some(row) = nth(&self.readings, reading) else { return };
                let Some(fingerprint) = refresh_fingerprint(&row) else { return };
                let (id, generation, epoch) = (row.id, row.generation, row.epoch);
                let request =
                    ClaimRequest { id, fingerprint, generation, epoch, claim: claim(owner, now), now };
                let answer = if settle {
                    store.claim_for_settle(request.clone()).await.unwrap()
                } else {
                    store.claim_for_refresh(request.clone()).await.unwrap()
                };
                assert_eq!(answer, self.claim(&request, settle));
                if let Some(epoch) = answer {
                    self.held.insert(0, Held { row, epoch });
                }
            }
            Step::Persist { claimed, rotates, parent } => {
                let Some(Held { row, epoch }) = nth(&self.held, claimed) else { return };
                let n = self.pair();
                let mut write = lineage(&row, epoch, n, now);
                if !rotates {
                    write.tokens.refresh.as_mut().unwrap().fingerprint = write.parent_fingerprint;
                }
                // Now and then a parent that is not the claim's.
                if parent == 0 {
                    write.parent_fingerprint = fingerprint(n / 2);
                    write.tokens.refresh.as_mut().unwrap().parent_fingerprint = Some(fingerprint(n / 2));
                }
                for _ in 0..2 {
                    // Written twice: the second time is a repetition after an unclear answer.
                    assert_eq!(store.persist_lineage(write.clone()).await.unwrap(), self.persist(&write));
                }
            }
            Step::Release { claimed, failures } => {
                let Some(Held { row, epoch }) = nth(&self.held, claimed) else { return };
                let back_off = BackOff { not_before: now, failures, last: RefreshFailure::RateLimited };
                // The holder's own claim: that others' are not released is another case's matter.
                let claimant = match store.load(&key("alice")).await.unwrap().unwrap().state {
                    CredentialState::Refreshing { claim, .. } => claim.owner,
                    _ => owner(1),
                };
                let answer = store
                    .release_claim(Release {
                        id: row.id,
                        epoch,
                        owner: claimant,
                        back_off: Some(back_off),
                        now,
                    })
                    .await
                    .unwrap();
                assert_eq!(answer, self.release(epoch, back_off, now));
            }
            Step::NeedsReauth { claimed } => {
                let Some(Held { row, epoch }) = nth(&self.held, claimed) else { return };
                let fingerprint = refresh_fingerprint(&row).unwrap();
                let reason = ReauthReason::RefreshTokenRejected;
                let answer = store.mark_needs_reauth(row.id, epoch, fingerprint, reason, now).await;
                assert_eq!(answer.unwrap(), self.needs_reauth(epoch, fingerprint, now));
            }
            Step::Revoke => {
                let answer = store.revoke_with_outbox(revoke_write(&key("alice"), None, now)).await.unwrap();
                assert_eq!(answer, RevokedRow { deleted: self.revoke(now), cancelled_flows: 0 });
            }
            Step::OwnersDied { but } => {
                let answer = store.settle_early(DeadOwners::AllBut(owner(but))).await.unwrap();
                assert_eq!(answer, self.owners_died(but));
            }
            Step::Wait { seconds } => self.seconds += seconds,
        }
    }
}

fn nth<T: Clone>(all: &[T], n: usize) -> Option<T> {
    all.get(n.min(all.len().saturating_sub(1))).cloned()
}

/// What only grows: the row's counters, and per grant the epoch of the stored refresh token.
fn counters(row: &Credential) -> (Generation, Epoch, GrantId, Option<Epoch>) {
    let rt_epoch = row.tokens().and_then(|tokens| tokens.refresh.as_ref()).map(|refresh| refresh.epoch);
    (row.generation, row.epoch, row.grant_id, rt_epoch)
}

async fn follow(steps: Vec<Step>, stores: Stores) {
    let mut world = World::default();
    let mut before: Option<Credential> = None;
    for step in steps {
        let shown = format!("{step:?}");
        world.run(step, &stores).await;
        let row = stores.credentials.load(&key("alice")).await.unwrap();
        assert_eq!(row, world.row, "after {shown}");
        if let Some(row) = row {
            if let Some(before) = &before {
                let (old, new) = (counters(before), counters(&row));
                assert!(new.0 >= old.0 && new.1 >= old.1, "I2 after {shown}: {old:?} {new:?}");
                if let (true, Some(old), Some(new)) = (old.2 == new.2, old.3, new.3) {
                    assert!(new >= old, "I2 after {shown}");
                }
            }
            if before.as_ref() != Some(&row) {
                world.readings.insert(0, row.clone());
            }
            before = Some(row);
        }
    }
}

fn run<F: Future<Output = ()>>(follow: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(follow);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn i2_random_operations_follow_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        run(async { follow(steps, super::sqlite().await).await });
    }

    #[test]
    fn i2_random_operations_follow_the_model_on_postgres(steps in proptest::collection::vec(step(), 1..60)) {
        run(async { follow(steps, super::postgres().await).await });
    }
}
