//! What management costs a broker with many queues and connections while messages flow.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming, Method, long_number},
    broker::{Broker, Home, allow_files},
    report::{say, setting, skip},
};
use serde_json::json;

/// Files that the test and the broker use beside the sockets of connections.
const OTHER_FILES: u64 = 200;
/// How long messages are counted at a time, and how often questions come: pages that people look at
/// are asked for every five seconds, and Prometheus asks less often.
const SLICE: Duration = Duration::from_secs(5);
/// Messages that may be on their way.
const CREDIT: u64 = 20_000;
/// Messages of one write.
const BLOCK: u64 = 100;
/// Targets for a page of queues and for the totals, and the part of the messages that must still
/// flow; this machine may be busy with other things, so that the last is told and not asserted.
const PAGE_MAX: Duration = Duration::from_millis(50);
const METRICS_MAX: Duration = Duration::from_millis(500);

/// What people and Prometheus ask for, with how long it may take.
const POLLED: [(&str, Duration); 3] = [
    ("/api/queues?page=1&page_size=100&sort=name", PAGE_MAX),
    ("/api/v1/vhosts/~/queues?limit=100&sort=name", PAGE_MAX),
    ("/metrics", METRICS_MAX),
];

/// A kept connection for HTTP, logged in as the administrator of a broker for development.
struct Browser(BufReader<TcpStream>);

impl Browser {
    fn new(broker: &Broker) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", broker.ports.http)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(socket))
    }

    /// Status and body of an answer.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }
}

/// Makes so many queues, a fifth of them durable, and puts a few messages into most.
fn make_queues(broker: &Broker, browser: &mut Browser, count: u64) {
    let queues = (0..count).map(|number| {
        json!({
            "name": format!("queue-{number:06}"),
            "vhost": "/",
            "durable": number % 5 == 0,
            "auto_delete": false,
            "arguments": {},
        })
    });
    let definitions = json!({ "queues": queues.collect::<Vec<_>>() }).to_string();
    let (status, answer) = browser.ask("POST", "/api/definitions", &definitions);
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&answer));
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.confirm_select().unwrap();
    let (mut sent, mut confirmed) = (0, 0);
    for first in (0..count).step_by(500) {
        let numbers = (first..count.min(first + 500)).filter(|number| number % 4 != 3);
        let queues =
            numbers.flat_map(|number| vec![number; 1 + usize::try_from(number % 3).unwrap()]);
        let mut block = Vec::new();
        for number in queues {
            block.extend(amqp::publish("", &format!("queue-{number:06}"), b"a message"));
            sent += 1;
        }
        client.send(&block).unwrap();
        while confirmed < sent {
            match client.next_event().unwrap() {
                Some(Incoming::Method((60, 80), arguments)) => {
                    confirmed = long_number(&arguments, 0).unwrap();
                }
                other => panic!("{other:?} for a publisher"),
            }
        }
    }
}

