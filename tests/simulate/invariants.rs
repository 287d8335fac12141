//! The invariants of the protocol, checked while a world runs (I7, I8) and when it is at rest (the others).

use token_broker::domain::credential::Credential;
use token_broker::domain::ports::{LineageWrite, Persisted};

use super::clients::{Call, History, service_key};
use super::link::SimClock;
use super::provider::Grant;
use super::store_port::is_refreshing;
use super::world::{LONGEST_PAUSE, SETTLE, World};

impl World {
    /// I7: a successful exchange is never discarded while its parent is in the row.
    pub(crate) fn check_i7(&self, before: Option<&Credential>, write: &LineageWrite, persisted: &Persisted) {
        let Some(before) = before.filter(|row| row.grant_id == write.grant_id) else { return };
        let Some(refresh) = before.tokens().and_then(|tokens| tokens.refresh.as_ref()) else { return };
        let parent_is_there = refresh.fingerprint == write.parent_fingerprint;
        let discarded = matches!(persisted, Persisted::Superseded | Persisted::Revoked);
        if parent_is_there && discarded {
            self.violated(format!("I7: epoch {} was discarded over {before:?}", write.epoch));
        }
    }

    /// I8: `invalid_grant` never demotes a row whose refresh token has moved, which is one that works.
    pub(crate) fn check_i8(&self, before: Option<&Credential>) {
        let Some(refresh) = before.and_then(|row| row.tokens()).and_then(|t| t.refresh.as_ref()) else {
            return;
        };
        let stored = token_of(refresh.sealed.0.as_slice());
        if self.provider.accepts(&stored) {
            self.violated(format!("I8: a row was demoted whose {stored} works"));
        }
    }

    /// All that holds at rest. Answers how many grants died of a loss inside the window.
    pub(crate) fn check_at_rest(&self, histories: &[History]) -> u64 {
        self.i1();
        self.i2();
        let losses = self.i5();
        for (user, history) in histories.iter().enumerate() {
            self.i3(user, history);
            self.i4(history);
        }
        losses
    }

    /// Calls that present one refresh token never overlap, and there is a second one only after settling.
    fn i1(&self) {
        let log = self.provider.log();
        let dead = self.dead.lock().unwrap().clone();
        for (n, second) in log.iter().enumerate() {
            let Some(first) = log[..n].iter().rfind(|first| first.token == second.token) else { continue };
            if first.over.is_none_or(|over| over > second.sent) {
                self.violated(format!("I1: {} was presented while it was presented", first.token));
            }
            let settled = SETTLE.saturating_sub(LONGEST_PAUSE);
            let early = second.sent.duration_since(first.sent) < settled;
            if early && !first.answered && !dead.contains(&first.by) {
                self.violated(format!("I1: {} was presented again before it was settled", first.token));
            }
        }
    }

    /// Per grant, `generation` and `rt_epoch` only grow.
    fn i2(&self) {
        for broken in self.store.backwards() {
            self.violated(format!("I2: {broken}"));
        }
    }

    /// Revoke wins over any concurrent refresh: at rest the grant is dead at the provider too, unless its last token was
    /// lost inside the window.
    fn i3(&self, user: usize, history: &History) {
        let grants = self.provider.grants();
        for (number, consent) in &history.consents {
            let Some(stored) = consent.acknowledged else { continue };
            let replaced_before = |revoke: &Call, acknowledged| {
                let others = history.consents.iter().filter(|(other, _)| other != number);
                others.map(|(_, other)| other.invoked).any(|at| {
                    at >= consent.invoked && at <= acknowledged && at <= revoke.acknowledged.unwrap()
                })
            };
            let revoked = history.revokes.iter().any(|revoke| {
                revoke.acknowledged.is_some_and(|acknowledged| {
                    revoke.invoked > stored && !replaced_before(revoke, acknowledged)
                })
            });
            let grant = &grants[*number];
            if revoked && grant.alive && !self.lost(grant) {
                self.violated(format!("I3: user {user} revoked grant {number}, which lives: {grant:?}"));
            }
        }
    }

    /// No read invoked after Revoke's acknowledgement returns a token of that grant. A database that fails over may lose the
    /// acknowledged commit; then the tombstone has the last word, but only when it is met.
    fn i4(&self, history: &History) {
        if *self.rollbacks.lock().unwrap() > 0 {
            return;
        }
        let grants = self.provider.grants();
        for revoke in &history.revokes {
            let Some(acknowledged) = revoke.acknowledged else { continue };
            for (number, consent) in &history.consents {
                if consent.acknowledged.is_none_or(|stored| stored >= revoke.invoked) {
                    continue;
                }
                let of_grant = |access: &String| grants[*number].all_access.contains(access);
                let late = history.reads.iter().find(|(at, access)| *at > acknowledged && of_grant(access));
                if let Some((_, access)) = late {
                    self.violated(format!(
                        "I4: {access} was handed out after its grant {number} was revoked"
                    ));
                }
            }
        }
    }

    /// The stored refresh token is the provider's live one, except for a death inside the window: a grant that ended since a
    /// spent token came back had a last token that was never durable. Answers how many of these there were.
    fn i5(&self) -> u64 {
        let grants = self.provider.grants();
        for row in self.store.credentials() {
            let Some(refresh) = row.tokens().and_then(|tokens| tokens.refresh.as_ref()) else { continue };
            let stored = token_of(refresh.sealed.0.as_slice());
            if !self.provider.accepts(&stored) {
                let state = if row.is_connected() { "good" } else { "dead" };
                let grant =
                    grants.iter().find(|grant| grant.refresh == stored || grant.spent.contains(&stored));
                if row.is_connected() || grant.is_none_or(|grant| grant.alive && !self.lost(grant)) {
                    self.violated(format!("I5: {stored} is stored as {state}, the provider has {grant:?}"));
                }
            }
        }
        let ended: Vec<_> = grants.iter().filter(|grant| grant.reused.is_some()).collect();
        for grant in ended.iter().filter(|grant| !self.lost(grant)) {
            self.violated(format!(
                "I5: the last token of {grant:?} was durable, and it ended by reuse all the same"
            ));
        }
        u64::try_from(ended.len()).unwrap()
    }

    /// Whether the provider's last refresh token was never durable here.
    fn lost(&self, grant: &Grant) -> bool {
        !grant.spent.is_empty() && !self.copies.has(&grant.refresh)
    }

    /// What is not at rest yet, if anything.
    pub(crate) fn unrest(&self, users: usize) -> Option<String> {
        let rows = self.store.credentials();
        if let Some(row) = rows.iter().find(|row| is_refreshing(row)) {
            return Some(format!("row {} is still refreshing", row.id));
        }
        let now = token_broker::domain::ports::Clock::now(&SimClock(self.began));
        let expired = rows.iter().find(|row| {
            row.tokens().is_none_or(|tokens| tokens.access_life.expires_at.is_some_and(|end| end <= now))
        });
        if let Some(row) = expired {
            return Some(format!("row {} has no access token", row.id));
        }
        let missing = (0..users).find(|user| rows.iter().all(|row| row.key.user != service_key(*user).user));
        if let Some(user) = missing {
            return Some(format!("user {user} has no row"));
        }
        let open = self.store.open_revocations();
        (open > 0).then(|| format!("{open} revocations are not told"))
    }
}

/// What the plain cipher has sealed.
fn token_of(sealed: &[u8]) -> String {
    String::from_utf8(sealed[17..].to_vec()).unwrap()
}
