-- Changes of the ledger, counted: whoever keeps values in RAM asks what has changed since.
CREATE TABLE memory_clock (now BIGINT NOT NULL);
INSERT INTO memory_clock (now) SELECT COALESCE(MAX(tick), 0) + 1 FROM memory_turn;
ALTER TABLE memory_turn ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX memory_turn_by_change ON memory_turn (changed);
