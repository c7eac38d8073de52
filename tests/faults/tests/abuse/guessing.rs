//! Case A5: passwords tried over all protocols.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use polymq_faults::{
    amqp::Amqp,
    broker::Home,
    mqtt,
    report::say,
    talk::{STREAM, Talk, connect_from},
    web::Page,
};

use crate::served::Honest;

/// Failures of a user from an address within a minute, by default.
const FAILURES_MAX: usize = 20;
const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Ways to log in.
const WAYS: usize = 6;

/// A text in base64.
fn coded(text: &str) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for piece in text.as_bytes().chunks(3) {
        let at = |n: usize| u32::from(piece.get(n).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for sign in 0..4 {
            let index = (bits >> (18 - 6 * sign)) & 63;
            out.push(if sign > piece.len() { '=' } else { SIGNS[index as usize].into() });
        }
    }
    out
}

/// Tries to log in over one of the protocols; true when that works.
fn log_in(
    ports: polymq_faults::broker::Ports,
    way: usize,
    from: [u8; 4],
    user: &str,
    password: &str,
) -> bool {
    let dial = |port| Talk::over(connect_from(from, port).unwrap()).unwrap();
    match way % WAYS {
        0 => {
            let mut client = dial(ports.stomp);
            let frame = format!(
                "CONNECT\naccept-version:1.2\nhost:/\nlogin:{user}\npasscode:{password}\n\n\0"
            );
            client.say(&frame).unwrap();
            client.hear("\0").unwrap_or_default().contains("CONNECTED")
        }
        1 => {
            let mut client = dial(ports.xmpp);
            client.say(STREAM).unwrap();
            client.hear("</stream:features>").unwrap();
            client
                .say(&polymq_faults::talk::plain(&coded(&format!("\0{user}\0{password}"))))
                .unwrap();
            client.hear(">").unwrap_or_default().starts_with("<success")
        }
        2 => {
            let mut client = dial(ports.mqtt);
            let mut body = mqtt::text(b"MQTT");
            body.extend([4, 0b1100_0010, 0, 0]);
            for text in ["guess", user, password] {
                body.extend(mqtt::text(text.as_bytes()));
            }
            client.write(&mqtt::packet(0x10, &body)).unwrap();
            let mut answer = [1; 4];
            client.stream.read_exact(&mut answer).is_ok_and(|()| answer[3] == 0)
        }
        3 => {
            let mut client = dial(ports.http);
            let login = coded(&format!("{user}:{password}"));
            let request = format!(
                "GET /api/v1/vhosts/~/queues HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Authorization: Basic {login}\r\n\r\n"
            );
            client.say(&request).unwrap();
            client.hear("\r\n").unwrap().contains(" 200 ")
        }
        4 => {
            let stream = connect_from(from, ports.http).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            Page::over(stream).unwrap().log_in(user, password).unwrap()
        }
        _ => {
            let stream = connect_from(from, ports.amqp).unwrap();
            Amqp::log_in_over(stream, user, password).unwrap().is_some()
        }
    }
}

#[test]
fn a05_all_protocols_count_failures_together() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    for way in 0..WAYS {
        assert!(log_in(broker.ports, way, HERE, "guest", "guest"), "way {way} works");
    }
    for number in 0..FAILURES_MAX {
        assert!(!log_in(broker.ports, number, HERE, "guest", "wrong"), "way {number}");
    }
    for way in 0..WAYS {
        let is_in = log_in(broker.ports, way, HERE, "guest", "guest");
        assert!(!is_in, "way {way} lets a guess in after {FAILURES_MAX} failures");
        let is_in = log_in(broker.ports, way, ELSEWHERE, "guest", "guest");
        assert!(is_in, "way {way}: others have not failed");
    }
    let failed = |protocol: &str| {
        let name =
            format!("polymq_auth_attempts_total{{protocol=\"{protocol}\",result=\"failed\"}}");
        broker.metric(&name).unwrap()
    };
    for protocol in ["amqp", "mqtt", "stomp", "xmpp", "http"] {
        assert!(failed(protocol) >= 3.0, "{protocol}: {}", failed(protocol));
    }
    honest.is_served();
    assert!(broker.is_alive());
}

#[test]
fn a05_guesses_do_not_hold_up_those_who_are_in() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let (ports, before) = (broker.ports, broker.resident_kib().unwrap());
    let began = Instant::now();
    let guessing: Vec<_> = (0..8)
        .map(|thread: usize| {
            std::thread::spawn(move || {
                let mut count = 0;
                while began.elapsed() < Duration::from_secs(4) {
                    // Each name is counted on its own, so that the pool of hashes is what limits.
                    let user = format!("nobody-{thread}-{count}");
                    log_in(ports, thread + count, HERE, &user, "guess");
                    count += 1;
                }
                count
            })
        })
        .collect();
    while began.elapsed() < Duration::from_secs(4) {
        honest.is_served();
    }
    let count: usize = guessing.into_iter().map(|thread| thread.join().unwrap()).sum();
    let grown = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    say(&format!(
        "A5: {count} guesses in 4 s: {grown} MiB, slowest honest round trip {} ms",
        honest.slowest.as_millis()
    ));
    assert!(grown < 256, "{grown} MiB");
    assert!(honest.slowest < Duration::from_secs(2), "{:?}", honest.slowest);
    assert!(broker.is_alive());
}

#[test]
fn a05_unknown_users_take_as_long_as_known_ones() {
    let mut home = Home::new().unwrap();
    home.always(&["--set", "auth.login_failures_per_minute=0"]);
    let broker = home.start().unwrap();
    // The password of `guest` is public, and costs nothing to try. In turn, so that both meet what
    // else the machine has to do.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..21 {
        for (user, times) in ["admin", "nobody"].into_iter().zip(&mut times) {
            let began = Instant::now();
            assert!(!log_in(broker.ports, 0, HERE, user, "wrong"));
            times.push(began.elapsed());
        }
    }
    let [known, unknown] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    say(&format!("A5: wrong password {known:?}, unknown user {unknown:?}"));
    assert!(known < unknown * 3 && unknown < known * 3, "{known:?} and {unknown:?}");
}
