//! The leases of many replicas: a sorted set of ends, and the cap as a string, in milliseconds of Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::keys::Keys;
use super::link::Link;
use super::permits::milliseconds;
use super::script::Script;
use crate::domain::coordination::{CoordinationError, LeaseStore, LeaseTerm};
use crate::domain::key::{CredentialId, LeaseId};
use crate::infra::coordination::{CAP_GRACE, MAX_LEASES};

/// Leases in Redis.
pub(super) struct RedisLeases {
    link: Arc<Link>,
    keys: Keys,
    acquire: Script,
    renew: Script,
    release: Script,
    cap: Script,
    count: Script,
    end_all: Script,
}

/// Milliseconds and whether capped.
type Term = Option<(u64, bool)>;

fn term(term: Term) -> Option<LeaseTerm> {
    term.map(|(lasts, capped)| LeaseTerm { lasts: Duration::from_millis(lasts), capped })
}

impl RedisLeases {
    pub(super) fn new(link: Arc<Link>, keys: Keys) -> Self {
        Self {
            link,
            keys,
            acquire: Script::new(include_str!("scripts/acquire.lua")),
            renew: Script::new(include_str!("scripts/renew.lua")),
            release: Script::new(include_str!("scripts/release.lua")),
            cap: Script::new(include_str!("scripts/cap.lua")),
            count: Script::new(include_str!("scripts/count.lua")),
            end_all: Script::new(include_str!("scripts/end_all.lua")),
        }
    }

    /// The leases and the cap.
    fn both(&self, credential: CredentialId) -> [String; 2] {
        [self.keys.leases(credential), self.keys.cap(credential)]
    }
}

#[async_trait]
impl LeaseStore for RedisLeases {
    async fn acquire(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        let call = self.acquire.call(
            &self.both(credential),
            &[
                lease.to_string().as_bytes(),
                milliseconds(ttl).to_string().as_bytes(),
                MAX_LEASES.to_string().as_bytes(),
            ],
        );
        self.link.script("acquire", &call).await.map(term)
    }

    async fn renew(
        &self,
        credential: CredentialId,
        lease: LeaseId,
        ttl: Duration,
    ) -> Result<Option<LeaseTerm>, CoordinationError> {
        let call = self.renew.call(
            &self.both(credential),
            &[lease.to_string().as_bytes(), milliseconds(ttl).to_string().as_bytes()],
        );
        self.link.script("renew", &call).await.map(term)
    }

    async fn release(&self, credential: CredentialId, lease: LeaseId) -> Result<bool, CoordinationError> {
        let call = self.release.call(&[self.keys.leases(credential)], &[lease.to_string().as_bytes()]);
        self.link.script("release", &call).await
    }

    async fn cap(&self, credential: CredentialId) -> Result<Duration, CoordinationError> {
        let grace = milliseconds(CAP_GRACE).to_string();
        let call = self.cap.call(&self.both(credential), &[grace.as_bytes()]);
        self.link.script("cap", &call).await.map(Duration::from_millis)
    }

    async fn uncap(&self, credential: CredentialId) -> Result<(), CoordinationError> {
        let mut command = redis::cmd("DEL");
        command.arg(self.keys.cap(credential));
        self.link.command("uncap", &command).await
    }

    async fn count(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        let call = self.count.call(&[self.keys.leases(credential)], &[]);
        self.link.script("count", &call).await
    }

    async fn end_all(&self, credential: CredentialId) -> Result<u64, CoordinationError> {
        let call = self.end_all.call(&[self.keys.leases(credential)], &[]);
        self.link.script("end_all", &call).await
    }
}
