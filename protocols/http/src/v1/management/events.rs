//! Live events: a snapshot of each topic, and then what has changed of it.
//!
//! Each reader has a task of its own that looks at its topics once a second and compares with what
//! it has sent. A slow reader is looked at less often, so what waits for it never grows.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::response::Response;
use polymq_broker::{BrokerHandle, Role};
use serde_json::{Map, Value, json};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    caller::{Caller, blocking},
    cluster, jobs, listeners, logs, overview, queues,
    replay::{Asked, GoingOn, KEPT_FOR, Left, ROWS_BYTES_MAX, Recent, Remembered, Replays},
    route::ROUTE,
    stream::{self, Events},
    topic::Topic,
    traces,
};
use crate::{
    Phase, Site,
    api::{Answer, Api, Kind, Media, Operation, Parameter},
    call::Call,
    problem::Problem,
    v1::{Place, streams::OF_EVENTS},
};

/// Topics of one stream.
const TOPICS_MAX: usize = 20;
/// How often topics are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows of one topic.
const ROWS_MAX: usize = 10_000;

const TOPICS: Parameter = Parameter {
    name: "topics",
    kind: Kind::Text,
    about: "Up to 20 of overview, connections, queues/{vhost}, queue/{vhost}/{name}, storage, \
            alarms, listeners, cluster, jobs, job/{id}, log and trace/{id}, separated by commas; \
            `~` is the virtual host `/`",
};

const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    kind: Kind::Text,
    about: "Go on behind this event of the same topics, within a minute; when that cannot be, \
            `gap` comes first and the snapshots say `reset`",
};

static EVENTS: Operation = Operation {
    path: "/events",
    id: "followEvents",
    tag: "events",
    summary: "Follow topics by server-sent events: a snapshot each, then what changes",
    permission: "what the topics need when they are asked one by one",
    query: &[TOPICS],
    headers: &[LAST_EVENT_ID],
    answers: &[Answer {
        status: 200,
        about: "Events `snapshot`, `delta`, `gap` and `closing`",
        media: &[Media::bytes("text/event-stream")],
    }],
    ..ROUTE
};

pub(super) fn routes(api: Api) -> Api {
    api.route(&EVENTS, follow)
}

/// Rows of a topic by their keys.
type Rows = BTreeMap<String, Value>;

/// A topic as a reader has it.
struct Followed {
    name: String,
    topic: Topic,
    /// What was sent; `None` before the first time.
    sent: Option<Rows>,
    /// The number of the last row that was sent of a topic whose rows only come.
    last: u64,
    /// The reader had it before, and misses something.
    is_reset: bool,
}

impl Followed {
    /// Goes on where a reader was.
    fn go_on(&mut self, remembered: Remembered) {
        self.sent = remembered.rows.and_then(|rows| serde_json::from_str(&rows).ok());
        self.last = remembered.last;
        self.is_reset = self.sent.is_none();
    }
}

async fn follow(call: Call) -> Result<Response, Problem> {
    let caller = Caller::anywhere(&call).await?;
    let names = call.query("topics").unwrap_or_default();
    let mut followed = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let topic = Topic::parse(name).ok_or_else(|| {
            let text = format!("there is no topic `{name}`");
            Problem::bad("unknown_topic", text).at("topics")
        })?;
        topic.check(&caller)?;
        let name = name.to_owned();
        followed.push(Followed { name, topic, sent: None, last: 0, is_reset: false });
    }
    if followed.is_empty() || followed.len() > TOPICS_MAX {
        let text = format!("a stream has 1 to {TOPICS_MAX} topics");
        return Err(Problem::bad("out_of_range", text).at("topics").with("max", TOPICS_MAX));
    }
    let names: Vec<String> = followed.iter().map(|topic| topic.name.clone()).collect();
    let (replays, seen) = (&call.site.replays, call.headers.get("Last-Event-ID"));
    let seen = seen.map(|id| id.to_str().unwrap_or_default());
    // Before a place is taken, because the reader that was lost may still have one.
    let going_on = match seen {
        Some(id) => replays.take(id, &caller.who, &names).await,
        None => None,
    };
    let (place, is_back) = (OF_EVENTS.enter(&caller.who.user), going_on.is_some());
    let (events, answer) = stream::events();
    let (start, recent, opening) = begin(&mut followed, seen, going_on);
    let reader = Reader {
        site: Arc::clone(&call.site),
        asked: replays.enter(start, caller.who.clone(), names),
        caller,
        followed,
        start,
        recent,
        opening,
        events,
    };
    match place {
        Ok(place) => drop(tokio::spawn(reader.serve(place))),
        Err(problem) => {
            match is_back {
                true => drop(tokio::spawn(reader.wait_for_another())),
                false => replays.forget(start),
            }
            return Err(problem);
        }
    }
    Ok(answer)
}

