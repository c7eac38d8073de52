//! The thread that reads, beside the writer, so that a large page holds up no batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use polymq_store::{
    CursorId, CursorState, LogId, MessageRef, Page, ReadLimit, Reply, Seq, StoreError,
};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::{JoinSet, LocalSet},
    time::sleep,
};

use crate::{database::Reader, failure::Failure, writer::Shared};

/// A read changes nothing, so it is tried again for about half a minute.
const TRIES: u32 = 12;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(4);

pub(crate) enum Read<R> {
    /// Read with this from now on.
    Use(R),
    From(LogId, Seq, ReadLimit, Reply<Page>),
    At(Vec<MessageRef>, Reply<Page>),
    Cursor(CursorId, Reply<CursorState>),
    /// Finish what was asked, and disconnect.
    Stop(oneshot::Sender<()>),
}

/// Serves until the store is dropped.
pub(crate) async fn serve<R: Reader>(mut asked: UnboundedReceiver<Read<R>>, shared: Arc<Shared>) {
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            let mut reader: Option<R> = None;
            let mut running = JoinSet::new();
            while let Some(read) = asked.recv().await {
                // What has ended is let go.
                while running.try_join_next().is_some() {}
                match read {
                    Read::Use(next) => reader = Some(next),
                    Read::Stop(done) => {
                        while running.join_next().await.is_some() {}
                        if let Some(reader) = reader.take() {
                            reader.close().await;
                        }
                        // The writer may have gone without waiting.
                        let _ = done.send(());
                    }
                    read => {
                        running.spawn_local(answer(read, reader.clone(), Arc::clone(&shared)));
                    }
                }
            }
        })
        .await;
}

async fn answer<R: Reader>(read: Read<R>, reader: Option<R>, shared: Arc<Shared>) {
    match read {
        Read::From(log, from, limit, reply) => {
            let bounds = bounds(&shared, log);
            let page = match (reader, bounds) {
                (Some(reader), Ok(Some((floor, _)))) => {
                    retried(|| reader.read(log, from.max(floor), limit)).await
                }
                (_, Ok(None)) => Ok(Page::default()),
                (_, Err(failure)) => Err(failure),
                (None, _) => Err(Failure::Closed),
            };
            give(reply, page);
        }
        Read::At(mut wanted, reply) => {
            let is_open = shared.logs.lock().is_some();
            wanted.retain(|at| {
                let bounds = bounds(&shared, at.log);
                matches!(bounds, Ok(Some((floor, next))) if at.seq >= floor && at.seq < next)
            });
            let found = match reader.filter(|_| is_open) {
                Some(reader) => retried(|| reader.read_at(&wanted)).await,
                None => Err(Failure::Closed),
            };
            give(reply, found.map(|messages| Page { messages, next: None }));
        }
        Read::Cursor(cursor, reply) => {
            let log = u32::try_from(cursor.0).map(LogId).ok();
            let bounds = log.map_or(Ok(None), |log| bounds(&shared, log));
            let state = match (reader, log, bounds) {
                (Some(reader), Some(log), Ok(Some((floor, next)))) => {
                    retried(|| reader.cursor(log, floor, next)).await
                }
                (_, _, Ok(None)) => Ok(CursorState::default()),
                (_, _, Err(failure)) => Err(failure),
                _ => Err(Failure::Closed),
            };
            give(reply, state);
        }
        Read::Use(_) | Read::Stop(_) => {}
    }
}

/// Floor and next position of a log that exists.
fn bounds(shared: &Shared, log: LogId) -> Result<Option<(Seq, Seq)>, Failure> {
    let guard = shared.logs.lock();
    let logs = guard.as_ref().ok_or(Failure::Closed)?;
    Ok(logs.logs.get(&log).map(|log| (Seq(log.floor), Seq(log.next_seq))))
}

async fn retried<T, F>(mut read: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut backoff = BACKOFF_MIN;
    for _ in 0..TRIES {
        match read().await {
            Err(Failure::Lost(why) | Failure::Again(why)) => {
                tracing::warn!(event = "read_repeated", why);
            }
            result => return result,
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    read().await
}

/// A panic of whoever asked must not stop the reads of the others.
fn give<T>(reply: Reply<T>, result: Result<T, Failure>) {
    let result = result.map_err(|failure| match failure {
        // `Unknown` speaks of batches.
        Failure::Lost(why) | Failure::Again(why) => StoreError::Fatal(why.into()),
        other => other.into(),
    });
    if catch_unwind(AssertUnwindSafe(|| reply(result))).is_err() {
        tracing::error!(event = "read_callback_panicked");
    }
}
