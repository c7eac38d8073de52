//! Streams, TLS, SASL and binding: RFC 6120, sections 4 to 7.

use polymq_contract::{
    Login, Mechanisms, Offer, PasswordsInClear, ProtocolSession, RefusalKind, ScramHash,
};

use super::*;

#[track_caller]
fn ends_with(world: &mut World, text: &str, condition: &str) {
    let said = world.say(text);
    assert!(said.contains(&format!("<{condition} xmlns=")), "{text}: {said}");
    assert!(said.ends_with("</stream:stream>") && world.is_closed(), "{text}: {said}");
}

#[test] // Section 4.9.3.
fn stream_errors_name_what_is_wrong() {
    for (head, condition) in [
        ("<stream to='d' version='1.0' xmlns='jabber:client'>", "invalid-namespace"),
        (&HEAD.replace("to='d'", "to='other'"), "host-unknown"),
        (&HEAD.replace("version='1.0' x", "x"), "unsupported-version"),
        ("<stream:stream>", "not-well-formed"),
        ("<!DOCTYPE a><a>", "restricted-xml"),
    ] {
        ends_with(&mut World::new(), head, condition);
    }
    for (text, condition) in [
        ("<a><b></a>", "not-well-formed"),
        ("<!-- hi -->", "restricted-xml"),
        ("<?pi hi?>", "restricted-xml"),
        ("<a>&foo;</a>", "restricted-xml"),
        ("<message to='u@d'><body>x</body></message>", "not-authorized"),
        (&format!("<a b='{}", "x".repeat(9000)), "policy-violation"),
        (&format!("<a>{}", "x".repeat(9000)), "policy-violation"),
        (&"<a>".repeat(100_000), "policy-violation"),
    ] {
        let mut world = World::new();
        world.say(HEAD);
        ends_with(&mut world, text, condition);
    }
}

#[test] // Section 4.6: white space between stanzas.
fn white_space_keeps_a_stream_alive() {
    let mut world = World::bound();
    for _ in 0..100_000 {
        assert_eq!(world.say(" "), "");
    }
    assert!(!world.is_closed());
}

#[test]
fn stanzas_may_come_in_pieces() {
    let mut world = World::bound();
    let text = "<iq type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>";
    let said: String = text.chars().map(|c| world.say(&c.to_string())).collect();
    assert_eq!(said, "<iq type='result' id='p' from='d' to='u@d/r'/>");
}

