-- One row: who owns the shard, and the last batch that is kept.
CREATE TABLE pmq_shard (
    shard      INTEGER PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    last_batch INTEGER NOT NULL,
    next_log   INTEGER NOT NULL
) STRICT;

-- A log is the messages of one queue. `floor`: nothing below is left; the lowest message may be
-- higher. Counts are exact.
CREATE TABLE pmq_log (
    log_id     INTEGER PRIMARY KEY,
    shard      INTEGER NOT NULL,
    name       TEXT NOT NULL,
    next_seq   INTEGER NOT NULL,
    floor      INTEGER NOT NULL,
    live_count INTEGER NOT NULL,
    live_bytes INTEGER NOT NULL
) STRICT;

-- Large rows suit a table with a rowid better than one inside its primary key.
CREATE TABLE pmq_msg (
    log_id INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    expiry INTEGER NOT NULL,
    flags  INTEGER NOT NULL,
    props  BLOB NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (log_id, seq)
) STRICT;

-- Messages that were returned or held, with their counts.
CREATE TABLE pmq_hold (
    log_id         INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    delivery_count INTEGER NOT NULL,
    acquired_count INTEGER NOT NULL,
    due            INTEGER NOT NULL,
    PRIMARY KEY (log_id, seq)
) STRICT, WITHOUT ROWID;

-- Definitions. Parts of a key are separated by NUL, so it is no text.
CREATE TABLE pmq_meta (
    key     BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    value   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages that are gone and whose rows are not: they are removed a few at a time.
CREATE TABLE pmq_garbage (
    log_id INTEGER PRIMARY KEY,
    below  INTEGER NOT NULL
) STRICT;
