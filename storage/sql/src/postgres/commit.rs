//! Writing one batch: one statement, one transaction, one round trip.

use std::time::Duration;

use polymq_store::{Epoch, LogId, ShardId};
use sqlx::PgConnection;

use super::signed_shard;
use crate::{
    changes::{Changes, LogRange},
    database::{Sent, narrow, signed, unsigned},
    logs::Tally,
};

/// The fence comes first and everything hangs on its row: without it, nothing is changed. The row
/// lock lives only as long as the statement, so a paused owner holds none.
///
/// Parts of one statement see the tables as they were before it. So what begins and ends within
/// the batch is left out of it beforehand, and what was removed is subtracted here, from counts
/// that include it.
const COMMIT: &str = "
WITH fence AS (
    UPDATE pmq_shard SET last_batch = $3, next_log = $5,
           lease_until = greatest(lease_until, now() + make_interval(secs => $4))
    WHERE shard = $1 AND epoch = $2 AND last_batch = $3 - 1 RETURNING shard),
msg AS (
    INSERT INTO pmq_msg (log_id, seq, expiry, flags, props, body)
    SELECT u.log, u.seq, u.expiry, u.flags, substring($10::bytea FROM u.place FOR u.props),
           substring($10::bytea FROM u.place + u.props FOR u.body)
    FROM fence, unnest($6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[], $11::int[],
                       $12::int[], $13::int[]) u(log, seq, expiry, flags, place, props, body)),
gone AS (
    DELETE FROM pmq_msg m USING fence, unnest($14::bigint[], $15::bigint[], $16::bigint[])
           r(log, first, last)
    WHERE m.log_id = r.log AND m.seq BETWEEN r.first AND r.last
    RETURNING m.log_id, length(m.props)::bigint + length(m.body) AS bytes),
tally AS (
    SELECT log_id, count(*) AS n, sum(bytes)::bigint AS bytes FROM gone GROUP BY log_id),
log AS (
    INSERT INTO pmq_log (log_id, shard, name, next_seq, floor, live_count, live_bytes)
    SELECT u.log, fence.shard, u.name, u.next, u.floor,
           u.n - coalesce(t.n, 0), u.bytes - coalesce(t.bytes, 0)
    FROM fence, unnest($17::bigint[], $18::text[], $19::bigint[], $20::bigint[], $21::bigint[],
                       $22::bigint[]) u(log, name, next, floor, n, bytes)
         LEFT JOIN tally t ON t.log_id = u.log
    ON CONFLICT (log_id) DO UPDATE SET name = excluded.name, next_seq = excluded.next_seq,
       floor = excluded.floor, live_count = excluded.live_count, live_bytes = excluded.live_bytes),
ended AS (
    DELETE FROM pmq_log l USING fence, unnest($23::bigint[]) u(log) WHERE l.log_id = u.log),
unheld AS (
    DELETE FROM pmq_hold h USING fence, unnest($24::bigint[], $25::bigint[], $26::bigint[])
           r(log, first, last)
    WHERE h.log_id = r.log AND h.seq BETWEEN r.first AND r.last),
held AS (
    INSERT INTO pmq_hold (log_id, seq, delivery_count, acquired_count, due)
    SELECT u.log, u.seq, u.delivered, u.acquired, u.due
    FROM fence, unnest($27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[],
                       $32::boolean[]) u(log, seq, delivered, acquired, due, is_fresh)
    WHERE u.is_fresh OR EXISTS (
        SELECT 1 FROM pmq_msg m WHERE m.log_id = u.log AND m.seq = u.seq)
    ON CONFLICT (log_id, seq) DO UPDATE SET delivery_count = excluded.delivery_count,
       acquired_count = excluded.acquired_count, due = excluded.due),
garbage AS (
    INSERT INTO pmq_garbage (log_id, below)
    SELECT u.* FROM fence, unnest($33::bigint[], $34::bigint[]) u
    ON CONFLICT (log_id) DO UPDATE SET below = excluded.below),
meta AS (
    INSERT INTO pmq_meta (key, version, value)
    SELECT u.* FROM fence, unnest($35::bytea[], $36::bigint[], $37::bytea[]) u
    ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value),
forgotten AS (
    DELETE FROM pmq_meta m USING fence, unnest($38::bytea[]) u(key) WHERE m.key = u.key)
SELECT t.log_id, t.n, t.bytes FROM fence LEFT JOIN tally t ON true";

