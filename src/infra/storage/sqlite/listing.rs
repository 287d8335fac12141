//! Pages of a tenant's credentials.

use super::SqliteStore;
use crate::domain::access_policy::Prefix;
use crate::domain::credential::Credential;
use crate::domain::key::{CredentialKey, ProviderId, UserId};
use crate::domain::ports::{ListQuery, StoreError};
use crate::infra::storage::codec::{json_list, json_scopes};
use crate::infra::storage::credential_row::{CredentialRow, credential_columns};

/// All users': walks the primary key from `after` on.
const OF_ALL: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials
    WHERE tenant = ?1 AND (provider, user_id, grant_name, account) > (?2, ?3, ?4, ?5) AND status <> 'revoked'
        AND (?6 IS NULL OR provider IN (SELECT value FROM json_each(?6)))
        AND NOT EXISTS (
            SELECT 1 FROM json_each(?7) AS wanted
            WHERE wanted.value NOT IN (SELECT value FROM json_each(credentials.scopes))
        )
        AND (?9 IS NULL OR user_id IN (SELECT value FROM json_each(?9)) OR EXISTS (
            SELECT 1 FROM json_each(?10) AS prefix WHERE substr(user_id, 1, length(prefix.value)) = prefix.value
        ))
    ORDER BY provider, user_id, grant_name, account
    LIMIT ?8"
);

/// One user's: the same, over the index of users, so that it does not depend on how many others there are.
const OF_USER: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials INDEXED BY credentials_of_user
    WHERE tenant = ?1 AND (provider, user_id, grant_name, account) > (?2, ?3, ?4, ?5) AND status <> 'revoked'
        AND (?6 IS NULL OR provider IN (SELECT value FROM json_each(?6)))
        AND NOT EXISTS (
            SELECT 1 FROM json_each(?7) AS wanted
            WHERE wanted.value NOT IN (SELECT value FROM json_each(credentials.scopes))
        )
        AND user_id = ?9
    ORDER BY provider, user_id, grant_name, account
    LIMIT ?8"
);

impl SqliteStore {
    pub(super) async fn page(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        let sql = if query.user.is_some() { OF_USER } else { OF_ALL };
        // No part of a key is empty, so that four empty texts come before every key.
        let part = |text: fn(&CredentialKey) -> &str| query.after.as_ref().map_or("", text);
        let mut statement = sqlx::query(sql)
            .bind(query.tenant.as_str())
            .bind(part(|key| key.provider.as_str()))
            .bind(part(|key| key.user.as_str()))
            .bind(part(|key| key.grant.as_str()))
            .bind(part(|key| key.account.as_str()))
            .bind(query.providers.as_ref().map(|ids| json_list(ids.iter().map(ProviderId::as_str))))
            .bind(json_scopes(&query.covering))
            .bind(query.limit);
        if let Some(user) = &query.user {
            statement = statement.bind(user.as_str());
        } else {
            let among = query.among.as_ref();
            statement = statement
                .bind(among.map(|users| json_list(users.exact.iter().map(UserId::as_str))))
                .bind(among.map(|users| json_list(users.prefixes.iter().map(Prefix::as_str))));
        }
        self.read_all::<CredentialRow>(statement).await?.into_iter().map(TryInto::try_into).collect()
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[OF_ALL, OF_USER];
