//! Token pairs that an earlier presentation left in the permit store or in a journal: the row takes them over, or what they
//! stand for is revoked.

use std::sync::Arc;

use super::Broker;
use super::endings::{storage_failed, vault_failed};
use super::metrics;
use super::orphan::Pair;
use super::refresh::Ready;
use super::single_flight::FlightEnd;
use crate::domain::cipher::{CipherError, Field};
use crate::domain::coordination::{CoordinationError, Permit, Successor, Wake};
use crate::domain::credential::{Credential, Epoch, Fingerprint};
use crate::domain::key::{CredentialId, CredentialKey, GrantId, TenantId};
use crate::domain::ports::{LineageWrite, Persisted, ProviderStanding, RevokeWrite};
use crate::domain::step::Step;

/// How many generations a revocation follows to find the newest token of a grant: each is a refresh whose write was lost.
const LONGEST_CHAIN: usize = 8;

impl Broker {
    /// The successor of a refresh token that the permit store or this process's journal knows, if it is younger than the
    /// row's own token. An unreachable permit store is as good as one that knows nothing; the caller decides whether that
    /// is good enough.
    pub(super) async fn known_successor(
        &self,
        tenant: &TenantId,
        id: CredentialId,
        grant: GrantId,
        parent: Fingerprint,
        row_epoch: Epoch,
    ) -> Option<LineageWrite> {
        let kept = match self.ports.permits.successor(id, parent).await {
            Ok(Some(kept)) => match self.is_ours(tenant, id, parent, &kept).await {
                Ok(ours) => ours.then_some(kept.write),
                Err(error) => {
                    tracing::error!(credential = %id, %error, "a successor can't be verified");
                    None
                }
            },
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(credential = %id, %error, "successors can't be looked up");
                metrics::permit_store_error("successor");
                None
            }
        };
        let journaled = self.ports.journal.successor(id, parent).await;
        let known = [kept, journaled].into_iter().flatten();
        known.filter(|write| write.is_news_to(grant, row_epoch)).max_by_key(|write| write.epoch)
    }

    /// What this process's journal has of a presentation that the row knows nothing of: its write is still to come, or was
    /// lost with the database's last commits.
    pub(super) async fn journaled(&self, ready: &Ready) -> Option<LineageWrite> {
        let (row, refresh) = (&ready.row, &ready.refresh);
        let write = self.ports.journal.successor(row.id, refresh.fingerprint).await?;
        write.is_news_to(row.grant_id, refresh.epoch).then_some(write)
    }

    /// Gives the row a pair that is durable elsewhere. Tries until the database answers.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        mut write: LineageWrite,
        source: &'static str,
    ) -> Result<(), FlightEnd> {
        match self.persist(&mut write).await? {
            Persisted::Stored(_) => {
                metrics::adoption(source);
                tracing::info!(credential = %write.id, epoch = write.epoch, source, "a token pair was adopted");
                self.ports.steps.reached(Step::Adopted, write.id);
            }
            Persisted::AlreadyStored(_) | Persisted::Superseded => {}
            Persisted::Revoked => self.revoke_write(&write).await?,
        }
        self.tell_stored(&write).await;
        self.stored_elsewhere(&write).await;
        Ok(())
    }

    /// The row has it, or nobody wants it: its waiters look again.
    pub(super) async fn tell_stored(&self, write: &LineageWrite) {
        self.ports.wakeups.publish(Wake::Credential(write.id)).await;
        self.ports.steps.reached(Step::Published, write.id);
    }

    /// The row has it, or nobody wants it: the other copies may go in their own time.
    pub(super) async fn stored_elsewhere(&self, write: &LineageWrite) {
        self.ports.journal.stored(write.id, write.epoch).await;
        let stored =
            self.ports.permits.successor_stored(write.id, write.parent_fingerprint, write.epoch).await;
        if let Err(error) = stored {
            // The entry stands for a day instead of minutes, which costs memory only.
            tracing::debug!(credential = %write.id, %error, "a successor's time could not be shortened");
            metrics::permit_store_error("successor_stored");
        }
    }

    /// What a journal or the permit store held of a grant that is revoked: the provider is told (compensation).
    async fn revoke_write(self: &Arc<Self>, write: &LineageWrite) -> Result<(), FlightEnd> {
        let row = match self.ports.credentials.load_by_id(write.id).await {
            Ok(Some(row)) => row,
            Ok(None) => {
                tracing::warn!(credential = %write.id, "a token pair of a row that is gone is dropped");
                return Ok(());
            }
            Err(_) => return Err(FlightEnd::StorageUnavailable),
        };
        let standing = self.provider_of(&row).await.map_err(vault_failed)?;
        let Some(provider) = standing.and_then(ProviderStanding::known) else {
            tracing::warn!(provider = %row.key.provider, "a grant to revoke is of a provider that is not configured");
            return Ok(());
        };
        match self.open_write(&row.key, write).await {
            Ok((access, refresh)) => {
                metrics::refresh(&provider, "revoked_meanwhile");
                self.revoke_orphan(&provider, &row.key, write.grant_id, &access, refresh.as_ref()).await;
                Ok(())
            }
            Err(error) => {
                tracing::error!(credential = %write.id, %error, "a token pair to revoke does not open");
                Err(FlightEnd::DataLoss)
            }
        }
    }

    pub(super) async fn open_write(
        &self,
        key: &CredentialKey,
        write: &LineageWrite,
    ) -> Result<Pair, CipherError> {
        let grant = write.grant_id;
        let access = self.open_text(key, grant, Field::AccessToken, &write.tokens.access_sealed).await?;
        let refresh = match &write.tokens.refresh {
            Some(refresh) => Some(self.open_text(key, grant, Field::RefreshToken, &refresh.sealed).await?),
            None => None,
        };
        Ok((access, refresh))
    }

    /// The newest pair of a grant that descends from this one and that only the permit store or the journal knows.
    pub(super) async fn newest_known(
        &self,
        id: CredentialId,
        key: &CredentialKey,
        grant: GrantId,
        pair: Pair,
    ) -> Pair {
        let mut newest = pair;
        let mut epoch = 0;
        for _ in 0..LONGEST_CHAIN {
            let Some(refresh) = &newest.1 else { break };
            let Ok(fingerprint) = self.fingerprint(key, refresh).await else { break };
            let Some(write) = self.known_successor(&key.tenant, id, grant, fingerprint, epoch).await else {
                break;
            };
            epoch = write.epoch;
            match self.open_write(key, &write).await {
                Ok(pair) => newest = pair,
                Err(_) => break,
            }
        }
        newest
    }

    /// The permit store's answer about a row's token, if the vault bears it out. Whoever can write the permit store can put a
    /// tombstone or a successor there, but not these: then the entry is damage like any other, and nobody's grant is revoked or
    /// set back for it.
    pub(super) async fn believed(
        &self,
        row: &Credential,
        token: Fingerprint,
        answer: Result<Permit, CoordinationError>,
    ) -> Result<Result<Permit, CoordinationError>, FlightEnd> {
        let tenant = &row.key.tenant;
        match &answer {
            Ok(Permit::Buried(found)) => {
                let ours = self.ports.cipher.tombstone(tenant, row.id, row.grant_id).await;
                if !found.is(&ours.map_err(vault_failed)?) {
                    tracing::error!(
                        credential = %row.id,
                        "a tombstone in the permit store is not of a broker's making: it is passed over"
                    );
                    return Ok(Err(CoordinationError::Corrupt("a tombstone")));
                }
            }
            Ok(Permit::Successor(found)) => {
                if !self.is_ours(tenant, row.id, token, found).await.map_err(vault_failed)? {
                    return Ok(Err(CoordinationError::Corrupt("a successor")));
                }
            }
            Ok(Permit::Taken | Permit::Held { .. }) | Err(_) => {}
        }
        Ok(answer)
    }

    /// Whether a broker put this successor of this token there.
    async fn is_ours(
        &self,
        tenant: &TenantId,
        id: CredentialId,
        token: Fingerprint,
        found: &Successor,
    ) -> Result<bool, CipherError> {
        let mac = self.ports.cipher.successor_mac(tenant, &found.write).await?;
        let ours = found.is(id, token, &mac);
        if !ours {
            tracing::error!(
                credential = %id,
                "a token pair in the permit store is not of a broker's making: it is passed over"
            );
        }
        Ok(ours)
    }

    /// A tombstone stands for a grant that the row still has: the revocation's commit was lost, or its process died before
    /// it. It is done again.
    pub(super) async fn revoke_again(self: &Arc<Self>, row: &Credential) -> Result<(), FlightEnd> {
        tracing::warn!(credential = %row.id, "a revocation is done again: its tombstone stands, the row does not say so");
        let standing = self.provider_of(row).await.map_err(vault_failed)?;
        let told =
            standing.and_then(ProviderStanding::known).filter(|provider| provider.supports_revocation());
        let outbox = told.map(|_| self.new_outbox_pair());
        let revoke = RevokeWrite {
            key: row.key.clone(),
            grant: Some(row.grant_id),
            outbox,
            now: self.ports.clock.now(),
        };
        self.ports.credentials.revoke_with_outbox(revoke).await.map_err(storage_failed)?;
        self.ports.steps.reached(Step::Revoked, row.id);
        self.tell_waiters(&row.key.tenant, row.id).await;
        Ok(())
    }
}