/// Removed messages by log; one row without any when none were removed, no row without fence.
pub(super) type Answer = Vec<(Option<i64>, Option<i64>, Option<i64>)>;

/// Sends the batch, and reads the answer to its end: an error of the commit comes last.
pub(super) async fn commit(
    connection: &mut PgConnection,
    shard: ShardId,
    epoch: Epoch,
    lease: Duration,
    changes: &Changes<'_>,
) -> Result<Answer, sqlx::Error> {
    let messages = &changes.messages;
    let (logs, holds, garbage) = (&changes.logs, &changes.holds, &changes.garbage);
    let (removed, unheld) = (columns(&changes.removed), columns(&changes.unheld));
    let metas: Vec<_> = changes
        .metas
        .iter()
        .filter_map(|(key, kept)| kept.map(|(version, value)| (key.as_bytes(), version, value)))
        .collect();
    let forgotten = changes.metas.iter().filter(|(_, kept)| kept.is_none());
    let forgotten: Vec<_> = forgotten.map(|(key, _)| key.as_bytes()).collect();
    sqlx::query_as(COMMIT)
        .bind(signed_shard(shard))
        .bind(signed(epoch.0))
        .bind(signed(changes.number.0))
        .bind(lease.as_secs_f64())
        .bind(i64::from(changes.next_log.0))
        .bind(column(messages, |m| i64::from(m.log.0)))
        .bind(column(messages, |m| signed(m.seq.0)))
        .bind(column(messages, |m| m.expiry_ms.cast_signed()))
        .bind(column(messages, |m| i16::from(m.flags)))
        .bind(if messages.is_empty() { &[] } else { changes.payload })
        // Counted from 1.
        .bind(column(messages, |m| int(changes.place(m).saturating_add(1))))
        .bind(column(messages, |m| int(m.props.len())))
        .bind(column(messages, |m| int(m.body.len())))
        .bind(removed.0)
        .bind(removed.1)
        .bind(removed.2)
        .bind(column(logs, |(id, _)| i64::from(id.0)))
        // Text holds no NUL in PostgreSQL; names of queues have none either.
        .bind(column(logs, |(_, log)| log.name.replace('\0', "\u{FFFD}")))
        .bind(column(logs, |(_, log)| signed(log.next_seq)))
        .bind(column(logs, |(_, log)| signed(log.floor)))
        .bind(column(logs, |(_, log)| signed(log.live_count)))
        .bind(column(logs, |(_, log)| signed(log.live_bytes)))
        .bind(column(&changes.deleted, |id| i64::from(id.0)))
        .bind(unheld.0)
        .bind(unheld.1)
        .bind(unheld.2)
        .bind(column(holds, |held| i64::from(held.log.0)))
        .bind(column(holds, |held| signed(held.seq)))
        .bind(column(holds, |held| i64::from(held.hold.delivery_count)))
        .bind(column(holds, |held| i64::from(held.hold.acquired_count)))
        .bind(column(holds, |held| held.hold.due_ms.cast_signed()))
        .bind(column(holds, |held| held.is_fresh))
        .bind(column(garbage, |(id, _)| i64::from(id.0)))
        .bind(column(garbage, |(_, below)| signed(*below)))
        .bind(column(&metas, |(key, ..)| *key))
        .bind(column(&metas, |(_, version, _)| version.cast_signed()))
        .bind(column(&metas, |(.., value)| *value))
        .bind(forgotten)
        .fetch_all(connection)
        .await
}

fn column<'r, T, C>(rows: &'r [T], of: impl Fn(&'r T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}

/// Places and lengths within a batch, whose size is bounded far below.
fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn columns(ranges: &[LogRange]) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    (
        column(ranges, |range| i64::from(range.log.0)),
        column(ranges, |range| signed(range.first)),
        column(ranges, |range| signed(range.last)),
    )
}

pub(super) fn sent(answer: &Answer) -> Sent {
    if answer.is_empty() {
        return Sent::NotNext;
    }
    let tally = |row: &(Option<i64>, Option<i64>, Option<i64>)| {
        let (log, count, bytes) = (row.0?, row.1?, row.2?);
        let (count, bytes) = (unsigned(count), unsigned(bytes));
        Some(Tally { log: LogId(narrow(log)), count, bytes })
    };
    Sent::Kept(answer.iter().filter_map(tally).collect())
}
