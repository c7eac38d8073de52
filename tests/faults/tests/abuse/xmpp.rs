//! Cases A2, A7, A10 and A11 over XMPP.

use std::io::Read;

use polymq_faults::{
    amqp,
    broker::Home,
    report::say,
    talk::{STREAM, Talk, plain},
};

use crate::served::Honest;

const START_TLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// XML that no stream may hold, or no parser should take, with the error of the stream.
fn attacks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let deep = "<a>".repeat(100_000);
    let wide: String = (0..200).map(|number| format!(" a{number}='x'")).collect();
    let namespaces: String = (0..120).map(|n| format!(" xmlns:n{n}='urn:n{n}'")).collect();
    let long = "v".repeat(64 * 1024);
    let entities = "<!DOCTYPE lol [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]><message>&b;</message>";
    vec![
        ("DTD", b"<!DOCTYPE x [<!ELEMENT x ANY>]>".to_vec(), "restricted-xml"),
        ("entities in entities", entities.into(), "restricted-xml"),
        ("an entity", b"<message><body>&xxe;</body></message>".to_vec(), "restricted-xml"),
        ("comment", b"<message><!-- x --></message>".to_vec(), "restricted-xml"),
        ("processing instruction", b"<message><?php x ?></message>".to_vec(), "restricted-xml"),
        ("100,000 levels", deep.into(), "policy-violation"),
        ("200 attributes", format!("<message{wide}/>").into(), "policy-violation"),
        ("attribute of 64 KiB", format!("<message a='{long}'/>").into(), "policy-violation"),
        ("name of 64 KiB", format!("<{long}/>").into(), "policy-violation"),
        ("attribute twice", b"<message a='1' a='2'/>".to_vec(), "not-well-formed"),
        ("prefix that is not declared", b"<x:message/>".to_vec(), "not-well-formed"),
        ("character that XML has not", b"<message>&#0;</message>".to_vec(), "not-well-formed"),
        ("no UTF-8", b"<message>\xFF</message>".to_vec(), "not-well-formed"),
        ("end that was not begun", b"<message></presence>".to_vec(), "not-well-formed"),
        ("stanza of 2 MiB", ["<message>", &"x".repeat(2 << 20)].concat().into(), "policy"),
        ("120 namespaces, 50 times", format!("<m{namespaces}>").repeat(50).into(), "policy"),
    ]
}

#[test]
fn a10_xml_that_attacks_ends_its_stream() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    for (name, bytes, condition) in attacks() {
        let said = Talk::xmpp(broker.ports.xmpp, "r").unwrap().refused(&bytes).unwrap();
        let error = said.split("<stream:error>").nth(1);
        let error = error.unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(error.contains(condition), "{name}: {error}");
        assert!(said.ends_with("</stream:stream>"), "{name}: {said}");
        say(&format!("A10: XMPP {name}: {condition}"));
        honest.is_served();
    }
    // Strangers may say less.
    for (name, bytes, _) in attacks() {
        let mut stranger = Talk::dial(broker.ports.xmpp).unwrap();
        stranger.say(STREAM).unwrap();
        let said = stranger.refused(&bytes).unwrap();
        assert!(said.contains("<stream:error>"), "{name}: {said}");
        honest.is_served();
    }
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!("A10: {grown} KiB after {} attacks", 2 * attacks().len()));
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert!(broker.is_alive());
}

#[test]
fn a02_xmpp_streams_that_lie_are_closed() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    for (name, bytes) in [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("another element", b"<message to='x'/>".to_vec()),
        ("another namespace", b"<stream:stream xmlns:stream='urn:x' version='1.0'>".to_vec()),
        ("header without end", ["<stream:stream a='", &"x".repeat(20_000)].concat().into()),
        ("binary", (0..=255).collect()),
        ("white space for ever", vec![b' '; 64 * 1024]),
    ] {
        let said = Talk::dial(broker.ports.xmpp).unwrap().refused(&bytes);
        let said = said.unwrap_or_else(|error| panic!("{name}: {error}"));
        say(&format!("A2: XMPP {name}: {} bytes in answer", said.len()));
        honest.is_served();
    }
    // Stanzas before login, logins that are none.
    for (name, text) in [
        ("message", "<message to='guest@localhost'><body>x</body></message>".to_owned()),
        ("bind", "<iq type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>".to_owned()),
        ("no base64", plain("!!!")),
        ("no PLAIN", plain("AAAA")),
        ("endless login", plain(&"A".repeat(20_000))),
    ] {
        let mut stranger = Talk::dial(broker.ports.xmpp).unwrap();
        stranger.say(STREAM).unwrap();
        stranger.hear("</stream:features>").unwrap();
        stranger.say(&text).unwrap();
        let said = stranger.hear(">").unwrap();
        let is_refused = said.starts_with("<failure") || said.starts_with("<stream:error");
        assert!(is_refused, "{name}: {said}");
        honest.is_served();
    }
    assert!(broker.is_alive());
}