/// Where a stream begins: its number, the events of before, and what the reader is told first.
fn begin(
    followed: &mut [Followed],
    seen: Option<&str>,
    going_on: Option<GoingOn>,
) -> (u64, Recent, String) {
    if let Some(GoingOn { start, left, missed }) = going_on {
        let remembered = followed.iter_mut().zip(left.topics);
        remembered.for_each(|(topic, remembered)| topic.go_on(remembered));
        return (start, left.recent, missed);
    }
    let mut opening = String::new();
    if let Some(id) = seen {
        followed.iter_mut().for_each(|topic| topic.is_reset = true);
        let reason = "what comes behind this event is not kept any more, or was never yours";
        let data = json!({ "last_event_id": id, "reason": reason });
        opening = format!("event: gap\ndata: {data}\n\n");
    }
    (Replays::new_start(), Recent::new(), opening)
}

/// Why a reader has ended.
enum Ended {
    /// It is gone without a word, and may come back.
    Lost,
    /// Another one goes on.
    Asked(oneshot::Sender<Left>),
    /// There is nothing more for it.
    Over,
}

/// One reader and its task.
struct Reader {
    site: Arc<Site>,
    caller: Caller,
    followed: Vec<Followed>,
    /// The first part of the ids of its events.
    start: u64,
    recent: Recent,
    /// What it is told first.
    opening: String,
    /// Another reader wants to go on with the stream.
    asked: Asked,
    events: Events,
}

impl Reader {
    async fn serve(mut self, place: Place) {
        let ended = self.run().await;
        drop(place);
        let (replays, start) = (Arc::clone(&self.site.replays), self.start);
        match ended {
            Ended::Over => replays.forget(start),
            Ended::Lost => self.wait_for_another().await,
            Ended::Asked(reply) => {
                // Whoever has asked does not wait for ever.
                if reply.send(self.leave().await).is_err() {
                    replays.forget(start);
                }
            }
        }
    }

