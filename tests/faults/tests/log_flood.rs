//! Case K27: more lines for the log than anybody takes.
#![expect(clippy::unwrap_used, reason = "a case that goes wrong ends the test")]

use std::{
    fs::File,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::{self, Amqp, Incoming},
    broker::Home,
    mqtt::{Login, Mqtt},
    report::{say, setting},
};

/// Each connection makes some lines. Meanwhile messages go their way.
fn flood(case: &str, home: &Home) {
    let rounds = setting("POLYMQ_FLOOD", 3000);
    let broker = home.start_with(&["--set", "logging.level=trace"]).unwrap();
    let mut client = Amqp::open(broker.ports.amqp).unwrap();
    client.declare("q").unwrap();
    client.confirm_select().unwrap();
    client.consume("q", 0).unwrap();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let login = Login { level: 4, client_id: "flood", clean: true };
        drop(Mqtt::open(broker.ports.mqtt, login).unwrap());
        if round % 10 > 0 {
            continue;
        }
        let asked = Instant::now();
        client.send(&amqp::publish("", "q", &round.to_be_bytes())).unwrap();
        let (mut confirmed, mut delivered) = (false, None);
        while !confirmed || delivered.is_none() {
            match client.next_event().unwrap().unwrap() {
                Incoming::Method(id, _) => confirmed = id == (60, 80),
                Incoming::Delivery(found) => delivered = Some(found),
            }
        }
        let delivered = delivered.unwrap();
        assert_eq!(delivered.body, round.to_be_bytes());
        client.ack(delivered.tag, false).unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    let dropped = broker.metric("polymq_log_lines_dropped_total").unwrap();
    say(&format!(
        "{case}: {rounds} connections, {dropped} lines dropped, slowest message {} ms",
        slowest.as_millis()
    ));
    assert!(dropped > 0.0, "nothing was dropped, so nothing is proved");
    client.close().unwrap();
    assert!(broker.stop().unwrap().success());
}

#[test]
fn k27_a_log_on_a_full_disk_holds_nobody_up() {
    let mut home = Home::new().unwrap();
    // The device of the system that is always full.
    home.log_to(PathBuf::from("/dev/full"));
    flood("K27 full", &home);
}

#[test]
fn k27_a_log_that_nobody_reads_holds_nobody_up() {
    let mut home = Home::new().unwrap();
    let pipe = home.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // It has a reader, which does not read.
    let _reader = File::options().read(true).write(true).open(&pipe).unwrap();
    home.log_to(pipe);
    flood("K27 unread", &home);
}
