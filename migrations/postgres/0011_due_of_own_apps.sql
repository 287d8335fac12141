-- no-transaction
-- What is due at one tenant's own app, without what is due at others' or at the operator's.
CREATE INDEX CONCURRENTLY IF NOT EXISTS credentials_due_own ON credentials (configuration, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL AND configuration IS NOT NULL;
