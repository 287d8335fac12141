//! The beginning and the end of a grant: each is one transaction over the row, its flows and the outbox.
//!
//! Both take the lock of the key first, so that of one key they run one after the other on whatever replica, also while
//! there is no row yet that could be locked. Refreshes do not take it: they and these meet in the row.

use sqlx::FromRow as _;

use super::credentials::with_key;
use super::error::store_error;
use super::events::record;
use super::session::{Session, lock_of};
use super::{PgStore, now_or};
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

/// Locked until the end, so that a deletion of the user waits, and then sees the credential.
const USER_KEY: &str = "SELECT 1 FROM user_keys WHERE id = $1 FOR KEY SHARE";

const COMPLETE_FLOW: &str = "
    UPDATE flows SET status = 'completed', ended_at = $2
    WHERE id = $1 AND status = 'exchanging'
    RETURNING client_state";

/// With the row's lock, so that how it stood is how it stood just before.
const STANDING: &str = "
    SELECT status, generation, grant_id FROM credentials
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
    FOR UPDATE";

const CONNECTED: &str = "
    SELECT EXISTS (
        SELECT 1 FROM credentials
        WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
            AND status IN ('active', 'refreshing')
            AND NOT (rt_sealed IS NULL AND access_expires_at IS NOT NULL AND access_expires_at <= $6)
    )";

const STORE: &str = concat!(
    "INSERT INTO credentials (
        tenant, provider, user_id, grant_name, account, id, created_at, updated_at, grant_id, generation, epoch, status,
        access_sealed, access_obtained_at, access_expires_at, token_type, profile_sealed, scopes, scopes_assumed,
        rt_sealed, rt_fingerprint, next_refresh_at, rt_parent_fingerprint, rt_epoch, used_at, configuration
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, 1, 1, 'active', $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $7,
        $21)
    ON CONFLICT (tenant, provider, user_id, grant_name, account) DO UPDATE SET
        updated_at = excluded.updated_at, grant_id = excluded.grant_id,
        generation = credentials.generation + 1, epoch = credentials.epoch + 1, status = excluded.status,
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

/// Takes the row's lock with the row as it is when the lock is had: a refresh that is stored just now is moved, or is
/// refused by the row being revoked. Nothing is in between.
const MOVE_TO_OUTBOX: &str = "
    INSERT INTO revocations (
        id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed, refresh_sealed, attempts, created_at, next_attempt_at, configuration
    )
    SELECT $6, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, rt_sealed, 0, $7, $7,
        configuration
    FROM credentials
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
        AND status <> 'revoked' AND ($8::bytea IS NULL OR grant_id = $8)
    FOR UPDATE";

const MOVE_AGAIN: &str = "
    INSERT INTO revocations (
        id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed, refresh_sealed, attempts, created_at, next_attempt_at, configuration
    )
    SELECT $6, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, rt_sealed, 0, $7, settle_at,
        configuration
    FROM credentials
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
        AND status = 'refreshing' AND ($8::bytea IS NULL OR grant_id = $8)";

const REVOKE: &str = concat!(
    "UPDATE credentials SET
        status = 'revoked', epoch = epoch + 1,
        access_sealed = NULL, access_obtained_at = NULL, access_expires_at = NULL, token_type = NULL,
        profile_sealed = NULL, scopes = NULL, scopes_assumed = NULL,
        rt_sealed = NULL, rt_fingerprint = NULL, rt_parent_fingerprint = NULL, rt_epoch = NULL,
        claim_owner = NULL, claim_deadline = NULL, settle_at = NULL,
        failures = 0, not_before = NULL, last_error = NULL, reauth_reason = NULL,
        next_refresh_at = NULL, updated_at = ",
    now_or!("$6"),
    " WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
        AND status <> 'revoked' AND ($7::bytea IS NULL OR grant_id = $7)"
);

/// A flow that waits past its end has expired; marking it so keeps it from coming back should the clock be set back.
const CANCEL_FLOWS: &str = "
    UPDATE flows SET
        status = CASE WHEN status <> 'exchanging' AND expires_at <= $6 THEN 'expired' ELSE 'cancelled' END,
        ended_at = CASE WHEN status <> 'exchanging' AND expires_at <= $6 THEN expires_at ELSE $6 END,
        code_sealed = NULL
    WHERE tenant = $1 AND provider = $2 AND user_id = $3 AND grant_name = $4 AND account = $5
        AND status IN ('pending', 'returned', 'exchanging')
    RETURNING id, client_state, status, exchange_began_at IS NOT NULL, completion_hash IS NOT NULL";

/// The lock of a key. Whoever writes an event of it has the lock: see `events.rs`.
pub(super) fn lock_of_key(key: &CredentialKey) -> i64 {
    let CredentialKey { tenant, provider, user, grant, account } = key;
    let parts = [tenant.as_str(), provider.as_str(), user.as_str(), grant.as_str(), account.as_str()];
    lock_of("credential", &parts)
}

