-- What an operator's call acted on, as "tenant:globex caller:agents". Rows from before have none, and the hashes that they had.
ALTER TABLE audit_log ADD COLUMN target TEXT;
