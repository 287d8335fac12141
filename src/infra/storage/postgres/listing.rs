//! Pages of a tenant's credentials.

use std::collections::BTreeSet;

use super::PgStore;
use super::session::Again;
use crate::domain::access_policy::Prefix;
use crate::domain::credential::Credential;
use crate::domain::key::{CredentialKey, ProviderId, UserId};
use crate::domain::ports::{ListQuery, StoreError};
use crate::infra::storage::codec::json_scopes;
use crate::infra::storage::credential_row::{CredentialRow, credential_columns};

/// All users': walks the primary key from `after` on.
const OF_ALL: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials
    WHERE tenant = $1 AND (provider, user_id, grant_name, account) > ($2, $3, $4, $5) AND status <> 'revoked'
        AND ($6::text[] IS NULL OR provider = ANY($6)) AND scopes::jsonb @> $7::jsonb
        AND ($9::text[] IS NULL OR user_id = ANY($9)
            OR EXISTS (SELECT 1 FROM unnest($10::text[]) AS prefix WHERE starts_with(user_id, prefix)))
    ORDER BY provider, user_id, grant_name, account
    LIMIT $8"
);

/// One user's: the same, over the index of users, so that it does not depend on how many others there are.
const OF_USER: &str = concat!(
    "SELECT ",
    credential_columns!(),
    " FROM credentials
    WHERE tenant = $1 AND provider >= $2 AND (provider, user_id, grant_name, account) > ($2, $3, $4, $5)
        AND status <> 'revoked'
        AND ($6::text[] IS NULL OR provider = ANY($6)) AND scopes::jsonb @> $7::jsonb
        AND user_id = $9
    ORDER BY provider, user_id, grant_name, account
    LIMIT $8"
);

fn texts<T>(set: &BTreeSet<T>, text: fn(&T) -> &str) -> Vec<String> {
    set.iter().map(|item| text(item).to_owned()).collect()
}

impl PgStore {
    pub(super) async fn page(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        let sql = if query.user.is_some() { OF_USER } else { OF_ALL };
        // No part of a key is empty, so that four empty texts come before every key.
        let part = |text: fn(&CredentialKey) -> &str| query.after.as_ref().map_or("", text);
        let statement = || {
            let providers = query.providers.as_ref();
            let statement = sqlx::query(sql)
                .bind(query.tenant.as_str())
                .bind(part(|key| key.provider.as_str()))
                .bind(part(|key| key.user.as_str()))
                .bind(part(|key| key.grant.as_str()))
                .bind(part(|key| key.account.as_str()))
                .bind(providers.map(|ids| ids.iter().map(ProviderId::as_str).collect::<Vec<_>>()))
                .bind(json_scopes(&query.covering))
                .bind(i64::from(query.limit));
            match &query.user {
                Some(user) => statement.bind(user.as_str()),
                None => statement
                    .bind(query.among.as_ref().map(|users| texts(&users.exact, UserId::as_str)))
                    .bind(query.among.as_ref().map(|users| texts(&users.prefixes, Prefix::as_str))),
            }
        };
        let rows: Vec<CredentialRow> = self.all(Again::Once, statement).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }
}
