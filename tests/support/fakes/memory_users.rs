//! Users' keys in the database in memory, and the end of users' data.

use async_trait::async_trait;
use token_broker::domain::credential::CredentialState;
use token_broker::domain::key::{CredentialKey, TenantId, UserId};
use token_broker::domain::ports::StoreError;
use token_broker::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion, UserKeyId, UserKeyStore};

use super::memory_store::{MemoryStore, Tables};

#[async_trait]
impl UserKeyStore for MemoryStore {
    async fn user_key(&self, id: UserKeyId) -> Result<Option<StoredUserKey>, StoreError> {
        Ok(self.read(|tables| tables.user_keys.iter().find(|key| key.id == id).cloned()))
    }

    async fn user_keys(&self, ids: &[UserKeyId]) -> Result<Vec<StoredUserKey>, StoreError> {
        Ok(self.read(|tables| tables.user_keys.iter().filter(|key| ids.contains(&key.id)).cloned().collect()))
    }

    async fn user_key_of(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        let of_user = |key: &&StoredUserKey| key.tenant == *tenant && key.user == *user;
        Ok(self.read(|tables| tables.user_keys.iter().find(of_user).cloned()))
    }

    async fn user_key_or_insert(
        &self,
        candidate: StoredUserKey,
    ) -> Result<Option<StoredUserKey>, StoreError> {
        Ok(self.write(|tables| {
            if tables.tenants.iter().any(|there| there.id == candidate.tenant && there.deleted_at.is_some()) {
                return None;
            }
            let same = |key: &&StoredUserKey| key.tenant == candidate.tenant && key.user == candidate.user;
            if let Some(found) = tables.user_keys.iter().find(same) {
                return Some(found.clone());
            }
            tables.user_keys.push(candidate.clone());
            Some(candidate)
        }))
    }
}

/// Deletes up to a limit. Answers whether that was all.
fn delete<T>(rows: &mut Vec<T>, limit: u32, is_of_user: impl Fn(&T) -> bool) -> bool {
    let mut left = limit;
    rows.retain(|row| {
        let goes = left > 0 && is_of_user(row);
        left -= u32::from(goes);
        !goes
    });
    left > 0
}

pub(super) fn delete_user(tables: &mut Tables, deletion: &UserDeletion) -> UserDeleted {
    let UserDeletion { tenant, user, abandon_revocations, limit } = deletion;
    let is_of_user = |key: &CredentialKey| key.tenant == *tenant && key.user == *user;
    let rows = tables.rows.values().map(|row| &row.credential);
    if rows.filter(|row| is_of_user(&row.key)).any(|row| row.state != CredentialState::Revoked) {
        return UserDeleted::Partly;
    }
    let open = tables.revocations.iter().filter(|row| row.finished.is_none() && is_of_user(&row.pending.key));
    let waiting = open.count();
    if waiting > 0 && !abandon_revocations {
        return UserDeleted::Waiting(u64::try_from(waiting).unwrap());
    }
    let mut all = delete(&mut tables.flows, *limit, |row| is_of_user(&row.flow.key));
    all &= delete(&mut tables.events, *limit, |event| is_of_user(&event.told.key));
    all &= delete(&mut tables.revocations, *limit, |row| is_of_user(&row.pending.key));
    let mut ids: Vec<_> = tables.rows.iter().map(|(id, row)| (*id, row.credential.key.clone())).collect();
    all &= delete(&mut ids, *limit, |(_, key)| is_of_user(key));
    tables.rows.retain(|id, _| ids.iter().any(|(kept, _)| kept == id));
    if !all {
        return UserDeleted::Partly;
    }
    let key = tables.user_keys.iter().position(|key| key.tenant == *tenant && key.user == *user);
    UserDeleted::Gone(key.map(|index| tables.user_keys.remove(index).id))
}
