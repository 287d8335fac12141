-- What is due at one app, without what is due at others: the operator's of a provider, and each that is a tenant's own.
CREATE INDEX credentials_due_own ON credentials (configuration, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL AND configuration IS NOT NULL;
CREATE INDEX credentials_due_operators ON credentials (provider, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL AND configuration IS NULL;
DROP INDEX credentials_due;
