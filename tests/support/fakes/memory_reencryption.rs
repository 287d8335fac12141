//! The `ReencryptionStore` port of the database in memory.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use token_broker::domain::cipher::Field;
use token_broker::domain::credential::{CredentialState, Sealed, StoredTokens};
use token_broker::domain::data_key::{
    PassStep, Reencryption, ReencryptionStore, RenewedRow, RowId, RowsPerKey, SealedRow, SealedTable,
};
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::StoreError;
use token_broker::domain::provider_config::{CONFIG_FIELDS, ProviderConfig};
use token_broker::domain::user_key::{StoredUserKey, user_key_binding};

use super::memory_store::{FlowRow, MemoryStore, RevocationRow, Row, Tables};

fn tokens(row: &mut Row) -> Option<&mut StoredTokens> {
    match &mut row.credential.state {
        CredentialState::Active { tokens, .. }
        | CredentialState::Refreshing { tokens, .. }
        | CredentialState::NeedsReauth { tokens, .. } => Some(tokens),
        CredentialState::Revoked => None,
    }
}

fn of_credential(row: &mut Row) -> Option<SealedRow> {
    let (id, key, grant_id) = (row.credential.id, row.credential.key.clone(), row.credential.grant_id);
    let tokens = tokens(row)?;
    let mut fields = vec![(Field::AccessToken, tokens.access_sealed.clone())];
    fields.extend(tokens.refresh.as_ref().map(|refresh| (Field::RefreshToken, refresh.sealed.clone())));
    fields.push((Field::Profile, tokens.profile_sealed.clone()));
    Some(SealedRow { id: *id.as_bytes(), key, grant_id, fields })
}

fn of_flow(FlowRow { flow, .. }: &FlowRow) -> SealedRow {
    let fields = vec![(Field::FlowSecrets, flow.secrets_sealed.clone())];
    SealedRow { id: *flow.id.as_bytes(), key: flow.key.clone(), grant_id: flow.grant_id, fields }
}

fn of_revocation(RevocationRow { pending, finished }: &RevocationRow) -> Option<SealedRow> {
    let mut fields = vec![(Field::AccessToken, pending.access_sealed.clone())];
    fields.extend(pending.refresh_sealed.iter().map(|sealed| (Field::RefreshToken, sealed.clone())));
    let (key, grant_id) = (pending.key.clone(), pending.grant_id);
    finished.is_none().then(|| SealedRow { id: *pending.id.as_bytes(), key, grant_id, fields })
}

fn of_config(config: &ProviderConfig) -> Option<SealedRow> {
    let (key, grant_id) = config.binding().unwrap();
    let of = &config.authentication;
    let secrets = CONFIG_FIELDS.into_iter().zip([&of.client_secret, &of.private_key, &of.tls_key]);
    let fields: Vec<_> =
        secrets.filter_map(|(field, sealed)| Some((field, sealed.as_ref()?.clone()))).collect();
    (!fields.is_empty()).then(|| SealedRow { id: *config.id.as_bytes(), key, grant_id, fields })
}

fn replace(tables: &mut Tables, table: SealedTable, RenewedRow { was, is }: &RenewedRow) -> bool {
    let field = |field| is.field(field).cloned();
    let sealed = |wanted| field(wanted).unwrap_or(Sealed(Vec::new()));
    match table {
        SealedTable::Credentials => {
            let same = |row: &&mut Row| of_credential(&mut (**row).clone()).as_ref() == Some(was);
            let Some(row) = tables.rows.values_mut().find(same) else { return false };
            let Some(tokens) = tokens(row) else { return false };
            tokens.access_sealed = sealed(Field::AccessToken);
            tokens.profile_sealed = sealed(Field::Profile);
            if let Some(refresh) = &mut tokens.refresh {
                refresh.sealed = sealed(Field::RefreshToken);
            }
        }
        SealedTable::Flows => {
            let Some(row) = tables.flows.iter_mut().find(|row| of_flow(row) == *was) else { return false };
            row.flow.secrets_sealed = sealed(Field::FlowSecrets);
        }
        SealedTable::Revocations => {
            let same = |row: &&mut RevocationRow| of_revocation(row).as_ref() == Some(was);
            let Some(row) = tables.revocations.iter_mut().find(same) else { return false };
            row.pending.access_sealed = sealed(Field::AccessToken);
            row.pending.refresh_sealed = field(Field::RefreshToken);
        }
        SealedTable::ProviderConfigs => {
            let same = |config: &&mut ProviderConfig| of_config(config).as_ref() == Some(was);
            let Some(config) = tables.configs.iter_mut().find(same) else { return false };
            config.authentication.client_secret = field(Field::ClientSecret);
            config.authentication.private_key = field(Field::ClientPrivateKey);
            config.authentication.tls_key = field(Field::ClientTlsKey);
        }
        SealedTable::UserKeys => {
            let same = |row: &&mut StoredUserKey| of_user_key(row) == *was;
            let Some(row) = tables.user_keys.iter_mut().find(same) else { return false };
            row.sealed = sealed(Field::UserKey);
        }
    }
    true
}

