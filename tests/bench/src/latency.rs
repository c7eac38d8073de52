//! Latency under a steady open-loop rate: a sending and a receiving thread on blocking sockets.
//!
//! Each payload starts with the moment its message was due, so a delay of the sender counts too
//! and a broker that stalls cannot hide it by slowing the sender down.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::link::Proto;
use crate::wire::be64;
use crate::{amqp, mqtt, stomp};

/// Marks in `Progress::sent` that the sender is still at work.
const RUNNING: u64 = u64::MAX;
/// The receiver gives up when nothing arrives for this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// One stream of stamped messages.
pub struct Stream {
    /// Protocol and socket of the sender.
    pub sender: (Proto, TcpStream),
    /// Protocol, socket and early bytes of the receiver.
    pub receiver: (Proto, TcpStream, Vec<u8>),
    /// An encoded message.
    pub message: Vec<u8>,
    /// Where its payload starts.
    pub stamp_at: usize,
    /// Messages per second.
    pub rate: u64,
    /// Time before samples count.
    pub warm_up: Duration,
    /// Time in which samples count.
    pub measure: Duration,
}

/// Delays in nanoseconds, sorted, and how many messages never arrived.
pub struct Delays {
    sorted: Vec<u64>,
    /// Messages sent and not received.
    pub lost: u64,
}

impl Delays {
    /// The delay that this share of the messages stayed within, in microseconds.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let last = self.sorted.len().checked_sub(1)?;
        let index = (last as f64 * share).round() as usize;
        self.sorted.get(index).map(|&nanos| nanos as f64 / 1e3)
    }

    /// How many delays were counted.
    pub fn count(&self) -> u64 {
        self.sorted.len() as u64
    }
}

/// Sends and receives, and returns the delays.
pub fn run(stream: Stream) -> Result<Delays> {
    let sent = AtomicU64::new(RUNNING);
    let origin = Instant::now();
    let (warm_up, sender_sent) = (stream.warm_up, &sent);
    let (proto, socket, early) = stream.receiver;
    let total = ((stream.warm_up + stream.measure).as_secs_f64() * stream.rate as f64) as u64;
    let (message, stamp_at, rate) = (stream.message, stream.stamp_at, stream.rate);
    let (_, sender) = stream.sender;
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let result = send(sender, message, stamp_at, rate, total, origin);
            sender_sent.store(*result.as_ref().unwrap_or(&0), Ordering::Release);
            result
        });
        let received = receive(proto, socket, early, origin, warm_up, &sent);
        match sending.join() {
            Ok(result) => result.map(drop)?,
            Err(_) => bail!("the sending thread failed"),
        }
        received
    })
}

fn send(
    mut socket: TcpStream,
    mut message: Vec<u8>,
    stamp_at: usize,
    rate: u64,
    total: u64,
    origin: Instant,
) -> Result<u64> {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    for index in 0..total {
        let due = Duration::from_nanos(index * 1_000_000_000 / rate);
        if let Some(left) = due.checked_sub(origin.elapsed()) {
            thread::sleep(left);
        }
        let stamp = (due.as_nanos() as u64).to_be_bytes();
        message[stamp_at..stamp_at + 8].copy_from_slice(&stamp);
        socket.write_all(&message)?;
    }
    Ok(total)
}

fn receive(
    proto: Proto,
    mut socket: TcpStream,
    mut held: Vec<u8>,
    origin: Instant,
    warm_up: Duration,
    sent: &AtomicU64,
) -> Result<Delays> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut chunk = vec![0; 64 * 1024];
    let mut delays = Delays { sorted: Vec::with_capacity(1 << 17), lost: 0 };
    let (mut received, mut last_arrival) = (0, Instant::now());
    loop {
        let total = sent.load(Ordering::Acquire);
        let given_up = total != RUNNING && last_arrival.elapsed() > PATIENCE;
        if total != RUNNING && (received >= total || given_up) {
            delays.lost = total.saturating_sub(received);
            delays.sorted.sort_unstable();
            return Ok(delays);
        }
        match socket.read(&mut chunk) {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(read) => held.extend_from_slice(&chunk[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        last_arrival = Instant::now();
        let now = origin.elapsed().as_nanos() as u64;
        let mut note = |payload: &[u8]| {
            received += 1;
            if payload.len() >= 8 && be64(payload) >= warm_up.as_nanos() as u64 {
                delays.sorted.push(now.saturating_sub(be64(payload)));
            }
        };
        let used = match proto {
            Proto::Amqp => amqp::scan(&held, |event| {
                if let amqp::Event::Message(body) = event {
                    note(body);
                }
            }),
            Proto::Mqtt(version) => mqtt::scan(version, &held, |event| {
                if let mqtt::Event::Message { payload, .. } = event {
                    note(payload);
                }
            }),
            Proto::Http | Proto::WebMqtt | Proto::Xmpp => bail!("there is no such row"),
            Proto::Stomp => stomp::scan(&held, |event| {
                if let stomp::Event::Message { payload, .. } = event {
                    note(payload);
                }
            }),
        }?;
        held.drain(..used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_the_sorted_delays() {
        let delays = Delays { sorted: (1..=101).map(|n| n * 1000).collect(), lost: 0 };
        assert_eq!(delays.quantile_us(0.5), Some(51.0));
        assert_eq!(delays.quantile_us(0.99), Some(100.0));
        assert_eq!(Delays { sorted: Vec::new(), lost: 0 }.quantile_us(0.5), None);
    }
}