#[test] // Section 5.4.
fn tls_is_offered_and_begins_a_new_stream() {
    let mut world = World::with(&Xmpp::new(settings()), Peer { offers_tls: true, ..peer() });
    let said = world.say(HEAD);
    assert!(said.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{said}");
    let said = world.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\n<iq/>");
    assert_eq!(said, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert!(world.effects.start_tls && world.effects.waiting);
    assert_eq!(&world.input[..], b"<iq/>", "what comes before the handshake is left for refusal");
    world.input.clear();
    world.effects.start_tls = false;
    world.session.on_secured(&Arc::new(tls_peer()));
    let said = world.say(HEAD);
    assert!(!said.contains("starttls"), "{said}");
    assert!(said.contains("<mechanism>SCRAM-SHA-256-PLUS</mechanism>"), "{said}");
    assert!(said.contains("<channel-binding type='tls-exporter'/>"), "{said}");
}

#[test] // Section 5.4.2.2.
fn tls_that_is_not_offered_fails() {
    let mut world = World::new();
    world.say(HEAD);
    let said = world.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert!(said.starts_with("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{said}");
    assert!(world.is_closed());
}

#[test] // Section 6.5.
fn login_failures_name_what_is_wrong() {
    let of = |text: &str| BASE64_STANDARD.encode(text);
    let auth = |mechanism: &str, data: &str| {
        format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{data}</auth>")
    };
    for (text, condition) in [
        (auth("MAGIC", "="), "invalid-mechanism"),
        (auth("SCRAM-SHA-256-PLUS", "="), "invalid-mechanism"),
        (auth("EXTERNAL", "="), "invalid-mechanism"),
        (auth("PLAIN", "%%"), "incorrect-encoding"),
        (auth("PLAIN", &of("\0u")), "malformed-request"),
        (auth("PLAIN", &of("other@d\0u\0p")), "invalid-authzid"),
        (format!("<response xmlns='{SASL}'/>"), "malformed-request"),
        (format!("<abort xmlns='{SASL}'/>"), "aborted"),
    ] {
        let mut world = World::new();
        world.say(HEAD);
        let said = world.say(&text);
        assert!(said.contains(&format!("<{condition}/>")), "{text}: {said}");
        assert!(!world.is_closed(), "the client may try again");
    }
}

#[test]
fn wrong_password_is_refused_and_the_third_ends_the_stream() {
    let mut world = World::new();
    world.say(HEAD);
    for attempt in 1..=3 {
        let plain = BASE64_STANDARD.encode("u@d\0u\0wrong");
        world.say(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>"));
        assert!(world.effects.waiting, "nothing is read meanwhile");
        let command = world.command();
        let Command::Authenticate { request, login } = command else { panic!("{command:?}") };
        assert!(matches!(*login, Login::Password { ref user, .. } if user == "u"));
        let said = world.answer(request, refused(RefusalKind::LoginFailed));
        assert!(said.contains("<not-authorized/>"), "{said}");
        assert_eq!(world.is_closed(), attempt == 3);
    }
}

#[test] // RFC 5802 over section 6.4.
fn scram_takes_two_steps() {
    let mut world = World::with(&Xmpp::new(settings()), tls_peer());
    world.say(HEAD);
    let first = BASE64_STANDARD.encode("p=tls-exporter,,n=u,r=x");
    world.say(&format!("<auth xmlns='{SASL}' mechanism='SCRAM-SHA-1-PLUS'>{first}</auth>"));
    let command = world.command();
    let Command::Authenticate { request, login } = command else { panic!("{command:?}") };
    let Login::ScramFirst { scram, message } = *login else { panic!("{login:?}") };
    assert_eq!((scram.hash, scram.is_bound), (ScramHash::Sha1, true));
    assert_eq!(message.expose(), b"p=tls-exporter,,n=u,r=x");
    let said = world.answer(request, Ok(Answer::Challenge(b"r=xy".to_vec())));
    assert_eq!(said, format!("<challenge xmlns='{SASL}'>cj14eQ==</challenge>"));
    let last = BASE64_STANDARD.encode("c=,r=xy,p=z");
    world.say(&format!("<response xmlns='{SASL}'>{last}</response>"));
    let request = world.request();
    let user = UserName::new("u").unwrap();
    let (impersonator, server_final) = (false, b"v=ok".to_vec());
    world.answer(request, Ok(Answer::Authenticated { user, impersonator, server_final }));
    let request = world.request();
    let said = world.answer(request, Ok(Answer::VhostOpened));
    assert_eq!(said, format!("<success xmlns='{SASL}'>dj1vaw==</success>"));
}

#[test] // Section 6.4.2: the first message may come on demand.
fn plain_without_its_message_is_asked_for_it() {
    let mut world = World::new();
    world.say(HEAD);
    let said = world.say(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'/>"));
    assert_eq!(said, format!("<challenge xmlns='{SASL}'/>"));
    let plain = BASE64_STANDARD.encode("\0u\0p");
    world.say(&format!("<response xmlns='{SASL}'>{plain}</response>"));
    assert!(matches!(world.command(), Command::Authenticate { .. }));
}

#[test]
fn passwords_in_clear_are_not_asked_for_where_they_are_forbidden() {
    let mut settings = settings();
    let plain_in_clear = PasswordsInClear::Nowhere;
    settings.offer = Offer::new(Mechanisms { plain_in_clear, ..Mechanisms::ALL });
    let xmpp = Xmpp::new(settings);
    assert!(!World::with(&xmpp, peer()).say(HEAD).contains(">PLAIN<"));
    assert!(World::with(&xmpp, tls_peer()).say(HEAD).contains(">PLAIN<"));
}

#[test] // Section 7.
fn resource_is_made_when_none_is_named_and_a_refusal_is_told() {
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    let mut world = World::new();
    world.log_in("U x");
    world.say(&format!("<iq type='set' id='b'>{bind}</iq>"));
    let command = world.command();
    let Command::Consume(consume) = command else { panic!("{command:?}") };
    // A name that is no local part is written in hexadecimal.

    assert!(consume.queue.starts_with("xmpp-mailbox-~552078@d/") && !consume.no_ack);
    let said = world.answer(consume.request, refused(RefusalKind::Limit));
    assert!(said.contains("<resource-constraint"), "{said}");
    assert!(!world.is_closed());
}

#[test] // Section 7.7.2.2: the older of two takes leave.
fn second_connection_of_a_resource_ends_the_first() {
    let xmpp = Xmpp::new(settings());
    let mut first = World::bound_at(&xmpp, "u", "r");
    let _second = World::bound_at(&xmpp, "u", "r");
    let said = first.hear();
    assert!(said.contains("<conflict xmlns=") && first.is_closed(), "{said}");
}

#[test] // Section 8.1.2.1.
fn stanza_of_another_sender_ends_the_stream() {
    let mut world = World::bound();
    world.say("<iq from='u@d' type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(!world.is_closed());
    ends_with(&mut world, "<presence from='other@d/r'/>", "invalid-from");
}

#[test] // Sections 4.9.3.24 and 8.2.3.
fn odd_stanzas_are_told() {
    ends_with(&mut World::bound(), "<stanza/>", "unsupported-stanza-type");
    ends_with(&mut World::bound(), "<x xmlns='y'/>", "unsupported-stanza-type");
    for (text, condition) in [
        ("<iq type='get' to='d'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='get' id='1' to='d'/>", "bad-request"),
        ("<iq type='odd' id='1' to='d'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='get' id='1' to='d'><x xmlns='y'/></iq>", "service-unavailable"),
        ("<iq type='get' id='1' to='v@d/r'><x xmlns='y'/></iq>", "service-unavailable"),
        ("<iq type='get' id='1' to='far.org'><x xmlns='y'/></iq>", "remote-server-not-found"),
        ("<message to='a@b@c' id='1'><body>x</body></message>", "jid-malformed"),
        ("<message to='topics.d' id='1'><body>x</body></message>", "service-unavailable"),
        ("<message to='u2@d' type='groupchat'><body>x</body></message>", "service-unavailable"),
    ] {
        let mut world = World::bound();
        let said = world.say(text);
        assert!(said.contains(&format!("<{condition} xmlns=")), "{text}: {said}");
        assert!(!world.is_closed());
    }
    let mut world = World::bound();
    let said = world.say("<iq type='result' id='1' to='v@d/r'/><message type='error' to='v@d'/>");
    assert_eq!(said, "", "an answer is never answered");
}

#[test]
fn server_that_stops_says_so() {
    let mut world = World::bound();
    let said = world.event(Event::Closing { reason: "bye".into(), shutdown: true });
    assert!(said.contains("<system-shutdown xmlns=") && world.is_closed(), "{said}");
}
