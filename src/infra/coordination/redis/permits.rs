//! The permit store of many replicas.
//!
//! One string per refresh token: `P|owner|time` (hex, microseconds of Redis) or `S|epoch|grant|MAC record` (decimal, hex, 64 digits
//! of hex and behind them the bytes of [`crate::infra::record`]). Whatever else stands there is damage: nobody gets a permit over
//! it, nothing is overwritten but by a successor, and the protocol goes on with the claim alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::keys::Keys;
use super::link::Link;
use super::script::Script;
use crate::domain::coordination::{
    CoordinationError, Permit, PermitRequest, PermitStore, Successor, Tombstone,
};
use crate::domain::credential::{Epoch, Fingerprint};
use crate::domain::key::{ClaimOwner, CredentialId, GrantId};
use crate::infra::coordination::{DEAD_OWNER, STORED_SUCCESSOR, SUCCESSOR, TOMBSTONE};
use crate::infra::record;

/// Permits, successors, tombstones and dead owners in Redis.
pub(super) struct RedisPermits {
    link: Arc<Link>,
    keys: Keys,
    take: Script,
    keep_successor: Script,
    successor_stored: Script,
    drop_permit: Script,
}

const DAMAGED: CoordinationError = CoordinationError::Corrupt("what is known of a refresh token");

impl RedisPermits {
    pub(super) fn new(link: Arc<Link>, keys: Keys) -> Self {
        Self {
            link,
            keys,
            take: Script::new(include_str!("scripts/take.lua")),
            keep_successor: Script::new(include_str!("scripts/keep_successor.lua")),
            successor_stored: Script::new(include_str!("scripts/successor_stored.lua")),
            drop_permit: Script::new(include_str!("scripts/drop_permit.lua")),
        }
    }

    /// Sets a key that says something by being there.
    async fn mark(
        &self,
        operation: &'static str,
        key: String,
        value: &str,
        lasts: Duration,
    ) -> Result<(), CoordinationError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(milliseconds(lasts));
        self.link.command(operation, &command).await
    }
}

/// At least one: Redis knows no shorter life.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn hex_id(id: &[u8; 16]) -> String {
    hex::encode(id)
}

/// The value of a successor.
fn successor_value(Successor { write, mac }: &Successor) -> Vec<u8> {
    let (epoch, grant) = (write.epoch, hex_id(write.grant_id.as_bytes()));
    let mut value = format!("S|{epoch}|{grant}|{}", hex::encode(mac)).into_bytes();
    value.extend(record::encode(write));
    value
}

/// A stored successor; `None` for a permit.
fn parse_value(value: &[u8]) -> Result<Option<Successor>, CoordinationError> {
    let mut parts = value.splitn(4, |byte| *byte == b'|');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(b"P"), Some(_), Some(_), None) => Ok(None),
        (Some(b"S"), Some(_), Some(_), Some(successor)) => parse_successor(successor).map(Some),
        _ => Err(DAMAGED),
    }
}

fn parse_successor(value: &[u8]) -> Result<Successor, CoordinationError> {
    let (mac, record) = value.split_at_checked(64).ok_or(CoordinationError::Corrupt("a successor"))?;
    let mac = parse_mac(mac).ok_or(CoordinationError::Corrupt("the MAC of a successor"))?;
    let write =
        record::decode(record).map_err(|_| CoordinationError::Corrupt("the record of a successor"))?;
    Ok(Successor { write, mac })
}

fn parse_taken(answer: &[Vec<u8>]) -> Result<Permit, CoordinationError> {
    let parts: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
    match parts[..] {
        [b"taken"] => Ok(Permit::Taken),
        [b"buried", mac] => parse_mac(mac).map(|mac| Permit::Buried(Tombstone(mac))).ok_or(DAMAGED),
        [b"successor", value] => parse_successor(value).map(|kept| Permit::Successor(Box::new(kept))),
        [b"held", owner, age] => parse_held(owner, age).ok_or(DAMAGED),
        _ => Err(DAMAGED),
    }
}

fn parse_mac(value: &[u8]) -> Option<[u8; 32]> {
    hex::decode(value).ok()?.try_into().ok()
}

fn parse_held(owner: &[u8], age: &[u8]) -> Option<Permit> {
    let owner = ClaimOwner::from_bytes(hex::decode(owner).ok()?.try_into().ok()?);
    let age = Duration::from_micros(std::str::from_utf8(age).ok()?.parse().ok()?);
    Some(Permit::Held { owner, age })
}

#[async_trait]
impl PermitStore for RedisPermits {
    async fn take(&self, request: PermitRequest) -> Result<Permit, CoordinationError> {
        let keys = [
            self.keys.token(request.credential, request.token),
            self.keys.tombstone(request.credential, request.grant),
        ];
        let takeover = request.takeover.map_or_else(String::new, |owner| hex_id(owner.as_bytes()));
        let call = self.take.call(
            &keys,
            &[
                hex_id(request.owner.as_bytes()).as_bytes(),
                hex_id(request.grant.as_bytes()).as_bytes(),
                request.row_epoch.to_string().as_bytes(),
                milliseconds(request.lifetime).to_string().as_bytes(),
                takeover.as_bytes(),
            ],
        );
        parse_taken(&self.link.script::<Vec<Vec<u8>>>("take", &call).await?)
    }

    async fn keep_successor(&self, successor: &Successor) -> Result<(), CoordinationError> {
        let write = &successor.write;
        let call = self.keep_successor.call(
            &[self.keys.token(write.id, write.parent_fingerprint)],
            &[
                write.epoch.to_string().as_bytes(),
                &successor_value(successor),
                milliseconds(SUCCESSOR).to_string().as_bytes(),
            ],
        );
        self.link.script("keep_successor", &call).await
    }

    async fn successor(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.token(credential, parent));
        let value: Option<Vec<u8>> = self.link.command("successor", &command).await?;
        value.as_deref().map_or(Ok(None), parse_value)
    }

    async fn successor_stored(
        &self,
        credential: CredentialId,
        parent: Fingerprint,
        epoch: Epoch,
    ) -> Result<(), CoordinationError> {
        let call = self.successor_stored.call(
            &[self.keys.token(credential, parent)],
            &[epoch.to_string().as_bytes(), milliseconds(STORED_SUCCESSOR).to_string().as_bytes()],
        );
        self.link.script("successor_stored", &call).await
    }

    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError> {
        let key = self.keys.token(credential, token);
        let call = self.drop_permit.call(&[key], &[hex_id(owner.as_bytes()).as_bytes()]);
        self.link.script("drop_permit", &call).await
    }

    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError> {
        let key = self.keys.tombstone(credential, grant);
        self.mark("bury", key, &hex::encode(tombstone.0), TOMBSTONE).await
    }

    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError> {
        self.mark("owner_died", self.keys.dead(owner), "1", DEAD_OWNER).await
    }

    async fn is_dead(&self, owner: ClaimOwner) -> Result<bool, CoordinationError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(self.keys.dead(owner));
        self.link.command("is_dead", &command).await
    }

    async fn ping(&self) -> Result<(), CoordinationError> {
        self.link.command("ping", &redis::cmd("PING")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_value_and_no_answer_panics(
            value: Vec<u8>, kind in "(P|S)?", answer: Vec<Vec<u8>>, word in "(taken|buried|successor|held)",
        ) {
            let _ = parse_value(&value);
            let _ = parse_value(&[kind.as_bytes(), b"|", &value].concat());
            let _ = parse_taken(&answer);
            let _ = parse_taken(&std::iter::once(word.into_bytes()).chain(answer).collect::<Vec<_>>());
        }
    }
}
