//! Quality of service 2 in both directions over `kill -9`. Publisher and subscriber keep
//! their own state as section 4.1 of MQTT demands; the broker must keep its part.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use polymq_faults::{
    broker::Home,
    mqtt::{Login, Mqtt, packet, text},
    random::Random,
    report::{say, setting},
};

/// Publishes that are unfinished at a time.
const WINDOW: usize = 20;
/// How long it may take until all has arrived.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the broker listens now, and what has come of the test.
#[derive(Default)]
struct Shared {
    port: Mutex<Option<u16>>,
    received: AtomicUsize,
    /// Nothing new is published any more.
    is_enough: AtomicBool,
    is_over: AtomicBool,
}

/// Ends both clients, also when the test fails: its end would wait for them for good otherwise.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    /// Connects as soon as there is a broker; `None` when the test is over.
    fn connect(&self, client_id: &str) -> Option<Mqtt> {
        while !self.is_over.load(Ordering::SeqCst) {
            let port = *self.port.lock().unwrap();
            let login = Login { level: 4, client_id, clean: false };
            if let Some(Ok(client)) = port.map(|port| Mqtt::open(port, login)) {
                client.set_patience(Duration::from_millis(100)).unwrap();
                return Some(client);
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

fn id_of(body: &[u8]) -> u16 {
    u16::from_be_bytes(*body.first_chunk().unwrap())
}

fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// A publisher's unfinished messages: packet id, number, and whether PUBREC has come.
#[derive(Default)]
struct Publisher {
    unfinished: VecDeque<(u16, usize, bool)>,
    next: usize,
}

impl Publisher {
    fn send(client: &mut Mqtt, (id, number, released): (u16, usize, bool), dup: u8) -> Result<()> {
        if released {
            return client.send(&ack(0x62, id));
        }
        let body = [&text(b"once")[..], &id.to_be_bytes(), number.to_string().as_bytes()].concat();
        client.send(&packet(0x34 | dup, &body))
    }

    fn run(&mut self, client: &mut Mqtt, shared: &Shared) -> Result<()> {
        for unfinished in &self.unfinished {
            Self::send(client, *unfinished, 8)?;
        }
        while !shared.is_over.load(Ordering::SeqCst) {
            while self.unfinished.len() < WINDOW && !shared.is_enough.load(Ordering::SeqCst) {
                let id = u16::try_from(self.next % 500 + 1)?;
                let message = (id, self.next, false);
                self.unfinished.push_back(message);
                self.next += 1;
                Self::send(client, message, 0)?;
            }
            if self.unfinished.is_empty() {
                return Ok(());
            }
            let Some(answer) = client.next_packet()? else { continue };
            let id = id_of(&answer.body);
            let at = self.unfinished.iter().position(|(other, ..)| *other == id);
            match (answer.first, at) {
                (0x50, Some(at)) => {
                    self.unfinished[at].2 = true;
                    client.send(&ack(0x62, id))?;
                }
                (0x70, Some(at)) => {
                    self.unfinished.remove(at);
                }
                other => ensure!(other.1.is_none(), "{other:?} from the broker"),
            }
        }
        Ok(())
    }
}

/// A subscriber's packet ids that the broker has not released, and what it has been given.
#[derive(Default)]
struct Subscriber {
    held: BTreeSet<u16>,
    numbers: Vec<usize>,
}

impl Subscriber {
    fn run(&mut self, client: &mut Mqtt, shared: &Shared) -> Result<()> {
        while !shared.is_over.load(Ordering::SeqCst) {
            let Some(packet) = client.next_packet()? else { continue };
            if let Some(publish) = packet.publish() {
                if self.held.insert(publish.packet_id) {
                    self.numbers.push(std::str::from_utf8(&publish.payload)?.parse()?);
                    shared.received.store(self.numbers.len(), Ordering::SeqCst);
                }
                client.send(&ack(0x50, publish.packet_id))?;
            } else if packet.first == 0x62 {
                let id = id_of(&packet.body);
                self.held.remove(&id);
                client.send(&ack(0x70, id))?;
            }
        }
        Ok(())
    }
}

/// Waits until all that was published has come, and then nothing for a while: no message comes
/// twice.
fn await_all(shared: &Shared, published: usize) {
    let (mut before, began) = (usize::MAX, Instant::now());
    while before != shared.received.load(Ordering::SeqCst)
        || before < published && began.elapsed() < PATIENCE
    {
        before = shared.received.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn quality_2_is_exactly_once_over_kills_of_the_broker() {
    let kills = setting("POLYMQ_KILLS", 30);
    let mut random = Random::new(setting("POLYMQ_SEED", 3));
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let login = Login { level: 4, client_id: "once-in", clean: false };
    let mut client = Mqtt::open(broker.ports.mqtt, login).unwrap();
    client.subscribe("once", 2).unwrap();
    client.close().unwrap();
    let shared = Shared::default();
    *shared.port.lock().unwrap() = Some(broker.ports.mqtt);
    let (numbers, published) = thread::scope(|scope| {
        let shared = &shared;
        let ending = Ending(shared);
        let publisher = scope.spawn(move || {
            let mut publisher = Publisher::default();
            while let Some(mut client) = shared.connect("once-out") {
                // A connection that breaks is what this is about.
                if publisher.run(&mut client, shared).is_ok() {
                    break;
                }
            }
            publisher.next
        });
        let subscriber = scope.spawn(move || {
            let mut subscriber = Subscriber::default();
            while let Some(mut client) = shared.connect("once-in") {
                subscriber.run(&mut client, shared).ok();
            }
            subscriber.numbers
        });
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.between(20, 250)));
            *shared.port.lock().unwrap() = None;
            broker.kill();
            broker = home.start().unwrap();
            *shared.port.lock().unwrap() = Some(broker.ports.mqtt);
        }
        shared.is_enough.store(true, Ordering::SeqCst);
        let began = Instant::now();
        while !publisher.is_finished() && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(publisher.is_finished(), "the broker does not finish what was published");
        let published = publisher.join().unwrap();
        await_all(shared, published);
        drop(ending);
        (subscriber.join().unwrap(), published)
    });
    let mut times = vec![0_u8; published];
    for number in &numbers {
        times[*number] = times[*number].saturating_add(1);
    }
    let with = |wanted: fn(u8) -> bool| -> Vec<usize> {
        (0..published).filter(|number| wanted(times[*number])).take(10).collect()
    };
    let (missing, twice) = (with(|times| times == 0), with(|times| times > 1));
    say(&format!(
        "quality 2: {published} messages over {kills} kills; missing {missing:?}, twice {twice:?}"
    ));
    assert!(missing.is_empty() && twice.is_empty());
    let disorder = numbers.windows(2).find(|pair| pair[0] > pair[1]);
    assert_eq!(disorder, None, "out of order");
    assert!(published as u64 > kills * 50, "hardly any load");
}
