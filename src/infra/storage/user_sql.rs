//! Statements about users' keys and the end of users' data that both databases understand.

/// The columns of [`UserKeyRow`](super::user_key_row::UserKeyRow).
macro_rules! user_key_columns {
    () => {
        "id, tenant, user_id, sealed, created_at"
    };
}
pub(super) use user_key_columns;

pub(super) const BY_ID: &str = concat!("SELECT ", user_key_columns!(), " FROM user_keys WHERE id = $1");

pub(super) const OF_USER: &str =
    concat!("SELECT ", user_key_columns!(), " FROM user_keys WHERE tenant = $1 AND user_id = $2");

/// One statement: of two that race, the later one waits for the earlier one and is told its key.
pub(super) const INSERT_OR_GET: &str = concat!(
    "INSERT INTO user_keys (id, tenant, user_id, sealed, created_at)
    SELECT $1, $2, $3, $4, $5
    WHERE NOT EXISTS (SELECT 1 FROM tenants WHERE id = $2 AND deleted_at IS NOT NULL)
    ON CONFLICT (tenant, user_id) DO UPDATE SET user_id = excluded.user_id
    RETURNING ",
    user_key_columns!()
);

pub(super) const THERE: &str = "SELECT 1 FROM user_keys WHERE id = $1";

pub(super) const DELETE_KEY: &str = "DELETE FROM user_keys WHERE tenant = $1 AND user_id = $2 RETURNING id";

pub(super) const WAITING: &str =
    "SELECT count(*) FROM revocations WHERE tenant = $1 AND user_id = $2 AND finished_at IS NULL";

pub(super) const LIVE: &str =
    "SELECT count(*) FROM credentials WHERE tenant = $1 AND user_id = $2 AND status <> 'revoked'";

pub(super) const DELETE_FLOWS: &str =
    "DELETE FROM flows WHERE id IN (SELECT id FROM flows WHERE tenant = $1 AND user_id = $2 LIMIT $3)";

/// What must go before the key does, each up to a limit.
pub(super) const DELETE_REST: [&str; 3] = [
    "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE tenant = $1 AND user_id = $2 LIMIT $3)
        AND tenant = $1 AND user_id = $2",
    "DELETE FROM revocations WHERE id IN (SELECT id FROM revocations WHERE tenant = $1 AND user_id = $2 LIMIT $3)",
    "DELETE FROM credentials
        WHERE id IN (SELECT id FROM credentials WHERE tenant = $1 AND user_id = $2 AND status = 'revoked' LIMIT $3)",
];
