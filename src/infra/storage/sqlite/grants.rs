//! The beginning and the end of a grant: each is one transaction over the row, its flows and the outbox.

use sqlx::{FromRow as _, Sqlite, Transaction};

use super::SqliteStore;
use super::credentials::with_key;
use super::error::store_error;
use super::events::record;
use crate::domain::credential::Credential;
use crate::domain::event::{Change, FlowCause, NewEvent, Standing};
use crate::domain::flow::FlowStatus;
use crate::domain::key::{CredentialKey, FlowId};
use crate::domain::ports::{GrantCondition, NewGrant, RevokeWrite, RevokedRow, StoreError, StoredGrant};
use crate::infra::storage::codec::{array, flow_status, micros};
use crate::infra::storage::credential_row::{
    Before, BeforeRow, CredentialRow, bind_tokens, credential_columns,
};
use crate::infra::storage::flow_row::was_under_way;
use crate::infra::storage::user_sql;

const COMPLETE_FLOW: &str = "
    UPDATE flows SET status = 'completed', ended_at = ?2
    WHERE id = ?1 AND status = 'exchanging'
    RETURNING client_state";

const STANDING: &str = "
    SELECT status, generation, grant_id FROM credentials
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5";

const CONNECTED: &str = "
    SELECT EXISTS (
        SELECT 1 FROM credentials
        WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
            AND status IN ('active', 'refreshing')
            AND NOT (rt_sealed IS NULL AND access_expires_at IS NOT NULL AND access_expires_at <= ?6)
    )";

const STORE: &str = concat!(
    "INSERT INTO credentials (
        tenant, provider, user_id, grant_name, account, id, created_at, updated_at, grant_id, generation, epoch, status,
        access_sealed, access_obtained_at, access_expires_at, token_type, profile_sealed, scopes, scopes_assumed,
        rt_sealed, rt_fingerprint, next_refresh_at, rt_parent_fingerprint, rt_epoch, used_at, configuration
    )
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 1, 1, 'active', ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?7,
        ?21)
    ON CONFLICT (tenant, provider, user_id, grant_name, account) DO UPDATE SET
        updated_at = excluded.updated_at, grant_id = excluded.grant_id,
        generation = generation + 1, epoch = epoch + 1, status = excluded.status,
        access_sealed = excluded.access_sealed, access_obtained_at = excluded.access_obtained_at,
        access_expires_at = excluded.access_expires_at, token_type = excluded.token_type,
        profile_sealed = excluded.profile_sealed, scopes = excluded.scopes, scopes_assumed = excluded.scopes_assumed,
        rt_sealed = excluded.rt_sealed, rt_fingerprint = excluded.rt_fingerprint,
        rt_parent_fingerprint = excluded.rt_parent_fingerprint, rt_epoch = excluded.rt_epoch,
        next_refresh_at = excluded.next_refresh_at, used_at = excluded.used_at,
        configuration = excluded.configuration,
        claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, not_before = NULL, last_error = NULL, reauth_reason = NULL
    RETURNING ",
    credential_columns!()
);

const MOVE_TO_OUTBOX: &str = "
    INSERT INTO revocations (
        id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed, refresh_sealed, attempts, created_at, next_attempt_at, configuration
    )
    SELECT ?6, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, rt_sealed, 0, ?7, ?7,
        configuration
    FROM credentials
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
        AND status <> 'revoked' AND (?8 IS NULL OR grant_id = ?8)";

const MOVE_AGAIN: &str = "
    INSERT INTO revocations (
        id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed, refresh_sealed, attempts, created_at, next_attempt_at, configuration
    )
    SELECT ?6, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, rt_sealed, 0, ?7, settle_at,
        configuration
    FROM credentials
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
        AND status = 'refreshing' AND (?8 IS NULL OR grant_id = ?8)";

const REVOKE: &str = "
    UPDATE credentials SET
        status = 'revoked', epoch = epoch + 1,
        access_sealed = NULL, access_obtained_at = NULL, access_expires_at = NULL, token_type = NULL,
        profile_sealed = NULL, scopes = NULL, scopes_assumed = NULL,
        rt_sealed = NULL, rt_fingerprint = NULL, rt_parent_fingerprint = NULL, rt_epoch = NULL,
        claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, not_before = NULL, last_error = NULL, reauth_reason = NULL,
        next_refresh_at = NULL, updated_at = ?6
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
        AND status <> 'revoked' AND (?7 IS NULL OR grant_id = ?7)";

/// A flow that waits past its end has expired; marking it so keeps it from coming back should the clock be set back.
const CANCEL_FLOWS: &str = "
    UPDATE flows SET
        status = CASE WHEN status <> 'exchanging' AND expires_at <= ?6 THEN 'expired' ELSE 'cancelled' END,
        ended_at = CASE WHEN status <> 'exchanging' AND expires_at <= ?6 THEN expires_at ELSE ?6 END,
        code_sealed = NULL
    WHERE tenant = ?1 AND provider = ?2 AND user_id = ?3 AND grant_name = ?4 AND account = ?5
        AND status IN ('pending', 'returned', 'exchanging')
    RETURNING id, client_state, status, exchange_began_at IS NOT NULL, completion_hash IS NOT NULL";

/// What [`CANCEL_FLOWS`] tells: id, client state, status, whether it was being exchanged, whether it had returned.
type CancelledFlow = (Vec<u8>, Option<String>, String, bool, bool);

