//! Connecting, and who owns the shard.

use std::time::Duration;

use polymq_store::Epoch;
use sqlx::{ConnectOptions, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{
    ANSWER_TIMEOUT, CONNECT_TIMEOUT, Postgres, error::failure, position_in, seen::Seen,
    signed_shard,
};
use crate::{
    database::{Position, signed},
    failure::Failure,
    migrations,
};

/// PostgreSQL 14, as `server_version_num` has it.
const VERSION_MIN: i32 = 140_000;
/// A database that is being started is waited for.
const FIRST_CONNECT_TRIES: u32 = 10;
const FIRST_CONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How often the lease of another owner is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

/// Who has the lease.
#[derive(Debug, Clone, PartialEq)]
struct Holder {
    name: String,
    until: String,
    left: Duration,
}

impl Postgres {
    /// A new connection, ready for statements.
    pub(super) async fn connected(&self) -> Result<PgConnection, Failure> {
        let options = for_writing(&self.config.options, &self.owner);
        match timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(connection) => connection.map_err(failure),
            Err(_) => Err(Failure::Lost(format!("no answer from {}", self.config.place()))),
        }
    }

    pub(super) async fn take_ownership(&mut self) -> Result<Position, Failure> {
        self.connection = Some(self.first_connected().await?);
        self.check_settings().await?;
        let migrated = self.answered(ANSWER_TIMEOUT * 6, async |connection| {
            Ok(migrations::postgres().run(connection).await)
        });
        migrated.await?.map_err(|error| migrations::failure(error, failure))?;
        let shard = signed_shard(self.shard);
        let made = self.answered(ANSWER_TIMEOUT, async |connection| {
            sqlx::query(
                "INSERT INTO pmq_shard
                        (shard, epoch, lease_until, last_batch, next_log, store)
                 VALUES ($1, 0, '-infinity', 0, 0, gen_random_uuid()) ON CONFLICT DO NOTHING",
            )
            .bind(shard)
            .execute(connection)
            .await
        });
        made.await?;
        let position = self.take_lease().await?;
        let seen = self.compared(position).await;
        if seen.is_err() {
            self.give_back(position.epoch).await;
        }
        self.seen = seen?;
        Ok(position)
    }

    /// Holds the position against what this machine has seen.
    async fn compared(&mut self, position: Position) -> Result<Option<Seen>, Failure> {
        let Some(path) = self.config.seen.clone() else { return Ok(None) };
        let shard = signed_shard(self.shard);
        let store = self.answered(ANSWER_TIMEOUT, async |connection| {
            let store = sqlx::query_scalar("SELECT store::text FROM pmq_shard WHERE shard = $1");
            store.bind(shard).fetch_one(connection).await
        });
        Seen::checked(path, store.await?, position).map(Some)
    }

    async fn first_connected(&self) -> Result<PgConnection, Failure> {
        let mut last = String::new();
        for attempt in 0..FIRST_CONNECT_TRIES {
            match self.connected().await {
                Ok(connection) => return Ok(connection),
                Err(Failure::Lost(why) | Failure::Again(why)) => {
                    tracing::warn!(event = "database_unreachable", attempt, why);
                    last = why;
                }
                // Wrong password, no such database.
                Err(other) => {
                    let place = self.config.place();
                    return Err(Failure::Refused(format!("{place}: {other}")));
                }
            }
            sleep(FIRST_CONNECT_PAUSE).await;
        }
        Err(Failure::Refused(format!("{} cannot be reached: {last}", self.config.place())))
    }

    /// A database that does not keep what it has committed is no store.
    async fn check_settings(&mut self) -> Result<(), Failure> {
        let settings = self.answered(ANSWER_TIMEOUT, async |connection| {
            sqlx::query_as::<_, (i32, String, String, String, i64)>(
                "SELECT current_setting('server_version_num')::int, current_setting('fsync'),
                        current_setting('full_page_writes'), current_setting('synchronous_commit'),
                        (SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'async')",
            )
            .fetch_one(connection)
            .await
        });
        let (version, fsync, page_writes, commit, asynchronous) = settings.await?;
        if version < VERSION_MIN {
            return Err(Failure::Refused(format!(
                "PostgreSQL {} is too old; 14 or later is needed",
                version / 10_000
            )));
        }
        for (name, value) in [("fsync", fsync), ("full_page_writes", page_writes)] {
            if value == "off" {
                return Err(Failure::Refused(format!(
                    "PostgreSQL runs with {name} = off, so a power cut would cost confirmed \
                     messages; set {name} = on"
                )));
            }
        }
        if asynchronous > 0 {
            tracing::warn!(
                event = "asynchronous_standby",
                standbys = asynchronous,
                "a failover to it would cost confirmed messages"
            );
        }
        // `remote_apply` and the like promise more and stay.
        if commit == "off" || commit == "local" {
            let on = self.answered(ANSWER_TIMEOUT, async |connection| {
                sqlx::query("SET synchronous_commit = on").execute(connection).await
            });
            on.await?;
        }
        Ok(())
    }

    /// Takes the lease when it has ended. A live owner prolongs it, which is seen at once; that of
    /// a dead one is waited for.
    async fn take_lease(&mut self) -> Result<Position, Failure> {
        let mut first: Option<Holder> = None;
        loop {
            if let Some(position) = self.take_ended_lease().await? {
                return Ok(position);
            }
            let Some(holder) = self.holder().await? else { continue };
            match &first {
                Some(seen) if seen.until != holder.until => {
                    return Err(Failure::Held(format!("{}, until {}", holder.name, holder.until)));
                }
                Some(_) => {}
                None => {
                    tracing::info!(
                        event = "waiting_for_lease",
                        holder = holder.name,
                        left_ms = holder.left.as_millis()
                    );
                    first = Some(holder.clone());
                }
            }
            sleep(holder.left.min(LOOK_AGAIN)).await;
        }
    }

    async fn take_ended_lease(&mut self) -> Result<Option<Position>, Failure> {
        let (shard, owner) = (signed_shard(self.shard), self.owner.clone());
        let lease = self.config.lease;
        let taken = self.answered(ANSWER_TIMEOUT, async |connection| {
            sqlx::query(
                "UPDATE pmq_shard SET owner = $2::uuid, owner_pid = pg_backend_pid(),
                        epoch = epoch + 1, lease_until = now() + make_interval(secs => $3)
                 WHERE shard = $1 AND (lease_until < now() OR owner = $2::uuid)
                 RETURNING epoch, last_batch",
            )
            .bind(shard)
            .bind(owner)
            .bind(lease.as_secs_f64())
            .fetch_optional(connection)
            .await
        });
        taken.await?.as_ref().map(position_in).transpose().map_err(failure)
    }

    /// `None` when the lease has just ended.
    async fn holder(&mut self) -> Result<Option<Holder>, Failure> {
        let shard = signed_shard(self.shard);
        let row = self.answered(ANSWER_TIMEOUT, async |connection| {
            sqlx::query(
                "SELECT s.owner::text AS owner, host(a.client_addr) AS address,
                        s.lease_until::text AS until,
                        extract(epoch FROM s.lease_until - clock_timestamp())::float8 AS secs
                 FROM pmq_shard s LEFT JOIN pg_stat_activity a ON a.pid = s.owner_pid
                      AND a.application_name = 'polymq ' || s.owner
                 WHERE s.shard = $1 AND s.lease_until > '-infinity'",
            )
            .bind(shard)
            .fetch_optional(connection)
            .await
        });
        let Some(row) = row.await? else { return Ok(None) };
        let read = || -> Result<Holder, sqlx::Error> {
            let owner: Option<String> = row.try_get("owner")?;
            let address: Option<String> = row.try_get("address")?;
            let secs: f64 = row.try_get("secs")?;
            let owner = owner.unwrap_or_default();
            let place = address.map(|address| format!(" at {address}")).unwrap_or_default();
            Ok(Holder {
                name: format!("broker {owner}{place}"),
                until: row.try_get("until")?,
                left: Duration::try_from_secs_f64(secs).unwrap_or_default(),
            })
        };
        read().map(Some).map_err(failure)
    }

    /// Lets the next owner in without a wait, as far as the database can be reached.
    pub(super) async fn give_back(&mut self, epoch: Epoch) {
        let shard = signed_shard(self.shard);
        let given = self.answered(GOODBYE_TIMEOUT, async |connection| {
            sqlx::query(
                "UPDATE pmq_shard SET lease_until = '-infinity', owner = NULL, owner_pid = NULL
                 WHERE shard = $1 AND epoch = $2",
            )
            .bind(shard)
            .bind(signed(epoch.0))
            .execute(connection)
            .await
        });
        if let Err(why) = given.await {
            tracing::warn!(event = "lease_not_given_back", %why, "it ends by itself");
        }
    }
}

/// Settings of every session. Tables that are empty now may hold millions of rows an hour later,
/// so plans that read a whole table are kept away; all that is asked is answered by an index.
fn for_all(options: &PgConnectOptions, owner: &str, timeout_ms: &str) -> PgConnectOptions {
    options.clone().application_name(&format!("polymq {owner}")).options([
        ("statement_timeout", timeout_ms),
        ("idle_in_transaction_session_timeout", "10000"),
        ("tcp_keepalives_idle", "30"),
        ("jit", "off"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
    ])
}

/// The statement of a batch is planned once.
fn for_writing(options: &PgConnectOptions, owner: &str) -> PgConnectOptions {
    for_all(options, owner, "300000").options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ])
}

pub(super) fn for_reading(options: &PgConnectOptions, owner: &str) -> PgConnectOptions {
    for_all(options, owner, "60000").options([("default_transaction_read_only", "on")])
}
