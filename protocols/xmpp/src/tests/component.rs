//! The stream to a server that we join: XEP-0114.

use polymq_contract::{Account, Login, ProtocolSession};

use super::*;

const SERVER: &str = "<stream:stream xmlns='jabber:component:accept' id='3BF96D32' from='mq.d' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

fn joined() -> World {
    let account = Some(Account::Configured(UserName::new("remote").unwrap()));
    let mut world = World::with(&component(), Peer { account, ..peer() });
    let said = world.pass(0);
    assert!(said.contains("xmlns='jabber:component:accept'") && said.contains("to='mq.d'"));
    let said = world.say(SERVER);
    // The digest of the id and the secret `s`.
    assert_eq!(said, format!("<handshake>{}</handshake>", crate::sha1::hex(b"3BF96D32s")));
    world.say("<handshake/>");
    let command = world.command();
    let Command::Authenticate { request, login } = command else { panic!("{command:?}") };
    assert_eq!(*login, Login::Configured);
    world.answer(request, authenticated("remote"));
    let request = world.request();
    world.answer(request, Ok(Answer::VhostOpened));
    world
}

#[test]
fn component_joins_and_answers_users_of_the_server() {
    let mut world = joined();
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let said = world.say(&format!("<iq type='get' id='1' from='a@x/r' to='mq.d'>{ping}</iq>"));
    assert_eq!(said, "<iq type='result' id='1' from='mq.d' to='a@x/r'/>");
    world.say("<message from='a@x/r' to='q+orders@mq.d'><body>hi</body></message>");
    let command = world.command();
    let Command::Publish(publish) = command else { panic!("{command:?}") };
    assert_eq!((publish.message.exchange(), publish.message.key()), ("", "orders"));
    assert_eq!(publish.message.body(), b"hi");
}

#[test]
fn server_that_refuses_ends_the_stream() {
    let mut world = World::with(&component(), peer());
    world.pass(0);
    world.say(SERVER);
    world.say(
        "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
         </stream:error>",
    );
    assert!(world.is_closed());
}

#[test]
fn server_that_says_nothing_is_left() {
    let mut world = World::with(&component(), peer());
    world.pass(0);
    world.pass(11_000);
    assert!(world.is_closed());
    assert_eq!(world.session.next_timeout(), None);
}

#[test]
fn stanza_without_a_sender_ends_the_stream() {
    let mut world = joined();
    let said = world.say("<message to='q+orders@mq.d'><body>hi</body></message>");
    assert!(said.contains("<invalid-from") && world.is_closed(), "{said}");
}
