-- When the background refreshes a credential ahead of its token's expiry (NULL: it does not), and when somebody last asked
-- for it, to within an hour.
ALTER TABLE credentials ADD COLUMN next_refresh_at INTEGER;
ALTER TABLE credentials ADD COLUMN used_at INTEGER;

-- The due scan reads the few rows that are due at one provider, however many there are.
CREATE INDEX credentials_due ON credentials (provider, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL;
