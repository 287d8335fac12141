-- A key for each user: what is sealed for a user takes it, beside a data key of the tenant. With its row goes all of the
-- user's that was sealed since, wherever a copy is.
--
-- The version before cannot open what is sealed with it: no replica of it may run any more (docs/POSTGRES.md).
SET LOCAL lock_timeout = '5s';
UPDATE broker_schema SET oldest_version = greatest(oldest_version, 10);

CREATE TABLE user_keys (
    tenant     text   NOT NULL COLLATE "C",
    user_id    text   NOT NULL COLLATE "C",
    -- In the header of every ciphertext made with it.
    id         bytea  NOT NULL UNIQUE CHECK (octet_length(id) = 16),
    -- The key, under a data key of the tenant.
    sealed     bytea  NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant, user_id)
);
ALTER TABLE user_keys ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- To delete what there is of a user. Credentials and events have such an index.
CREATE INDEX flows_of_user ON flows (tenant, user_id);
CREATE INDEX revocations_of_user ON revocations (tenant, user_id);

-- Which tables a pass walks through is the program's to say.
ALTER TABLE reencryption DROP CONSTRAINT IF EXISTS reencryption_place_check;
ALTER TABLE data_key_rows DROP CONSTRAINT IF EXISTS data_key_rows_place_check;

-- What was sealed before is sealed anew, with users' keys.
UPDATE reencryption SET requested_at = greatest(requested_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
WHERE EXISTS (SELECT 1 FROM data_keys WHERE purpose = 'encryption');