fn of_user_key(StoredUserKey { id, tenant, user, sealed, .. }: &StoredUserKey) -> SealedRow {
    let (key, grant_id) = user_key_binding(tenant, user, *id).unwrap();
    SealedRow { id: *id, key, grant_id, fields: vec![(Field::UserKey, sealed.clone())] }
}

#[async_trait]
impl ReencryptionStore for MemoryStore {
    async fn sealed_rows(
        &self,
        table: SealedTable,
        after: Option<RowId>,
        limit: u32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let mut rows: Vec<SealedRow> = self.read(|tables| match table {
            SealedTable::Credentials => {
                tables.rows.values().filter_map(|row| of_credential(&mut row.clone())).collect()
            }
            SealedTable::Flows => tables.flows.iter().map(of_flow).collect(),
            SealedTable::Revocations => tables.revocations.iter().filter_map(of_revocation).collect(),
            SealedTable::ProviderConfigs => tables.configs.iter().filter_map(of_config).collect(),
            SealedTable::UserKeys => tables.user_keys.iter().map(of_user_key).collect(),
        });
        rows.retain(|row| after.is_none_or(|after| row.id > after));
        rows.sort_by_key(|row| row.id);
        rows.truncate(limit as usize);
        Ok(rows)
    }

    async fn replace_sealed(
        &self,
        table: SealedTable,
        rows: &[RenewedRow],
    ) -> Result<Vec<RowId>, StoreError> {
        Ok(self.write(|tables| {
            let replaced = rows.iter().filter(|row| replace(tables, table, row));
            replaced.map(|row| row.was.id).collect()
        }))
    }

    async fn expected_rows(&self) -> Result<u64, StoreError> {
        let rows = self.read(|tables| {
            tables.rows.len()
                + tables.flows.len()
                + tables.revocations.len()
                + tables.configs.len()
                + tables.user_keys.len()
        });
        Ok(u64::try_from(rows).unwrap())
    }

    async fn reencryption(&self) -> Result<Reencryption, StoreError> {
        Ok(self.read(|tables| tables.reencryption.state))
    }

    async fn request_reencryption(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(|tables| {
            let requested = &mut tables.reencryption.state.requested_at;
            *requested = Some(requested.map_or(now, |before| before.max(now)));
        });
        Ok(())
    }

    async fn take_reencryption(
        &self,
        worker: ClaimOwner,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Reencryption>, StoreError> {
        Ok(self.write(|tables| {
            let work = &mut tables.reencryption;
            let free = work.worker.is_none_or(|other| other == worker)
                || work.state.lease_until.is_some_and(|until| until <= now);
            if work.state.requested_at.is_none() || !free {
                return None;
            }
            work.worker = Some(worker);
            work.state.lease_until = Some(now + SignedDuration::try_from(lease).unwrap());
            Some(work.state)
        }))
    }

    async fn save_reencryption(
        &self,
        worker: ClaimOwner,
        step: &PassStep,
        now: Timestamp,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        Ok(self.write(|tables| {
            let work = &mut tables.reencryption;
            if work.worker != Some(worker) {
                return false;
            }
            let requested_at =
                work.state.requested_at.filter(|asked| step.done_until.is_none_or(|done| *asked > done));
            let lease_until = (!lease.is_zero()).then(|| now + SignedDuration::try_from(lease).unwrap());
            work.worker = lease_until.map(|_| worker);
            work.state = Reencryption { requested_at, lease_until, ..step.state };
            let counted = work.rows.entry(step.state.pass).or_default();
            for (key, rows) in &step.rows {
                *counted.entry(*key).or_default() += rows;
            }
            true
        }))
    }

    async fn rows_per_key(&self, pass: i64) -> Result<RowsPerKey, StoreError> {
        Ok(self.read(|tables| tables.reencryption.rows.get(&pass).cloned().unwrap_or_default()))
    }

    async fn forget_passes(&self, before: i64) -> Result<(), StoreError> {
        self.write(|tables| tables.reencryption.rows.retain(|pass, _| *pass >= before));
        Ok(())
    }
}
