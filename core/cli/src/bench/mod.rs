//! A short load test of any broker, on the wire of its protocol.
//!
//! Each publisher and each consumer is a thread with a blocking connection. It tells whether a
//! broker does what is expected of it; comparisons between brokers want `tests/bench`.

mod amqp;
mod histogram;
mod mqtt;
mod wire;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use self::histogram::Histogram;
use crate::{
    arguments::{Bench, BenchProtocol, Load},
    context::secret,
    failure::Failure,
    output::Output,
};

/// Messages of one client that are on their way at most, so that no broker has a reason to drop.
const UNDER_WAY_MAX: u64 = 10_000;
/// Unconfirmed publishes of a client at most.
const WINDOW: u64 = 1_000;
/// Publishes that are written together, and acknowledgements.
const BATCH: u64 = 64;
/// Messages of a backlog at most.
const BACKLOG_MAX: u64 = 1_000_000;
/// How long a consumer waits for the rest.
const SILENCE: Duration = Duration::from_secs(5);

/// What a client needs to know.
struct Plan {
    address: SocketAddr,
    user: String,
    password: String,
    vhost: String,
    is_confirmed: bool,
    body_bytes: usize,
    /// Pause between two publishes of a client.
    pause: Option<Duration>,
}

/// A connection of one protocol.
trait Client: Send {
    /// Puts a publish into the bytes to send.
    fn publish(&mut self, place: &str, body: &[u8]);
    /// Sends what waits.
    fn flush(&mut self) -> anyhow::Result<()>;
    /// Waits until something arrives, for a little at most; confirms are counted, and messages
    /// shown. Acknowledges what is shown, if the broker wants to hear that.
    fn read(&mut self, on_message: &mut dyn FnMut(&[u8])) -> anyhow::Result<()>;
    /// Publishes that the broker has confirmed.
    fn confirmed(&self) -> u64;
    /// Makes the place that messages go to, and consumes from it if that is wanted.
    fn prepare(&mut self, place: &str, consumes: bool) -> anyhow::Result<()>;
    /// Removes the place.
    fn remove(&mut self, place: &str) -> anyhow::Result<()>;
}

