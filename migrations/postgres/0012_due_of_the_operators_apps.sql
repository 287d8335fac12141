-- no-transaction
-- What is due at the operator's apps, without tenants' own.
CREATE INDEX CONCURRENTLY IF NOT EXISTS credentials_due_operators ON credentials (provider, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL AND configuration IS NULL;
