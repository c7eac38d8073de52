//! Section 12: direct replies.

use polymq_contract::{Answer, Command, Consume, RefusalKind};
use polymq_model::ConsumerId;

use crate::{
    cancel, try_declare,
    world::{Client, World, consume_of, kind_of},
};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Waits for replies and returns the name they are sent to.
fn await_replies(client: &mut Client) -> String {
    let consume = Consume { no_ack: true, ..consume_of(REPLY_TO, 1, 0) };
    let answer = client.ask(|request| Command::Consume(Box::new(Consume { request, ..consume })));
    match answer {
        Answer::Consuming { reply_name } => reply_name.expect("a name"),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn waiting_for_replies_with_acknowledgement_is_refused() {
    let world = World::new();
    let mut client = world.connect();
    let refused = client.try_ask(|request| {
        Command::Consume(Box::new(Consume { request, ..consume_of(REPLY_TO, 1, 0) }))
    });
    assert_eq!(kind_of(refused), RefusalKind::Conflict);
}

#[test]
fn a_reply_reaches_whoever_asked_and_nobody_else() {
    let world = World::new();
    let (mut one, mut two, mut server) = (world.connect(), world.connect(), world.connect());
    let (first, second) = (await_replies(&mut one), await_replies(&mut two));
    assert_ne!(first, second);
    server.publish("", &first, "for one");
    server.publish("", &second, "for two");
    assert_eq!((one.bodies(), two.bodies()), (vec!["for one".into()], vec!["for two".into()]));
}

#[test]
fn a_passive_declaration_of_the_name_tells_whether_the_requester_is_still_there() {
    let world = World::new();
    let (mut asker, mut server) = (world.connect(), world.connect());
    let name = await_replies(&mut asker);
    let ask = |server: &mut Client| try_declare(server, &name, &[], |d| d.passive = true);
    ask(&mut server).expect("it is there");
    cancel(&mut asker, 1);
    assert_eq!(kind_of(ask(&mut server)), RefusalKind::NotFound);
}

#[test]
fn a_reply_to_somebody_who_is_gone_is_dropped() {
    let world = World::new();
    let (mut asker, mut server) = (world.connect(), world.connect());
    let name = await_replies(&mut asker);
    asker.disconnect();
    server.events();
    server.publish("", &name, "too late");
    assert!(server.events().is_empty());
    assert!(world.broker.queues().is_empty(), "replies make no queues");
}

#[test]
fn a_released_channel_waits_for_no_replies_any_more() {
    let world = World::new();
    let (mut asker, mut server) = (world.connect(), world.connect());
    let name = await_replies(&mut asker);
    asker.send(Command::Release { consumers: vec![ConsumerId(1)] });
    server.publish("", &name, "too late");
    assert!(asker.bodies().is_empty());
}