/// What all clients of a run share.
struct Run {
    plan: Plan,
    load: Load,
    protocol: BenchProtocol,
    started: Instant,
    stops: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Run {
    fn open(&self, name: &str) -> anyhow::Result<Box<dyn Client>> {
        Ok(match self.protocol {
            BenchProtocol::Amqp => Box::new(amqp::Amqp::open(&self.plan)?),
            BenchProtocol::Mqtt => Box::new(mqtt::Mqtt::open(&self.plan, name)?),
        })
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Measures, and says what came of it.
pub(crate) fn run(wanted: &Bench) -> Result<(), Failure> {
    if wanted.load == Load::Sub && wanted.proto == BenchProtocol::Mqtt {
        let text = "MQTT keeps no backlog for a client that has never come; use `mix`, or AMQP";
        return Err(Failure::Usage(text.to_owned()));
    }
    let run = Arc::new(Run {
        plan: plan(wanted)?,
        load: wanted.load,
        protocol: wanted.proto,
        started: Instant::now(),
        stops: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
    });
    let duration = Duration::from_secs(wanted.duration);
    let (times, seconds) = measure(&run, usize::from(wanted.clients), duration)?;
    let (sent, received) = (run.sent.load(Ordering::Relaxed), run.received.load(Ordering::Relaxed));
    let count = if run.load == Load::Pub { sent } else { received };
    let lost = if run.load == Load::Pub { 0 } else { sent.saturating_sub(received) };
    let row = json!({
        "load": format!("{:?}", run.load).to_lowercase(),
        "proto": format!("{:?}", run.protocol).to_lowercase(),
        "confirm": if run.plan.is_confirmed { "stored" } else { "none" },
        "clients": wanted.clients,
        "size_bytes": wanted.size,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "messages": count,
        "messages_per_second": (count as f64 / seconds).round(),
        "lost": lost,
        "p50_ms": times.quantile_ms(0.5),
        "p99_ms": times.quantile_ms(0.99),
        "max_ms": times.quantile_ms(1.0),
    });
    Output::new(wanted.output).document(&row)?;
    match lost {
        0 => Ok(()),
        lost => Err(Failure::Partly(format!("{lost} messages were lost"))),
    }
}

fn plan(wanted: &Bench) -> Result<Plan, Failure> {
    let default = match wanted.proto {
        BenchProtocol::Amqp => "127.0.0.1:5672",
        BenchProtocol::Mqtt => "127.0.0.1:1883",
    };
    let place = wanted.addr.as_deref().unwrap_or(default);
    let mut found = place.to_socket_addrs().with_context(|| place.to_owned())?;
    let address = found.next().ok_or_else(|| anyhow!("{place} has no address"))?;
    let file = wanted.password_file.clone();
    let file = file.or_else(|| std::env::var_os("POLYMQ_PASSWORD_FILE").map(Into::into));
    let password = match file {
        Some(file) => secret(&file)?,
        None => wanted.user.clone(),
    };
    let pause = wanted.rate.map(|rate| match rate {
        0 => Err(Failure::Usage("--rate is more than 0".to_owned())),
        rate => Ok(Duration::from_secs_f64(f64::from(wanted.clients) / f64::from(rate))),
    });
    Ok(Plan {
        address,
        user: wanted.user.clone(),
        password,
        vhost: wanted.vhost.clone(),
        is_confirmed: wanted.confirm,
        body_bytes: usize::try_from(wanted.size).unwrap_or(usize::MAX),
        pause: pause.transpose()?,
    })
}

/// Runs all clients. Returns the times that messages took, and how long it was measured.
fn measure(run: &Arc<Run>, clients: usize, duration: Duration) -> anyhow::Result<(Histogram, f64)> {
    let places: Vec<String> =
        (0..clients).map(|n| format!("polymq-bench-{}-{n}", std::process::id())).collect();
    let mut publishers = Vec::new();
    let mut consumers = Vec::new();
    for place in &places {
        let mut publisher = run.open(&format!("{place}-p"))?;
        publisher.prepare(place, run.load == Load::Rtt)?;
        publishers.push(publisher);
        if run.load == Load::Mix {
            let mut consumer = run.open(&format!("{place}-c"))?;
            consumer.prepare(place, true)?;
            consumers.push(consumer);
        }
    }
    let mut remover = run.open("polymq-bench-remover")?;
    let measured = work(run, &places, (publishers, consumers), duration);
    for place in &places {
        remover.remove(place)?;
    }
    measured
}

type Clients = Vec<Box<dyn Client>>;

fn work(
    run: &Run,
    places: &[String],
    (publishers, consumers): (Clients, Clients),
    duration: Duration,
) -> anyhow::Result<(Histogram, f64)> {
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        let is_over = &is_over;
        let sending: Vec<_> = publishers
            .into_iter()
            .zip(places)
            .map(|(client, place)| {
                scope.spawn(move || {
                    // Whoever fails ends the run for all.
                    let done = match run.load {
                        Load::Rtt => there_and_back(run, client, place),
                        Load::Sub => {
                            let count = BACKLOG_MAX / places.len() as u64;
                            publish(run, client, place, count).map(|_| Histogram::default())
                        }
                        Load::Pub | Load::Mix => {
                            publish(run, client, place, u64::MAX).map(|_| Histogram::default())
                        }
                    };
                    if done.is_err() {
                        run.stops.store(true, Ordering::Relaxed);
                    }
                    done
                })
            })
            .collect();
        let mut receiving: Vec<_> = consumers
            .into_iter()
            .map(|client| scope.spawn(move || consume(run, client, is_over)))
            .collect();
        let ends = begun + duration;
        while Instant::now() < ends && sending.iter().any(|task| !task.is_finished()) {
            let left = ends.saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        run.stops.store(true, Ordering::Relaxed);
        let mut times = Histogram::default();
        let mut failed = None;
        for task in sending {
            joined(task.join(), &mut times, &mut failed);
        }
        is_over.store(true, Ordering::Release);
        let mut measured_from = begun;
        if run.load == Load::Sub && failed.is_none() {
            measured_from = Instant::now();
            for place in places {
                let mut consumer = run.open(&format!("{place}-c"))?;
                consumer.prepare(place, true)?;
                receiving.push(scope.spawn(move || consume(run, consumer, is_over)));
            }
        }
        for task in receiving {
            joined(task.join(), &mut times, &mut failed);
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((times, measured_from.elapsed().as_secs_f64())),
        }
    })
}

/// Adds what a thread has measured, or keeps the first failure.
fn joined(
    ended: thread::Result<anyhow::Result<Histogram>>,
    times: &mut Histogram,
    failed: &mut Option<anyhow::Error>,
) {
    match ended {
        Ok(Ok(measured)) => times.add(&measured),
        Ok(Err(error)) => {
            failed.get_or_insert(error);
        }
        Err(_) => {
            failed.get_or_insert_with(|| anyhow!("a client of the load test panicked"));
        }
    }
}

/// A body that begins with the time at which it is sent.
fn body(bytes: usize, nanos: u64, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&nanos.to_be_bytes());
    into.resize(bytes, b'x');
}

/// Publishes until the time is over, or `count` messages are sent.
fn publish(run: &Run, mut client: Box<dyn Client>, place: &str, count: u64) -> anyhow::Result<u64> {
    let (mut sent, mut message) = (0, Vec::new());
    let is_bounded = run.load == Load::Mix;
    let mut due = Instant::now();
    while sent < count && !run.stops.load(Ordering::Relaxed) {
        let under_way = run.sent.load(Ordering::Relaxed) - run.received.load(Ordering::Relaxed);
        if is_bounded && under_way >= UNDER_WAY_MAX {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        if let Some(pause) = run.plan.pause {
            due += pause;
            let early = due.saturating_duration_since(Instant::now());
            if early > Duration::from_millis(1) {
                client.flush()?;
                thread::sleep(early.min(Duration::from_millis(100)));
            }
        }
        body(run.plan.body_bytes, run.nanos(), &mut message);
        client.publish(place, &message);
        sent += 1;
        run.sent.fetch_add(1, Ordering::Relaxed);
        if run.plan.pause.is_some() || sent % BATCH == 0 {
            client.flush()?;
        }
        while run.plan.is_confirmed && sent - client.confirmed() >= WINDOW {
            client.flush()?;
            client.read(&mut |_| {})?;
        }
    }
    client.flush()?;
    let mut until = Instant::now() + SILENCE;
    while run.plan.is_confirmed && client.confirmed() < sent {
        let before = client.confirmed();
        client.read(&mut |_| {})?;
        if client.confirmed() > before {
            until = Instant::now() + SILENCE;
        } else if Instant::now() > until {
            return Err(anyhow!("{} publishes were never confirmed", sent - before));
        }
    }
    Ok(sent)
}

/// Consumes until everything that was sent has come and nothing more is sent.
fn consume(
    run: &Run,
    mut client: Box<dyn Client>,
    is_over: &AtomicBool,
) -> anyhow::Result<Histogram> {
    let mut times = Histogram::default();
    let mut silent_since = Instant::now();
    loop {
        let mut count = 0;
        client.read(&mut |message| {
            count += 1;
            let sent = message.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight));
            times.note(run.nanos().saturating_sub(sent));
        })?;
        run.received.fetch_add(count, Ordering::Relaxed);
        if count > 0 {
            silent_since = Instant::now();
        }
        let is_all = run.received.load(Ordering::Relaxed) >= run.sent.load(Ordering::Relaxed);
        let is_over = is_over.load(Ordering::Acquire);
        if is_over && (is_all || silent_since.elapsed() > SILENCE) {
            return Ok(times);
        }
    }
}

/// Sends one message after the other, each when the one before has come back.
fn there_and_back(
    run: &Run,
    mut client: Box<dyn Client>,
    place: &str,
) -> anyhow::Result<Histogram> {
    let (mut times, mut message) = (Histogram::default(), Vec::new());
    while !run.stops.load(Ordering::Relaxed) {
        let begun = Instant::now();
        body(run.plan.body_bytes, run.nanos(), &mut message);
        client.publish(place, &message);
        client.flush()?;
        run.sent.fetch_add(1, Ordering::Relaxed);
        let mut is_back = false;
        while !is_back {
            client.read(&mut |_| is_back = true)?;
            if begun.elapsed() > SILENCE {
                return Err(anyhow!("a message did not come back within {SILENCE:?}"));
            }
        }
        run.received.fetch_add(1, Ordering::Relaxed);
        times.note(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if let Some(pause) = run.plan.pause {
            thread::sleep(pause.saturating_sub(begun.elapsed()));
        }
    }
    Ok(times)
}