    async fn run(&mut self) -> Ended {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                Some(reply) = self.asked.recv() => return Ended::Asked(reply),
                () = self.events.is_left() => return Ended::Lost,
            }
            let is_over = self.site.watched.phase.now() == Phase::Draining;
            let mut text = std::mem::take(&mut self.opening);
            match self.look().await {
                Some(news) => text.push_str(&news),
                None => return Ended::Over,
            }
            if is_over {
                text.push_str(&self.event("closing", "", json!({ "reason": "the server stops" })));
            }
            let is_sent = tokio::select! {
                is_sent = self.events.send(&mut text) => is_sent,
                Some(reply) = self.asked.recv() => return Ended::Asked(reply),
            };
            match (is_over, is_sent) {
                (true, _) => return Ended::Over,
                (false, false) => return Ended::Lost,
                (false, true) => {}
            }
        }
    }

    /// Keeps the stream for a reader that comes back.
    async fn wait_for_another(self) {
        let (replays, start) = (Arc::clone(&self.site.replays), self.start);
        if replays.keep(start, self.leave().await) {
            while replays.sweep() {
                sleep(KEPT_FOR / 4).await;
            }
        }
    }

    /// What another reader needs to go on.
    async fn leave(self) -> Left {
        let Self { followed, recent, .. } = self;
        let pack = move || {
            let mut room = ROWS_BYTES_MAX;
            let pack = |topic: &Followed| {
                let rows = topic.sent.as_ref().and_then(|rows| serde_json::to_string(rows).ok());
                let rows = rows.filter(|rows| rows.len() <= room);
                room -= rows.as_ref().map_or(0, String::len);
                Remembered { rows, last: topic.last }
            };
            followed.iter().map(pack).collect()
        };
        // Without its rows a topic begins anew.
        let topics = tokio::task::spawn_blocking(pack).await.unwrap_or_default();
        Left { recent, topics }
    }

    /// The events since the last look; `None` when the user may look no more.
    async fn look(&mut self) -> Option<String> {
        if self.caller.is_gone() {
            return None;
        }
        let mut text = String::new();
        for at in 0..self.followed.len() {
            let topic = self.followed.get(at)?.topic.clone();
            topic.check(&self.caller).ok()?;
            if let Some(data) = self.new_rows(at, &topic) {
                text.push_str(&data);
                continue;
            }
            let rows = self.rows(topic).await.ok()?;
            let followed = self.followed.get_mut(at)?;
            let name = followed.name.clone();
            let (kind, data) = match &followed.sent {
                None => ("snapshot", Some(snapshot(&rows, followed.is_reset))),
                Some(before) => ("delta", difference(before, &rows)),
            };
            followed.sent = Some(rows);
            if let Some(data) = data {
                text.push_str(&self.event(kind, &name, data));
            }
        }
        Some(text)
    }

    /// The events of a topic whose rows only come and never change: the log, and traces. What comes
    /// faster than it is kept is missing, as the numbers tell. `None` for another topic.
    fn new_rows(&mut self, at: usize, topic: &Topic) -> Option<String> {
        let Followed { name, sent, last, is_reset, .. } = self.followed.get_mut(at)?;
        let is_reset = *is_reset;
        let numbered: Vec<(u64, Value)> = match topic {
            Topic::Log => logs::after(&self.site, *last, sent.is_none()),
            Topic::Trace(id) => traces::after(&self.caller, *id, *last),
            _ => return None,
        };
        *last = numbered.last().map_or(*last, |(number, _)| *number);
        let rows = numbered.into_iter().map(|(number, row)| (format!("{number:020}"), row));
        let rows: Rows = rows.collect();
        let is_first = sent.replace(Rows::new()).is_none();
        let name = name.clone();
        Some(match is_first {
            true => self.event("snapshot", &name, snapshot(&rows, is_reset)),
            false if rows.is_empty() => String::new(),
            false => self.event("delta", &name, json!({ "changed": rows, "gone": [] })),
        })
    }

    fn event(&mut self, kind: &str, topic: &str, mut data: Value) -> String {
        if !topic.is_empty() {
            data["topic"] = json!(topic);
        }
        let number = self.recent.next();
        let text = format!("id: {}-{number}\nevent: {kind}\ndata: {data}\n\n", self.start);
        self.recent.push(text.clone());
        text
    }

    async fn rows(&self, topic: Topic) -> Result<Rows, Problem> {
        let (broker, who) = (self.caller.broker().clone(), self.caller.who.clone());
        let sees_all = self.caller.has(Role::Monitoring);
        let site = Arc::clone(&self.site);
        let look = move || match topic {
            Topic::Overview => one("overview", overview::shown(&broker, None)),
            Topic::Storage => one("storage", overview::storage_of(&site)),
            Topic::Alarms => by("id", overview::standing(&site.watched)),
            Topic::Listeners => by("address", listeners::all(&site.watched)),
            Topic::Cluster => by("name", cluster::members(&site)),
            Topic::Log | Topic::Trace(_) => Rows::new(),
            Topic::Jobs => {
                let mine = |job: &polymq_broker::JobRecord| sees_all || job.by == who.user.as_str();
                by("id", broker.jobs().iter().filter(|job| mine(job)).map(jobs::shown))
            }
            Topic::Job(id) => {
                let mine = |job: &polymq_broker::JobRecord| sees_all || job.by == who.user.as_str();
                by("id", broker.job(id).iter().filter(|job| mine(job)).map(jobs::shown))
            }
            Topic::Connections => connections(&broker, &who, sees_all),
            Topic::Queue(vhost, queue) => {
                let found = broker.queue_ref(vhost.as_str(), &queue);
                by("name", found.iter().map(|queue| queues::shown(&queue.details(None))))
            }
            Topic::Queues(vhost) => {
                let list = broker.queue_lists(Some(vhost.as_str())).unwrap_or_default().pop();
                let names = list.iter().flat_map(|list| list.names().iter());
                let sees = |name: &str| sees_all || broker.may_see(&who, &vhost, "queue", name);
                let visible = names.filter(|name| sees(name.as_str()));
                let found = visible.filter_map(|name| list.as_ref()?.queue(name));
                by("name", found.map(|queue| queues::shown(&queue.details(None))))
            }
        };
        blocking(look).await
    }
}

