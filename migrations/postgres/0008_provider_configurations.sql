-- Provider configurations of tenants: their own OAuth apps. Sealed columns are ciphertexts of the vault under the tenant's data
-- key, bound to tenant, provider and configuration.
SET LOCAL lock_timeout = '5s';

CREATE TABLE provider_configurations (
    tenant               text   NOT NULL COLLATE "C",
    provider             text   NOT NULL COLLATE "C",
    id                   bytea  NOT NULL UNIQUE CHECK (octet_length(id) = 16),
    -- Definition, client and variables never change: what was obtained with the app goes nowhere else.
    definition           text   NOT NULL,
    client_id            text   NOT NULL,
    -- A JSON object of texts.
    variables            text   NOT NULL CHECK (jsonb_typeof(variables::jsonb) = 'object'),
    -- A JSON object: how the client authenticates, without its secrets.
    authentication       text   NOT NULL CHECK (jsonb_typeof(authentication::jsonb) = 'object'),
    client_secret_sealed bytea,
    private_key_sealed   bytea,
    tls_key_sealed       bytea,
    disabled_at          bigint,
    revision             bigint NOT NULL CHECK (revision > 0),
    created_at           bigint NOT NULL,
    updated_at           bigint NOT NULL,
    PRIMARY KEY (tenant, provider)
);

-- The configuration that something was begun or obtained with; NULL: the operator's. The one may be gone while the other stays.
-- Not checked for its length in the large tables: a check that is added looks at every row while nobody may write.
ALTER TABLE credentials ADD COLUMN configuration bytea;
ALTER TABLE flows ADD COLUMN configuration bytea;
ALTER TABLE revocations ADD COLUMN configuration bytea;

-- A pass that moves rows to the active data keys looks at configurations, too.
ALTER TABLE reencryption
    DROP CONSTRAINT reencryption_place_check,
    ADD CONSTRAINT reencryption_place_check
        CHECK (place IN ('credentials', 'flows', 'revocations', 'provider_configurations'));
ALTER TABLE data_key_rows
    DROP CONSTRAINT data_key_rows_place_check,
    ADD CONSTRAINT data_key_rows_place_check
        CHECK (place IN ('credentials', 'flows', 'revocations', 'provider_configurations'));
