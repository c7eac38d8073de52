//! Reading messages.

use bytes::Bytes;
use polymq_store::{CursorState, Held, LogId, MessageRef, Page, ReadLimit, Seq, StoredMessage};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use super::failure;
use crate::{
    database::{Reader, cursor_state, fitting, hold, looked_at, narrow, signed, unsigned},
    failure::Failure,
};

#[derive(Debug, Clone)]
pub(crate) struct SqliteReader {
    pool: SqlitePool,
}

impl SqliteReader {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }
}

impl Reader for SqliteReader {
    async fn read(&self, log: LogId, from: Seq, limit: ReadLimit) -> Result<Page, Failure> {
        // Sizes first: they stand in the rows themselves, while bodies may be long.
        let sizes = sqlx::query_as::<_, (i64, i64)>(
            "SELECT seq, length(props) + length(body) FROM pmq_msg
             WHERE log_id = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
        );
        let sizes = sizes.bind(log.0).bind(signed(from.0)).bind(looked_at(limit));
        let sizes = sizes.fetch_all(&self.pool).await.map_err(failure)?;
        let sizes: Vec<_> = sizes.iter().map(|(s, n)| (unsigned(*s), unsigned(*n))).collect();
        let (count, next) = fitting(&sizes, limit);
        let Some((last, _)) = count.checked_sub(1).and_then(|at| sizes.get(at)) else {
            return Ok(Page::default());
        };
        let rows = sqlx::query(
            "SELECT m.log_id, m.seq, m.expiry, m.flags, m.props, m.body,
                    h.delivery_count, h.acquired_count, h.due
             FROM pmq_msg m LEFT JOIN pmq_hold h ON h.log_id = m.log_id AND h.seq = m.seq
             WHERE m.log_id = ?1 AND m.seq BETWEEN ?2 AND ?3 ORDER BY m.seq",
        );
        let rows = rows.bind(log.0).bind(signed(from.0)).bind(signed(*last));
        let rows = rows.fetch_all(&self.pool).await.map_err(failure)?;
        let messages = rows.iter().map(message).collect::<Result<_, _>>()?;
        Ok(Page { messages, next })
    }

    async fn read_at(&self, messages: &[MessageRef]) -> Result<Vec<StoredMessage>, Failure> {
        let wanted: Vec<_> = messages.iter().map(|at| format!("[{},{}]", at.log, at.seq)).collect();
        let rows = sqlx::query(
            "SELECT m.log_id, m.seq, m.expiry, m.flags, m.props, m.body,
                    h.delivery_count, h.acquired_count, h.due
             FROM json_each(?1) r
             CROSS JOIN pmq_msg m ON m.log_id = r.value->>0 AND m.seq = r.value->>1
             LEFT JOIN pmq_hold h ON h.log_id = m.log_id AND h.seq = m.seq ORDER BY r.key",
        );
        let rows = rows.bind(format!("[{}]", wanted.join(",")));
        let rows = rows.fetch_all(&self.pool).await.map_err(failure)?;
        rows.iter().map(message).collect()
    }

    async fn cursor(&self, log: LogId, floor: Seq, next: Seq) -> Result<CursorState, Failure> {
        let mut snapshot = self.pool.begin().await.map_err(failure)?;
        let ends = sqlx::query_as::<_, (Option<i64>, Option<i64>)>(
            "SELECT min(seq), max(seq) FROM pmq_msg WHERE log_id = ?1 AND seq >= ?2",
        );
        let ends = ends.bind(log.0).bind(signed(floor.0)).fetch_one(&mut *snapshot);
        let ends = ends.await.map_err(failure)?;
        let gaps = sqlx::query_as::<_, (i64, i64)>(
            "SELECT before, seq FROM (SELECT seq, lag(seq) OVER (ORDER BY seq) AS before
             FROM pmq_msg WHERE log_id = ?1 AND seq >= ?2) WHERE seq > before + 1 ORDER BY seq",
        );
        let gaps = gaps.bind(log.0).bind(signed(floor.0)).fetch_all(&mut *snapshot);
        let gaps = gaps.await.map_err(failure)?;
        let held = sqlx::query_as::<_, (i64, i64, i64, i64)>(
            "SELECT seq, delivery_count, acquired_count, due FROM pmq_hold
             WHERE log_id = ?1 AND seq >= ?2 ORDER BY seq",
        );
        let held = held.bind(log.0).bind(signed(floor.0)).fetch_all(&mut *snapshot);
        let held = held.await.map_err(failure)?;
        let ends = ends.0.zip(ends.1).map(|(low, high)| (unsigned(low), unsigned(high)));
        let gaps = gaps.into_iter().map(|(before, seq)| (unsigned(before), unsigned(seq)));
        let mut state = cursor_state(next, ends, gaps);
        state.held = held
            .into_iter()
            .filter_map(|(seq, delivered, acquired, due)| {
                let hold = hold(Some(delivered), Some(acquired), Some(due))?;
                Some(Held { seq: Seq(unsigned(seq)), hold })
            })
            .collect();
        Ok(state)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn message(row: &SqliteRow) -> Result<StoredMessage, Failure> {
    let number = |at: usize| row.try_get::<i64, _>(at).map_err(failure);
    let maybe = |at: usize| row.try_get::<Option<i64>, _>(at).map_err(failure);
    let bytes = |at: usize| row.try_get::<Vec<u8>, _>(at).map(Bytes::from).map_err(failure);
    Ok(StoredMessage {
        log: LogId(narrow(number(0)?)),
        seq: Seq(unsigned(number(1)?)),
        expiry_ms: number(2)?.cast_unsigned(),
        flags: u8::try_from(number(3)?).unwrap_or(0),
        props: bytes(4)?,
        body: bytes(5)?,
        hold: hold(maybe(6)?, maybe(7)?, maybe(8)?),
    })
}