/// Messages that flow from a publisher to a consumer as fast as the broker lets them.
struct Flow {
    received: Arc<AtomicU64>,
    /// Bytes of one delivery, which all are alike.
    delivery_bytes: u64,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Flow {
    fn start(broker: &Broker) -> Self {
        let connect = || TcpStream::connect(("127.0.0.1", broker.ports.amqp)).unwrap();
        let (publishing, consuming) = (connect(), connect());
        let open = |socket: &TcpStream| {
            let mut client = Amqp::over(socket.try_clone().unwrap()).unwrap();
            client.log_in(0).unwrap();
            client
        };
        let (mut publisher, mut consumer) = (open(&publishing), open(&consuming));
        let exclusive = Method::new((50, 10)).u16(0).short("flow").u8(4).long(&[]);
        consumer.call(&exclusive, (50, 11)).unwrap();
        let no_ack = Method::new((60, 20)).u16(0).short("flow").short("c").u8(2).long(&[]);
        consumer.call(&no_ack, (60, 21)).unwrap();
        let message = amqp::publish("", "flow", &[b'x'; 128]);
        publisher.send(&message).unwrap();
        let delivery_bytes = wait_for_bytes(&consuming);
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, ended) = (Arc::clone(&received), Arc::clone(&stop));
        let reads = thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while !ended.load(Ordering::Relaxed) {
                let count = (&consuming).read(&mut buffer).unwrap();
                counted.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        let block = message.repeat(usize::try_from(BLOCK).unwrap());
        let (counted, ended) = (Arc::clone(&received), Arc::clone(&stop));
        let writes = thread::spawn(move || {
            let mut sent = 0;
            while !ended.load(Ordering::Relaxed) {
                if sent - counted.load(Ordering::Relaxed) / delivery_bytes > CREDIT {
                    thread::sleep(Duration::from_micros(100));
                    continue;
                }
                (&publishing).write_all(&block).unwrap();
                sent += BLOCK;
            }
        });
        Self { received, delivery_bytes, stop, threads: vec![reads, writes] }
    }

    /// Messages received while `work` goes on, a second.
    fn rate(&self, work: impl FnOnce()) -> f64 {
        let (before, began) = (self.received.load(Ordering::Relaxed), Instant::now());
        work();
        let bytes = self.received.load(Ordering::Relaxed) - before;
        bytes as f64 / self.delivery_bytes as f64 / began.elapsed().as_secs_f64()
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// How many bytes come until it is quiet for a moment.
fn wait_for_bytes(mut socket: &TcpStream) -> u64 {
    let mut count = socket.read(&mut [0; 4096]).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    while let Ok(more) = socket.read(&mut [0; 4096]) {
        count += more;
    }
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    count as u64
}

/// Asks for each of them once; adds how long it took.
fn poll(browser: &mut Browser, took: &mut [Vec<Duration>; POLLED.len()], queues: u64) {
    for ((path, _), took) in POLLED.iter().zip(took) {
        let began = Instant::now();
        let (status, body) = browser.ask("GET", path, "");
        took.push(began.elapsed());
        assert_eq!(status, 200, "{path}");
        let text = String::from_utf8(body).unwrap();
        match path.starts_with("/api") {
            true => assert!(text.contains(r#""queue-000000""#) && text.len() > 20_000, "{text}"),
            false => {
                let line = format!("polymq_queues{{type=\"classic\"}} {}\n", queues + 1);
                assert!(text.contains(&line), "{text}");
            }
        }
    }
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

#[test]
fn lists_and_metrics_of_many_queues_come_at_once_and_messages_flow_on() {
    let queues = setting("POLYMQ_QUEUES", 5_000);
    let connections = setting("POLYMQ_CONNECTIONS", 500);
    let slices = setting("POLYMQ_SLICES", 3);
    // Questions in a slice; five are one a second.
    let polls = u32::try_from(setting("POLYMQ_POLLS", 1)).unwrap().max(1);
    if !allow_files(connections + OTHER_FILES) {
        skip("management", &format!("this process may not open {connections} files more"));
        return;
    }
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut browser = Browser::new(&broker);
    make_queues(&broker, &mut browser, queues);
    let open = |_| Amqp::open(broker.ports.amqp).unwrap();
    let idle: Vec<_> = (0..connections).map(open).collect();
    let flow = Flow::start(&broker);
    let mut took: [Vec<Duration>; POLLED.len()] = Default::default();
    // The first question begins the samples, and nothing is warm yet.
    poll(&mut browser, &mut took, queues);
    took.iter_mut().for_each(Vec::clear);
    let (mut quiet, mut polled) = (Vec::new(), Vec::new());
    for _ in 0..slices {
        quiet.push(flow.rate(|| thread::sleep(SLICE)));
        polled.push(flow.rate(|| {
            for _ in 0..polls {
                let began = Instant::now();
                poll(&mut browser, &mut took, queues);
                thread::sleep((SLICE / polls).saturating_sub(began.elapsed()));
            }
        }));
    }
    flow.stop();
    drop(idle);
    let (quiet, polled) = (median(quiet), median(polled));
    say(&format!(
        "management: {queues} queues, {connections} connections; {:.0}k messages a second, {:.0}k \
         while asked ({:.1} %)",
        quiet / 1000.0,
        polled / 1000.0,
        100.0 * polled / quiet
    ));
    let mut late = Vec::new();
    for ((path, at_most), took) in POLLED.iter().zip(took) {
        let slowest = took.iter().max().copied().unwrap();
        let usual = median(took);
        say(&format!("management: {path}: {usual:.1?}, at most {slowest:.1?}"));
        if usual >= *at_most {
            late.push(path);
        }
    }
    assert!(late.is_empty(), "too late: {late:?}");
}
