-- What has changed for users, written in the transaction of the change. One writer at a time: events get their numbers in
-- the order of their commits. AUTOINCREMENT: a number is never used again, so a reader's place stays good after old events
-- are deleted.
CREATE TABLE events (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT    NOT NULL,
    provider     TEXT    NOT NULL,
    user_id      TEXT    NOT NULL,
    grant_name   TEXT    NOT NULL,
    account      TEXT    NOT NULL,
    subject      TEXT    NOT NULL CHECK (subject IN ('credential', 'flow')),
    old_status   TEXT    NOT NULL,
    new_status   TEXT    NOT NULL,
    -- Why a credential needs a new consent, or how a flow failed.
    reason       TEXT,
    generation   INTEGER,
    flow_id      BLOB    CHECK (length(flow_id) = 16),
    client_state TEXT,
    created_at   INTEGER NOT NULL,
    CHECK ((subject = 'credential') = (generation IS NOT NULL)),
    CHECK (subject = 'credential' OR flow_id IS NOT NULL),
    CHECK (flow_id IS NOT NULL OR client_state IS NULL)
) STRICT;

CREATE INDEX events_of_tenant ON events (tenant, sequence);
CREATE INDEX events_of_user ON events (tenant, user_id, sequence);
CREATE INDEX events_by_age ON events (created_at);
