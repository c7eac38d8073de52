//! Writing one batch: a transaction of a few statements, each of which takes all its rows at once.
//!
//! Rows travel as one blob with all their bytes and one JSON text with numbers and offsets into
//! it, so a statement is one call whatever the number of rows. For messages the blob is the batch.

use std::fmt::Write;

use polymq_store::{Epoch, ShardId};
use sqlx::{SqliteConnection, raw_sql};

use super::failure;
use crate::{
    changes::{Changes, LogRange},
    database::{Sent, narrow, signed, unsigned},
    failure::Failure,
    logs::Tally,
};

pub(super) async fn commit(
    connection: &mut SqliteConnection,
    shard: ShardId,
    epoch: Epoch,
    changes: &Changes<'_>,
) -> Result<Sent, Failure> {
    raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(failure)?;
    let written = write(connection, shard, epoch, changes).await;
    let end = if matches!(written, Ok(Sent::Kept(_))) { "COMMIT" } else { "ROLLBACK" };
    let ended = raw_sql(end).execute(&mut *connection).await.map_err(failure);
    match (written, ended) {
        (Ok(Sent::Kept(removed)), Ok(_)) => Ok(Sent::Kept(removed)),
        (Ok(Sent::Kept(_)), Err(failed)) => {
            // A commit that failed may leave the transaction open. If it does not, this fails.
            let _ = raw_sql("ROLLBACK").execute(connection).await;
            Err(failed)
        }
        // Errors such as a full disk end the transaction by themselves.
        (other, _) => other,
    }
}

async fn write(
    connection: &mut SqliteConnection,
    shard: ShardId,
    epoch: Epoch,
    changes: &Changes<'_>,
) -> Result<Sent, Failure> {
    let fence = sqlx::query(
        "UPDATE pmq_shard SET last_batch = ?3, next_log = ?4
         WHERE shard = ?1 AND epoch = ?2 AND last_batch = ?3 - 1",
    );
    let fence = fence.bind(shard.0).bind(signed(epoch.0)).bind(signed(changes.number.0));
    let fence = fence.bind(changes.next_log.0).execute(&mut *connection).await.map_err(failure)?;
    if fence.rows_affected() != 1 {
        return Ok(Sent::NotNext);
    }
    let removed = remove(connection, changes).await?;
    for rows in statements(shard, changes, &removed) {
        let statement = sqlx::query(rows.sql).bind(rows.finished());
        let statement = match rows.bytes {
            Some(bytes) => statement.bind(bytes),
            None => statement,
        };
        statement.execute(&mut *connection).await.map_err(failure)?;
    }
    Ok(Sent::Kept(removed))
}

async fn remove(
    connection: &mut SqliteConnection,
    changes: &Changes<'_>,
) -> Result<Vec<Tally>, Failure> {
    if changes.removed.is_empty() {
        return Ok(Vec::new());
    }
    let ranges = ranges(&changes.removed);
    let counted = sqlx::query_as::<_, (i64, i64, i64)>(
        "SELECT m.log_id, count(*), sum(length(m.props) + length(m.body))
         FROM json_each(?1) r CROSS JOIN pmq_msg m ON m.log_id = r.value->>0
              AND m.seq BETWEEN r.value->>1 AND r.value->>2
         GROUP BY m.log_id ORDER BY m.log_id",
    );
    let counted = counted.bind(&ranges).fetch_all(&mut *connection).await.map_err(failure)?;
    let delete = sqlx::query(
        "DELETE FROM pmq_msg WHERE rowid IN (SELECT m.rowid
         FROM json_each(?1) r CROSS JOIN pmq_msg m ON m.log_id = r.value->>0
              AND m.seq BETWEEN r.value->>1 AND r.value->>2)",
    );
    delete.bind(&ranges).execute(connection).await.map_err(failure)?;
    let tally = |(log, count, bytes)| Tally {
        log: polymq_store::LogId(narrow(log)),
        count: unsigned(count),
        bytes: unsigned(bytes),
    };
    Ok(counted.into_iter().map(tally).collect())
}

fn ranges(ranges: &[LogRange]) -> String {
    let mut rows = Rows::new("");
    for LogRange { log, first, last } in ranges {
        rows.row(&[i64::from(log.0), signed(*first), signed(*last)], &[]);
    }
    rows.finished()
}

/// The rows of one statement: `?1` are the numbers, `?2` the bytes. The last two numbers of a row
/// with bytes are, for each part of them, where it begins, counted from 1, and how long it is.
struct Rows {
    sql: &'static str,
    numbers: String,
    bytes: Option<Vec<u8>>,
}

impl Rows {
    fn new(sql: &'static str) -> Self {
        Self { sql, numbers: String::from("["), bytes: None }
    }

    fn row(&mut self, numbers: &[i64], parts: &[&[u8]]) {
        self.numbers.push_str(if self.is_empty() { "[" } else { ",[" });
        let mut separator = "";
        let mut push = |number: i64| {
            // Writing to a string does not fail.
            let _ = write!(self.numbers, "{separator}{number}");
            separator = ",";
        };
        numbers.iter().for_each(|number| push(*number));
        for part in parts {
            // A part of no bytes at all would be NULL, so there is always one.
            let bytes = self.bytes.get_or_insert_with(|| vec![0]);
            push(signed(bytes.len() as u64 + 1));
            push(signed(part.len() as u64));
            bytes.extend_from_slice(part);
        }
        self.numbers.push(']');
    }

    fn finished(&self) -> String {
        let mut text = self.numbers.clone();
        text.push(']');
        text
    }

