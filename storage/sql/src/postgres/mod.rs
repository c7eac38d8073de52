//! PostgreSQL: a batch is one statement on the one connection that owns the shard.

use std::{path::PathBuf, str::FromStr, time::Duration};

use polymq_store::{Epoch, LogId, OwnerId, ShardBatch, ShardId};
use sqlx::{
    ConnectOptions, PgConnection, Row,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::time::timeout;

use crate::{
    changes::Changes,
    database::{Database, Loaded, Position, SWEEP_ROWS, Sent, signed, unsigned},
    failure::Failure,
    load,
};

mod commit;
mod error;
mod own;
mod read;
mod seen;

use error::failure;
pub(crate) use read::PostgresReader;
use seen::Seen;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For statements that touch one row.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For one batch, and for each MiB of it. Then the connection is given up; the database may still
/// finish, which is found out on the next one.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
const COMMIT_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);

/// Which PostgreSQL keeps everything, and how.
#[derive(Clone)]
pub struct PostgresConfig {
    options: PgConnectOptions,
    lease: Duration,
    readers: u32,
    seen: Option<PathBuf>,
}

/// A URL that names no database.
#[derive(Debug, thiserror::Error)]
#[error("the url is not valid: {0}; write it as \"postgres://user@host:5432/database\"")]
pub struct BadUrl(String);

impl PostgresConfig {
    /// Connects as `url` says, with this password instead of the one in it when there is one.
    ///
    /// `lease` is how long another broker waits after the last sign of this one. Besides the
    /// connection that writes there are up to `readers`, at least one.
    ///
    /// Errors: [`BadUrl`]; it does not repeat the URL, which may hold a password.
    pub fn new(
        url: &str,
        password: Option<&str>,
        lease: Duration,
        readers: u32,
    ) -> Result<Self, BadUrl> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(BadUrl("it does not begin with postgres://".to_owned()));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| BadUrl(error.to_string()))?;
        let options = match password {
            Some(password) => options.password(password),
            None => options,
        };
        Ok(Self {
            options: options.disable_statement_logging(),
            lease,
            readers: readers.max(1),
            seen: None,
        })
    }

    /// Remembers in this file what was seen of the database, and refuses one that went back.
    pub fn remembering(self, path: impl Into<PathBuf>) -> Self {
        Self { seen: Some(path.into()), ..self }
    }

    /// Host, port and database, for people.
    pub fn place(&self) -> String {
        let options = &self.options;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        format!("{}:{}/{database}", options.get_host(), options.get_port())
    }
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig").field("place", &self.place()).finish_non_exhaustive()
    }
}

pub(crate) struct Postgres {
    config: PostgresConfig,
    shard: ShardId,
    /// As text, the way the database writes it.
    owner: String,
    connection: Option<PgConnection>,
    seen: Option<Seen>,
}

impl Postgres {
    pub(crate) fn new(config: PostgresConfig) -> Self {
        let shard = ShardId::default();
        Self { config, shard, owner: String::new(), connection: None, seen: None }
    }

    /// Waits for an answer, and gives the connection up when it can no longer be trusted: a
    /// statement that was not heard out would leave its answer to the next one.
    async fn answered<T>(
        &mut self,
        within: Duration,
        ask: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Failure::Lost("it was lost before".to_owned()));
        };
        let Ok(answer) = timeout(within, ask(&mut connection)).await else {
            return Err(Failure::Lost(format!("no answer after {} s", within.as_secs())));
        };
        let answer = answer.map_err(failure);
        // Behind the same name a server that takes writes may stand by the next time.
        if !matches!(answer, Err(Failure::Lost(_) | Failure::ReadOnly(_))) {
            self.connection = Some(connection);
        }
        answer
    }
}

impl Database for Postgres {
    type Reader = PostgresReader;

    async fn open(&mut self, shard: ShardId, me: OwnerId) -> Result<Position, Failure> {
        self.shard = shard;
        self.owner = uuid(me);
        self.take_ownership().await
    }

    async fn load(&mut self) -> Result<Loaded, Failure> {
        let shard = self.shard;
        let rows = self.answered(COMMIT_TIMEOUT, async |connection| {
            let place = sqlx::query_as(load::SHARD).bind(signed_shard(shard));
            let logs = sqlx::query_as(load::LOGS).bind(signed_shard(shard));
            Ok(load::Rows {
                shard: place.fetch_one(&mut *connection).await?,
                logs: logs.fetch_all(&mut *connection).await?,
                garbage: sqlx::query_as(load::GARBAGE).fetch_all(&mut *connection).await?,
                metas: sqlx::query_as(load::METAS).fetch_all(connection).await?,
            })
        });
        rows.await?.loaded()
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        // Whatever the reason, the next attempt may succeed.
        self.connection = Some(self.connected().await.map_err(|error| lost(&error))?);
        Ok(())
    }

    fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    async fn commit(&mut self, epoch: Epoch, changes: &Changes<'_>) -> Result<Sent, Failure> {
        let mib = u32::try_from(changes.byte_len() >> 20).unwrap_or(u32::MAX);
        let within = COMMIT_TIMEOUT + COMMIT_TIMEOUT_PER_MIB.saturating_mul(mib);
        let (shard, lease) = (self.shard, self.config.lease);
        let rows = self
            .answered(within, async |connection| {
                commit::commit(connection, shard, epoch, lease, changes).await
            })
            .await?;
        let sent = commit::sent(&rows);
        if let (Sent::Kept(_), Some(seen)) = (&sent, &mut self.seen) {
            seen.saw(Position { epoch, last_batch: changes.number });
        }
        Ok(sent)
    }

    async fn position(&mut self) -> Result<Position, Failure> {
        let shard = self.shard;
        let row = self.answered(ANSWER_TIMEOUT, async |connection| {
            sqlx::query("SELECT epoch, last_batch FROM pmq_shard WHERE shard = $1")
                .bind(signed_shard(shard))
                .fetch_one(connection)
                .await
        });
        position_in(&row.await?).map_err(failure)
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.config.lease)
    }

    async fn renew(&mut self, epoch: Epoch) -> Result<(), Failure> {
        let (shard, lease) = (self.shard, self.config.lease);
        // Waiting longer than the lease tells nothing that a new connection would not tell.
        let done = self.answered(ANSWER_TIMEOUT.min(lease), async |connection| {
            sqlx::query(
                "UPDATE pmq_shard SET lease_until = greatest(lease_until, now() +
                        make_interval(secs => $3)), owner_pid = pg_backend_pid()
                 WHERE shard = $1 AND epoch = $2",
            )
            .bind(signed_shard(shard))
            .bind(signed(epoch.0))
            .bind(lease.as_secs_f64())
            .execute(connection)
            .await
        });
        if done.await?.rows_affected() == 1 { Ok(()) } else { Err(Failure::Fenced) }
    }

    async fn sweep(&mut self, log: LogId, from: i64, below: i64) -> Result<Option<i64>, Failure> {
        let swept = self.answered(COMMIT_TIMEOUT, async |connection| {
            let (count, last): (i64, Option<i64>) = sqlx::query_as(
                "WITH gone AS (DELETE FROM pmq_msg WHERE log_id = $1 AND seq BETWEEN $2 AND
                     (SELECT max(seq) FROM (SELECT seq FROM pmq_msg WHERE log_id = $1
                      AND seq >= $2 AND seq < $3 ORDER BY seq LIMIT $4) part) RETURNING seq)
                 SELECT count(*), max(seq) FROM gone",
            )
            .bind(i64::from(log.0))
            .bind(from)
            .bind(below)
            .bind(SWEEP_ROWS)
            .fetch_one(&mut *connection)
            .await?;
            if let Some(last) = last.filter(|_| count >= SWEEP_ROWS) {
                return Ok(Some(last.saturating_add(1)));
            }
            let done = sqlx::query("DELETE FROM pmq_garbage WHERE log_id = $1 AND below = $2");
            done.bind(i64::from(log.0)).bind(below).execute(connection).await?;
            Ok(None)
        });
        swept.await
    }

    async fn close(&mut self, epoch: Epoch) {
        if let Some(seen) = self.seen.take() {
            seen.write();
        }
        self.give_back(epoch).await;
        self.connection = None;
    }

    fn reader(&self) -> PostgresReader {
        let options = own::for_reading(&self.config.options, &self.owner);
        let pool = PgPoolOptions::new()
            .max_connections(self.config.readers)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None);
        PostgresReader::new(pool.connect_lazy_with(options))
    }
}

fn lost(failure: &Failure) -> Failure {
    Failure::Lost(failure.to_string())
}

fn position_in(row: &PgRow) -> Result<Position, sqlx::Error> {
    Ok(Position {
        epoch: Epoch(unsigned(row.try_get("epoch")?)),
        last_batch: ShardBatch(unsigned(row.try_get("last_batch")?)),
    })
}

fn signed_shard(shard: ShardId) -> i32 {
    i32::try_from(shard.0).unwrap_or(i32::MAX)
}

/// An owner the way PostgreSQL writes a uuid.
fn uuid(owner: OwnerId) -> String {
    let text = format!("{:032x}", owner.0);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
