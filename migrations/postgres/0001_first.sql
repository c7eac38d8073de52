-- One row: who owns the shard and until when, and the last batch that is kept. `store` stays for
-- ever, also in a backup.
CREATE TABLE pmq_shard (
    shard       int PRIMARY KEY,
    epoch       bigint NOT NULL,
    owner       uuid,
    owner_pid   int,
    lease_until timestamptz NOT NULL,
    last_batch  bigint NOT NULL,
    next_log    bigint NOT NULL,
    store       uuid NOT NULL
) WITH (fillfactor = 50);

-- A log is the messages of one queue. `floor`: nothing below is left; the lowest message may be
-- higher. Counts are exact.
CREATE TABLE pmq_log (
    log_id     bigint PRIMARY KEY,
    shard      int NOT NULL,
    name       text NOT NULL,
    next_seq   bigint NOT NULL,
    floor      bigint NOT NULL,
    live_count bigint NOT NULL,
    live_bytes bigint NOT NULL
) WITH (fillfactor = 50);

-- Rows come and go all the time, so they are vacuumed by number and not by share.
CREATE TABLE pmq_msg (
    log_id bigint NOT NULL,
    seq    bigint NOT NULL,
    expiry bigint NOT NULL,
    flags  smallint NOT NULL,
    props  bytea NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (log_id, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0
);
-- Compressing bodies costs more than it saves for what queues carry; most is compressed already.
ALTER TABLE pmq_msg ALTER COLUMN body SET STORAGE EXTERNAL;

-- Messages that were returned or held, with their counts.
CREATE TABLE pmq_hold (
    log_id         bigint NOT NULL,
    seq            bigint NOT NULL,
    delivery_count bigint NOT NULL,
    acquired_count bigint NOT NULL,
    due            bigint NOT NULL,
    PRIMARY KEY (log_id, seq)
);

-- Definitions. Parts of a key are separated by NUL, which text cannot hold.
CREATE TABLE pmq_meta (
    key     bytea PRIMARY KEY,
    version bigint NOT NULL,
    value   bytea NOT NULL
);

-- Messages that are gone and whose rows are not: they are removed a few at a time.
CREATE TABLE pmq_garbage (
    log_id bigint PRIMARY KEY,
    below  bigint NOT NULL
);