impl PgStore {
    pub(super) async fn store_new_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        let mut transaction = self.begin(lock_of_key(&grant.key)).await?;
        if let Some(id) = grant.user_key {
            let there = transaction.one::<(i32,)>(sqlx::query(USER_KEY).bind(id.to_vec())).await?;
            if there.is_none() {
                transaction.roll_back().await?;
                return Ok(StoredGrant::KeyDeleted);
            }
        }
        let before = standing(&mut transaction, &grant.key).await?;
        let Some(flow) = holds(&mut transaction, &grant, before.as_ref()).await? else {
            transaction.roll_back().await?;
            return Ok(StoredGrant::ConditionFailed);
        };
        let was = before.map_or(Standing::NotConnected, |before| before.standing);
        let tokens = &grant.tokens;
        let refresh = tokens.refresh.as_ref();
        let identity = with_key(STORE, &grant.key)
            .bind(&grant.id_if_new.as_bytes()[..])
            .bind(micros(grant.now))
            .bind(&grant.grant_id.as_bytes()[..]);
        let query = bind_tokens!(identity, tokens)
            .bind(refresh.and_then(|refresh| refresh.parent_fingerprint.as_ref()).map(|parent| &parent.0[..]))
            .bind(refresh.map(|refresh| refresh.epoch))
            .bind(grant.configuration.map(|id| id.as_bytes().to_vec()));
        let row = transaction.one::<CredentialRow>(query).await?;
        let row: Credential = row.ok_or(StoreError::Corrupt("no answer"))?.try_into()?;
        let (key, at) = (grant.key, grant.now);
        let change = Change::Connected { was, generation: row.generation, flow: flow.clone() };
        record(&mut transaction, &NewEvent { key: key.clone(), change, at }).await?;
        if let Some(flow) = flow {
            let change = Change::FlowEnded { flow, was: FlowStatus::Exchanging, is: FlowStatus::Completed };
            record(&mut transaction, &NewEvent { key, change, at }).await?;
        }
        transaction.commit().await?;
        Ok(StoredGrant::Stored(Box::new(row)))
    }

    pub(super) async fn revoke(&self, revoke: &RevokeWrite) -> Result<RevokedRow, StoreError> {
        let RevokeWrite { key, grant, outbox, now } = revoke;
        let (now, grant) = (*now, grant.as_ref().map(|grant| &grant.as_bytes()[..]));
        let mut transaction = self.begin(lock_of_key(key)).await?;
        let before = standing(&mut transaction, key).await?;
        let moves = outbox.map(|ids| [(MOVE_TO_OUTBOX, ids.first), (MOVE_AGAIN, ids.after_refresh)]);
        for (sql, id) in moves.into_iter().flatten() {
            let query = with_key(sql, key).bind(&id.as_bytes()[..]).bind(micros(now)).bind(grant);
            transaction.execute(query).await?;
        }
        let revoked = transaction.execute(with_key(REVOKE, key).bind(self.now(now)).bind(grant)).await?;
        let mut told = Vec::new();
        if let Some(before) = before.filter(|_| revoked > 0) {
            told.push(Change::Revoked { was: before.standing, generation: before.generation });
        }
        let flows = transaction.rows(with_key(CANCEL_FLOWS, key).bind(micros(now))).await;
        let mut cancelled = 0_u32;
        for row in &flows.map_err(store_error)? {
            let (id, client_state, status, exchanging, returned) =
                <(Vec<u8>, Option<String>, String, bool, bool)>::from_row(row).map_err(store_error)?;
            let flow = FlowCause { id: FlowId::from_bytes(array(&id)?), client_state };
            let was = was_under_way(exchanging, returned);
            let is = flow_status(&status, None)?;
            cancelled += u32::from(is == FlowStatus::Cancelled);
            told.push(Change::FlowEnded { flow, was, is });
        }
        for change in told {
            record(&mut transaction, &NewEvent { key: key.clone(), change, at: now }).await?;
        }
        transaction.commit().await?;
        Ok(RevokedRow { deleted: revoked > 0, cancelled_flows: cancelled })
    }
}

/// How the row of a key stands. `None`: there is none.
async fn standing(transaction: &mut Session<'_>, key: &CredentialKey) -> Result<Option<Before>, StoreError> {
    let found = transaction.one::<BeforeRow>(with_key(STANDING, key)).await?;
    found.map(TryInto::try_into).transpose()
}

/// `None`: the condition does not hold; else the flow that was ended by it, if it has one.
async fn holds(
    transaction: &mut Session<'_>,
    grant: &NewGrant,
    before: Option<&Before>,
) -> Result<Option<Option<FlowCause>>, StoreError> {
    match grant.condition {
        GrantCondition::Flow { over, .. } if before.and_then(Before::grant) != over => Ok(None),
        GrantCondition::Flow { id, .. } => {
            let query = sqlx::query(COMPLETE_FLOW).bind(&id.as_bytes()[..]).bind(micros(grant.now));
            let done = transaction.one::<(Option<String>,)>(query).await?;
            Ok(done.map(|(client_state,)| Some(FlowCause { id, client_state })))
        }
        GrantCondition::NotConnected => {
            let query = with_key(CONNECTED, &grant.key).bind(micros(grant.now));
            let found = transaction.one::<(bool,)>(query).await?;
            Ok((!found.is_some_and(|(connected,)| connected)).then_some(None))
        }
        GrantCondition::Overwrite => Ok(Some(None)),
    }
}
