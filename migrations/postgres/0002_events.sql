-- What has changed for users, written in the transaction of the change.
--
-- Transactions do not commit in the order in which they take numbers of a sequence: a reader that has seen number 8 may
-- still have number 7 to come. So each event has the id of its transaction, and readers look only at transactions that are
-- older than every one that is still open (src/infra/storage/postgres/events.rs). Order and place: (xact, sequence).
CREATE TABLE events (
    xact         bigint  NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    sequence     bigint  GENERATED ALWAYS AS IDENTITY,
    tenant       text    NOT NULL COLLATE "C",
    provider     text    NOT NULL COLLATE "C",
    user_id      text    NOT NULL COLLATE "C",
    grant_name   text    NOT NULL COLLATE "C",
    account      text    NOT NULL COLLATE "C",
    subject      text    NOT NULL COLLATE "C" CHECK (subject IN ('credential', 'flow')),
    old_status   text    NOT NULL,
    new_status   text    NOT NULL,
    -- Why a credential needs a new consent, or how a flow failed.
    reason       text,
    generation   bigint,
    flow_id      bytea   CHECK (octet_length(flow_id) = 16),
    client_state text,
    created_at   bigint  NOT NULL,
    PRIMARY KEY (xact, sequence),
    CHECK ((subject = 'credential') = (generation IS NOT NULL)),
    CHECK (subject = 'credential' OR flow_id IS NOT NULL),
    CHECK (flow_id IS NOT NULL OR client_state IS NULL)
);

CREATE INDEX events_of_tenant ON events (tenant, xact, sequence);
CREATE INDEX events_of_user ON events (tenant, user_id, xact, sequence);
CREATE INDEX events_by_age ON events (created_at);