impl SqliteStore {
    pub(super) async fn store_new_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(id) = grant.user_key {
            let there = sqlx::query(user_sql::THERE).bind(id.to_vec());
            if there.fetch_optional(&mut *transaction).await.map_err(store_error)?.is_none() {
                return Ok(StoredGrant::KeyDeleted); // dropped, and so rolled back
            }
        }
        let before = standing(&mut transaction, &grant.key).await?;
        let Some(flow) = holds(&mut transaction, &grant, before.as_ref()).await? else {
            return Ok(StoredGrant::ConditionFailed); // dropped, and so rolled back
        };
        let was = before.map_or(Standing::NotConnected, |before| before.standing);
        let tokens = &grant.tokens;
        let refresh = tokens.refresh.as_ref();
        let identity = with_key(STORE, &grant.key)
            .bind(&grant.id_if_new.as_bytes()[..])
            .bind(micros(grant.now))
            .bind(&grant.grant_id.as_bytes()[..]);
        let row = bind_tokens!(identity, tokens)
            .bind(refresh.and_then(|refresh| refresh.parent_fingerprint.as_ref()).map(|parent| &parent.0[..]))
            .bind(refresh.map(|refresh| refresh.epoch))
            .bind(grant.configuration.map(|id| id.as_bytes().to_vec()))
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?;
        let row: Credential = CredentialRow::from_row(&row).map_err(store_error)?.try_into()?;
        let (key, at) = (grant.key, grant.now);
        let change = Change::Connected { was, generation: row.generation, flow: flow.clone() };
        record(&mut transaction, &NewEvent { key: key.clone(), change, at }).await?;
        if let Some(flow) = flow {
            let change = Change::FlowEnded { flow, was: FlowStatus::Exchanging, is: FlowStatus::Completed };
            record(&mut transaction, &NewEvent { key, change, at }).await?;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(StoredGrant::Stored(Box::new(row)))
    }

    pub(super) async fn revoke(&self, revoke: &RevokeWrite) -> Result<RevokedRow, StoreError> {
        let RevokeWrite { key, grant, outbox, now } = revoke;
        let (now, grant) = (*now, grant.as_ref().map(|grant| &grant.as_bytes()[..]));
        let mut transaction = self.begin().await?;
        let before = standing(&mut transaction, key).await?;
        let moves = outbox.map(|ids| [(MOVE_TO_OUTBOX, ids.first), (MOVE_AGAIN, ids.after_refresh)]);
        for (sql, id) in moves.into_iter().flatten() {
            with_key(sql, key)
                .bind(&id.as_bytes()[..])
                .bind(micros(now))
                .bind(grant)
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        let revoked = with_key(REVOKE, key)
            .bind(micros(now))
            .bind(grant)
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?
            .rows_affected();
        let mut told = Vec::new();
        if let Some(before) = before.filter(|_| revoked > 0) {
            told.push(Change::Revoked { was: before.standing, generation: before.generation });
        }
        let flows: Vec<CancelledFlow> = with_key(CANCEL_FLOWS, key)
            .bind(micros(now))
            .fetch_all(&mut *transaction)
            .await
            .map_err(store_error)?
            .iter()
            .map(<_>::from_row)
            .collect::<Result<_, _>>()
            .map_err(store_error)?;
        let mut cancelled = 0_u32;
        for (id, client_state, status, exchanging, returned) in flows {
            let flow = FlowCause { id: FlowId::from_bytes(array(&id)?), client_state };
            let was = was_under_way(exchanging, returned);
            let is = flow_status(&status, None)?;
            cancelled += u32::from(is == FlowStatus::Cancelled);
            told.push(Change::FlowEnded { flow, was, is });
        }
        for change in told {
            record(&mut transaction, &NewEvent { key: key.clone(), change, at: now }).await?;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(RevokedRow { deleted: revoked > 0, cancelled_flows: cancelled })
    }
}

/// How the row of a key stands. `None`: there is none.
async fn standing(
    transaction: &mut Transaction<'static, Sqlite>,
    key: &CredentialKey,
) -> Result<Option<Before>, StoreError> {
    let row = with_key(STANDING, key).fetch_optional(&mut **transaction).await.map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    BeforeRow::from_row(&row).map_err(store_error)?.try_into().map(Some)
}

/// `None`: the condition does not hold; else the flow that was ended by it, if it has one.
async fn holds(
    transaction: &mut Transaction<'static, Sqlite>,
    grant: &NewGrant,
    before: Option<&Before>,
) -> Result<Option<Option<FlowCause>>, StoreError> {
    match grant.condition {
        GrantCondition::Flow { over, .. } if before.and_then(Before::grant) != over => Ok(None),
        GrantCondition::Flow { id, .. } => {
            let done = sqlx::query(COMPLETE_FLOW)
                .bind(&id.as_bytes()[..])
                .bind(micros(grant.now))
                .fetch_optional(&mut **transaction)
                .await
                .map_err(store_error)?;
            let Some(row) = done else { return Ok(None) };
            let (client_state,) = <(Option<String>,)>::from_row(&row).map_err(store_error)?;
            Ok(Some(Some(FlowCause { id, client_state })))
        }
        GrantCondition::NotConnected => {
            let row = with_key(CONNECTED, &grant.key)
                .bind(micros(grant.now))
                .fetch_one(&mut **transaction)
                .await
                .map_err(store_error)?;
            let (connected,) = <(bool,)>::from_row(&row).map_err(store_error)?;
            Ok((!connected).then_some(None))
        }
        GrantCondition::Overwrite => Ok(Some(None)),
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[COMPLETE_FLOW, STANDING, CONNECTED, STORE, MOVE_TO_OUTBOX, MOVE_AGAIN, REVOKE, CANCEL_FLOWS];
