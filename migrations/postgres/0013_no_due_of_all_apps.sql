-- no-transaction
-- Its place is taken by the two before. The version before this one does without: its look reads more, and finds the same.
DROP INDEX CONCURRENTLY IF EXISTS credentials_due;