    fn is_empty(&self) -> bool {
        self.numbers.len() == 1
    }
}

/// Everything after the removals, in an order in which no statement undoes another.
fn statements(shard: ShardId, changes: &Changes<'_>, removed: &[Tally]) -> Vec<Rows> {
    let mut all = vec![
        unheld(changes),
        messages(changes),
        logs(shard, changes, removed),
        deleted(changes),
        holds(changes),
        garbage(changes),
        metas(changes),
        forgotten(changes),
    ];
    all.retain(|rows| !rows.is_empty());
    all
}

fn unheld(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "DELETE FROM pmq_hold WHERE (log_id, seq) IN (SELECT h.log_id, h.seq
         FROM json_each(?1) r CROSS JOIN pmq_hold h ON h.log_id = r.value->>0
              AND h.seq BETWEEN r.value->>1 AND r.value->>2)",
    );
    for LogRange { log, first, last } in &changes.unheld {
        rows.row(&[i64::from(log.0), signed(*first), signed(*last)], &[]);
    }
    rows
}

fn messages(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "INSERT INTO pmq_msg (log_id, seq, expiry, flags, props, body)
         SELECT value->>0, value->>1, value->>2, value->>3,
                substr(?2, value->>4, value->>5),
                substr(?2, (value->>4) + (value->>5), value->>6)
         FROM json_each(?1)",
    );
    if !changes.messages.is_empty() {
        rows.bytes = Some(changes.payload.to_vec());
    }
    for message in &changes.messages {
        let numbers = [
            i64::from(message.log.0),
            signed(message.seq.0),
            message.expiry_ms.cast_signed(),
            i64::from(message.flags),
            // Counted from 1.
            signed(changes.place(message) as u64 + 1),
            signed(message.props.len() as u64),
            signed(message.body.len() as u64),
        ];
        rows.row(&numbers, &[]);
    }
    rows
}

/// Logs with what `removed` says subtracted.
fn logs(shard: ShardId, changes: &Changes<'_>, removed: &[Tally]) -> Rows {
    let mut rows = Rows::new(
        "INSERT INTO pmq_log (shard, log_id, next_seq, floor, live_count, live_bytes, name)
         SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5,
                CAST(substr(?2, value->>6, value->>7) AS TEXT)
         FROM json_each(?1) WHERE true
         ON CONFLICT (log_id) DO UPDATE SET name = excluded.name, next_seq = excluded.next_seq,
                floor = excluded.floor, live_count = excluded.live_count,
                live_bytes = excluded.live_bytes",
    );
    for (id, log) in &changes.logs {
        let gone = removed.binary_search_by_key(id, |tally| tally.log).ok().map(|at| &removed[at]);
        let (count, bytes) = gone.map_or((0, 0), |tally| (tally.count, tally.bytes));
        let numbers = [
            i64::from(shard.0),
            i64::from(id.0),
            signed(log.next_seq),
            signed(log.floor),
            signed(log.live_count.saturating_sub(count)),
            signed(log.live_bytes.saturating_sub(bytes)),
        ];
        rows.row(&numbers, &[log.name.as_bytes()]);
    }
    rows
}

fn deleted(changes: &Changes<'_>) -> Rows {
    let mut rows =
        Rows::new("DELETE FROM pmq_log WHERE log_id IN (SELECT value->>0 FROM json_each(?1))");
    for log in &changes.deleted {
        rows.row(&[i64::from(log.0)], &[]);
    }
    rows
}

/// Counts are kept for messages that live. Those that this batch removed are gone by now.
fn holds(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "INSERT INTO pmq_hold (log_id, seq, delivery_count, acquired_count, due)
         SELECT r.value->>0, r.value->>1, r.value->>2, r.value->>3, r.value->>4
         FROM json_each(?1) r WHERE EXISTS (SELECT 1 FROM pmq_msg m
              WHERE m.log_id = r.value->>0 AND m.seq = r.value->>1)
         ON CONFLICT (log_id, seq) DO UPDATE SET delivery_count = excluded.delivery_count,
                acquired_count = excluded.acquired_count, due = excluded.due",
    );
    for held in &changes.holds {
        let numbers = [
            i64::from(held.log.0),
            signed(held.seq),
            i64::from(held.hold.delivery_count),
            i64::from(held.hold.acquired_count),
            held.hold.due_ms.cast_signed(),
        ];
        rows.row(&numbers, &[]);
    }
    rows
}

fn garbage(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "INSERT INTO pmq_garbage (log_id, below) SELECT value->>0, value->>1
         FROM json_each(?1) WHERE true
         ON CONFLICT (log_id) DO UPDATE SET below = excluded.below",
    );
    for (log, below) in &changes.garbage {
        rows.row(&[i64::from(log.0), signed(*below)], &[]);
    }
    rows
}

fn metas(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "INSERT INTO pmq_meta (version, key, value)
         SELECT value->>0, substr(?2, value->>1, value->>2), substr(?2, value->>3, value->>4)
         FROM json_each(?1) WHERE true
         ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value",
    );
    for (key, kept) in &changes.metas {
        if let Some((version, value)) = kept {
            rows.row(&[version.cast_signed()], &[key.as_bytes(), value]);
        }
    }
    rows
}

fn forgotten(changes: &Changes<'_>) -> Rows {
    let mut rows = Rows::new(
        "DELETE FROM pmq_meta WHERE key IN
         (SELECT substr(?2, value->>0, value->>1) FROM json_each(?1))",
    );
    for (key, kept) in &changes.metas {
        if kept.is_none() {
            rows.row(&[], &[key.as_bytes()]);
        }
    }
    rows
}