#[test]
fn a02_xmpp_memory_follows_what_was_sent() {
    let home = Home::new().unwrap();
    let broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let count = 200;
    let mut kept: Vec<_> = (0..count)
        .map(|number| Talk::xmpp(broker.ports.xmpp, &format!("r{number}")).unwrap())
        .collect();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    for client in &mut kept {
        client.say("<message to='guest@localhost'><body a='").unwrap();
    }
    honest.is_served();
    let grown = broker.resident_kib().unwrap().saturating_sub(before);
    say(&format!("A2: {count} open attributes of XMPP take {grown} KiB"));
    assert!(grown < 4 * 1024, "{grown} KiB");
}

/// Sends requests of 4 KiB, up to 64 MiB, to somebody who does not read them, for as long as the
/// broker takes them; returns how many it took.
fn flood(sender: &mut Talk, to: &str, mut between: impl FnMut()) -> usize {
    let text = "x".repeat(4096);
    for number in 0..16_384 {
        let stanza =
            format!("<iq type='get' id='{number}' to='{to}'><q xmlns='urn:x'>{text}</q></iq>");
        match sender.write(stanza.as_bytes()) {
            Ok(()) => {}
            Err(_) => return number,
        }
        if number % 512 == 0 {
            between();
        }
    }
    16_384
}

#[test]
fn a07_xmpp_clients_that_flood_each_other_and_never_read_cost_bounded_memory() {
    let home = Home::new().unwrap();
    let mut broker = home.start().unwrap();
    let mut honest = Honest::new(&broker);
    let lazy = Talk::xmpp(broker.ports.xmpp, "lazy").unwrap();
    let mut reading = Talk::xmpp(broker.ports.xmpp, "reading").unwrap();
    let mut deaf = Talk::xmpp(broker.ports.xmpp, "deaf").unwrap();
    honest.is_served();
    let before = broker.resident_kib().unwrap();
    // One who reads is told that there is no room any more.
    let mut answers = reading.stream.try_clone().unwrap();
    let ends_by = std::thread::spawn(move || {
        let (mut said, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        while !String::from_utf8_lossy(&said).contains("id='end'") {
            let keep = said.len().saturating_sub(1 << 16);
            said.drain(..keep);
            match answers.read(&mut piece) {
                Ok(count @ 1..) => said.extend(&piece[..count]),
                other => panic!("{other:?} instead of the end"),
            }
        }
        String::from_utf8_lossy(&said).contains("<resource-constraint")
    });
    let sent = flood(&mut reading, "guest@localhost/lazy", || honest.is_served());
    reading.say("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>").unwrap();
    assert!(ends_by.join().unwrap(), "the flood of {sent} was taken");
    let by_one = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    // One who does not even read the refusals is not read any more, or has to go.
    deaf.stream.set_write_timeout(Some(std::time::Duration::from_secs(3))).unwrap();
    let taken = flood(&mut deaf, "guest@localhost/lazy", || honest.is_served());
    honest.is_served();
    let by_both = broker.resident_kib().unwrap().saturating_sub(before) / 1024;
    say(&format!(
        "A7: {sent} requests of 4 KiB to a lazy XMPP client grew the broker by {by_one} MiB; \
         {taken} more from one who reads no refusals, by {by_both} MiB; slowest honest round trip \
         {} ms",
        honest.slowest.as_millis()
    ));
    // Who does not read costs 16 MiB, and what is around each stanza.
    assert!(by_one < 48, "{by_one} MiB");
    assert!(by_both < 80, "{by_both} MiB");
    drop((lazy, deaf));
    assert!(broker.is_alive());
}

#[test]
fn a11_bytes_behind_starttls_end_the_stream() {
    let certificates = crate::tls::Files::new();
    let mut home = Home::new().unwrap();
    let flags = certificates.flags();
    home.always(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    home.always(&["--set", "listeners.xmpp.starttls=test"]);
    let mut broker = home.start().unwrap();
    let mut client = Talk::dial(broker.ports.xmpp).unwrap();
    client.say(STREAM).unwrap();
    assert!(client.hear("</stream:features>").unwrap().contains("<starttls"));
    // What stands behind would otherwise count as if it had come encrypted.
    let injected = plain("AGd1ZXN0AGd1ZXN0");
    let said = client.refused([START_TLS, &injected].concat().as_bytes()).unwrap();
    assert!(!said.contains("<success"), "{said}");
    say(&format!("A11: XMPP behind <starttls/>: {said:?}"));

    // The header with which AMQP 0-9-1 clients would ask for TLS is one of an unknown version.
    let said = Talk::dial(broker.ports.amqp).unwrap();
    let said = said.refused(b"AMQP\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x04").unwrap();
    assert_eq!(said.as_bytes(), amqp::PROTOCOL_HEADER);
    assert!(broker.is_alive());
}