fn connections(broker: &BrokerHandle, who: &polymq_broker::Principal, sees_all: bool) -> Rows {
    let all = broker.connection_refs();
    let mine = all.iter().filter(|one| sees_all || one.user.as_ref() == Some(&who.user));
    by("id", mine.map(super::connections::shown))
}

fn snapshot(rows: &Rows, is_reset: bool) -> Value {
    let mut data = json!({ "rows": rows });
    if is_reset {
        data["reset"] = json!(true);
    }
    data
}

fn one(key: &str, row: Value) -> Rows {
    Rows::from([(key.to_owned(), row)])
}

/// Rows by one of their columns.
fn by(column: &str, rows: impl IntoIterator<Item = Value>) -> Rows {
    let keyed = |row: Value| {
        let key = row[column].as_str().unwrap_or_default().to_owned();
        (key, row)
    };
    rows.into_iter().take(ROWS_MAX).map(keyed).collect()
}

/// Columns that have changed, by row, and rows that are gone; `None` when nothing has.
fn difference(before: &Rows, now: &Rows) -> Option<Value> {
    let mut changed = Map::new();
    for (key, row) in now {
        match before.get(key) {
            None => {
                changed.insert(key.clone(), row.clone());
            }
            Some(old) if old != row => {
                let columns = row.as_object().into_iter().flatten();
                let other: Map<String, Value> = columns
                    .filter(|(column, value)| old.get(column.as_str()) != Some(value))
                    .map(|(column, value)| (column.clone(), value.clone()))
                    .collect();
                changed.insert(key.clone(), Value::Object(other));
            }
            Some(_) => {}
        }
    }
    let gone: Vec<&String> = before.keys().filter(|key| !now.contains_key(*key)).collect();
    if changed.is_empty() && gone.is_empty() {
        return None;
    }
    Some(json!({ "changed": changed, "gone": gone }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_changed_columns_and_rows_that_are_gone() {
        let rows = |rows: &[(&str, Value)]| -> Rows {
            rows.iter().map(|(key, row)| ((*key).to_owned(), row.clone())).collect()
        };
        let before = rows(&[("a", json!({ "n": 1, "m": 2 })), ("b", json!({ "n": 1 }))]);
        let now = rows(&[("a", json!({ "n": 1, "m": 3 })), ("c", json!({ "n": 5 }))]);
        assert_eq!(
            difference(&before, &now),
            Some(json!({ "changed": { "a": { "m": 3 }, "c": { "n": 5 } }, "gone": ["b"] }))
        );
        assert_eq!(difference(&now, &now), None);
    }
}
