//! Stream management (XEP-0198), silence, and what clients tell each other.

use polymq_contract::{ProtocolSession, PublishOutcome};
use polymq_model::{Durability, PublisherId};

use super::{queues::consume, *};
use crate::directory::{Word, tell};

const SM: &str = "urn:xmpp:sm:3";

fn confirm(world: &mut World, first: u64, last: u64, outcome: PublishOutcome) -> String {
    world.event(Event::Confirmed { publisher: PublisherId(0), first, last, outcome })
}

fn enable(world: &mut World) -> String {
    world.say(&format!("<enable xmlns='{SM}' resume='true'/>"))
}

#[test] // XEP-0198, section 4, and the confirm of a publisher.
fn stanza_counts_once_its_message_is_durable() {
    let mut world = World::bound();
    enable(&mut world);
    world.say("<message to='a@topics.d'><body>1</body></message>");
    world.say("<message to='a@topics.d'><body>2</body></message>");
    assert_eq!(world.effects.commands.len(), 2);
    let said = world.say(&format!("<r xmlns='{SM}'/>"));
    assert_eq!(said, format!("<a xmlns='{SM}' h='0'/>"), "nothing is safe yet");
    assert_eq!(confirm(&mut world, 2, 2, PublishOutcome::Routed(Durability::Sync)), "");
    let said = confirm(&mut world, 1, 1, PublishOutcome::Routed(Durability::Sync));
    assert_eq!(said, format!("<a xmlns='{SM}' h='2'/>"));
    let said = world.say(&format!("<r xmlns='{SM}'/>"));
    assert_eq!(said, format!("<a xmlns='{SM}' h='2'/>"));
}

#[test]
fn refused_publish_is_an_error_and_counts() {
    let mut world = World::bound();
    enable(&mut world);
    world.say("<message id='m' to='a@queues.d'><body>1</body></message>");
    let said = confirm(&mut world, 1, 1, PublishOutcome::Unrouted);
    assert!(said.contains("type='error' id='m'") && said.contains("<item-not-found"), "{said}");
    let said = world.say(&format!("<r xmlns='{SM}'/>"));
    assert!(said.contains("h='1'"), "{said}");
    world.say("<message id='n' to='a@queues.d'><body>1</body></message>");
    let full = PublishOutcome::Refused(RefusalKind::Full);
    let said = confirm(&mut world, 2, 2, full);
    assert!(said.contains("<resource-constraint") && said.contains("type='wait'"), "{said}");
    world.say("<message id='o' to='a@queues.d'><body>1</body></message>");
    let said = confirm(&mut world, 3, 3, PublishOutcome::Refused(RefusalKind::StoreFailed));
    assert!(said.contains("<internal-server-error") && world.is_closed(), "{said}");
}

#[test]
fn acknowledgement_settles_deliveries() {
    let mut world = World::bound();
    enable(&mut world);
    let (consumer, said) = consume(&mut world, "");
    assert!(said.contains("from='q@queues.d'"), "{said}");
    world.deliver(consumer, 1, "one");
    let said = world.deliver(consumer, 2, "two");
    assert!(said.contains("<data"), "{said}");
    assert!(world.effects.commands.is_empty(), "nothing is settled when it is written");
    // The answer to the presence, and two messages.
    world.say(&format!("<a xmlns='{SM}' h='3'/>"));
    let command = world.command();
    let Command::Settle(settled) = command else { panic!("{command:?}") };
    assert_eq!((settled.deliveries.first, settled.deliveries.last), (1, 2));
    let said = world.say(&format!("<a xmlns='{SM}' h='9'/>"));
    assert!(said.contains("<undefined-condition") && world.is_closed(), "{said}");
    let counts = format!("<handled-count-too-high xmlns='{SM}' h='9' send-count='3'/>");
    assert!(said.contains(&counts), "{said}");
}

#[test] // XEP-0198, section 5.
fn stream_goes_on_over_another_socket() {
    let mut world = World::bound();
    let said = enable(&mut world);
    assert!(said.contains("resume='true'") && said.contains("max='300'"), "{said}");
    let key = world.effects.resumable.take().expect("a key");
    let (consumer, _) = consume(&mut world, "");
    assert!(world.session.on_socket_lost(world.now()));
    assert_eq!(world.deliver(consumer, 1, "while away"), "", "there is nobody to tell");
    let id = key.rsplit_once('\0').unwrap().1.to_owned();

    let mut next =
        World::with(&Xmpp { shared: world.session.shared.clone(), component: None }, peer());
    next.log_in("u");
    let said = next.say(&format!("<resume xmlns='{SM}' previd='{id}' h='1'/>"));
    assert_eq!(said, "", "the stream that goes on will answer");
    assert_eq!(next.effects.resume, Some(key));

    assert_eq!(world.hear(), "", "the socket is on its way");
    let now = world.now();
    world.session.on_socket_gained(now, &mut world.effects);
    let said = world.said();
    assert!(said.starts_with(&format!("<resumed xmlns='{SM}'")), "{said}");
    assert!(said.contains("previd='") && said.contains("<data"), "{said}");
    let said = world.say("<iq type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(said.contains("id='p'"), "{said}");
}

#[test]
fn only_the_user_itself_resumes_a_stream() {
    let xmpp = Xmpp::new(settings());
    let mut world = World::bound_at(&xmpp, "u", "r");
    enable(&mut world);
    let key = world.effects.resumable.take().expect("a key");
    let id = key.rsplit_once('\0').unwrap().1.to_owned();
    let mut other = World::with(&xmpp, peer());
    other.log_in("v");
    for id in [&id, "unknown", ""] {
        let said = other.say(&format!("<resume xmlns='{SM}' previd='{id}' h='0'/>"));
        assert!(said.contains("<failed") && said.contains("<item-not-found"), "{said}");
        assert_eq!(other.effects.resume, None);
    }
    let vhost = VhostName::new("other").unwrap();
    let mut elsewhere = World::with(&xmpp, Peer { vhost, ..peer() });
    elsewhere.log_in("u");
    let said = elsewhere.say(&format!("<resume xmlns='{SM}' previd='{id}' h='0'/>"));
    assert!(said.contains("<item-not-found"), "{said}");
}

#[test]
fn stream_that_nobody_resumes_ends_and_gives_back() {
    let mut world = World::bound();
    enable(&mut world);
    let (consumer, _) = consume(&mut world, "");
    world.deliver(consumer, 1, "x");
    assert!(world.session.on_socket_lost(world.now()));
    world.pass(299_000);
    assert!(!world.is_closed());
    world.pass(2000);
    assert!(world.is_closed());
    let is_returned = world.effects.commands.iter().any(|command| {
        matches!(command, Command::Settle(s) if s.outcome == polymq_contract::Outcome::Failed)
    });
    assert!(is_returned, "{:?}", world.effects.commands);
}

#[test]
fn stream_without_resumption_ends_with_its_socket() {
    let mut world = World::bound();
    assert!(!world.session.on_socket_lost(world.now()));
    let said = world.say(&format!("<enable xmlns='{SM}'/>"));
    assert_eq!(said, format!("<enabled xmlns='{SM}'/>"));
    assert!(!world.session.on_socket_lost(world.now()));
    let said = world.say(&format!("<enable xmlns='{SM}'/>"));
    assert!(said.contains("<unexpected-request"), "{said}");
}

#[test] // XEP-0199, and silence after it.
fn silent_client_is_asked_and_then_lost() {
    let mut world = World::bound();
    assert_eq!(world.pass(59_000), "");
    let said = world.pass(2000);
    assert!(said.contains("<ping xmlns='urn:xmpp:ping'/>"), "{said}");
    world.say("<iq type='result' id='ping' to='d'/>");
    world.pass(61_000);
    assert!(!world.is_closed());
    let said = world.pass(61_000);
    assert!(said.contains("<connection-timeout") && world.is_closed(), "{said}");
}

#[test] // XEP-0280.
fn other_resources_see_what_one_sends() {
    let xmpp = Xmpp::new(settings());
    let mut phone = World::bound_at(&xmpp, "u", "phone");
    let mut desk = World::bound_at(&xmpp, "u", "desk");
    phone.say("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    desk.say("<message type='chat' to='v@d'><body>hi</body></message>");
    let said = phone.hear();
    assert!(said.contains("<sent xmlns='urn:xmpp:carbons:2'>") && said.contains("hi"), "{said}");
    let private = "<private xmlns='urn:xmpp:carbons:2'/>";
    desk.say(&format!("<message type='chat' to='v@d'><body>x</body>{private}</message>"));
    desk.say("<message to='v@d'><x xmlns='y'/></message>");
    assert_eq!(phone.hear(), "");
    desk.say("<message to='v@d'><body>normal</body></message>");
    assert!(phone.hear().contains("normal"));
}

#[test] // RFC 6121, section 8.5.3: between clients.
fn requests_pass_between_clients() {
    let xmpp = Xmpp::new(settings());
    let mut one = World::bound_at(&xmpp, "u", "r");
    let mut two = World::bound_at(&xmpp, "v", "r");
    one.say("<iq type='get' id='1' to='v@d/r'><x xmlns='y'/></iq>");
    let said = two.hear();
    assert!(said.contains("from='u@d/r'") && said.contains("to='v@d/r'"), "{said}");
    two.say("<iq type='result' id='1' to='u@d/r'/>");
    assert!(one.hear().contains("type='result'"));
}

#[test]
fn mailbox_belongs_to_the_resource_that_listens_best() {
    let xmpp = Xmpp::new(settings());
    let mut low = World::bound_at(&xmpp, "u", "low");
    let mut high = World::bound_at(&xmpp, "u", "high");
    low.say("<presence/>");
    low.effects.commands.clear();
    low.hear();
    let consumes =
        |world: &World| world.effects.commands.iter().any(|c| matches!(c, Command::Consume(_)));
    assert!(consumes(&low));
    high.say("<presence><priority>5</priority></presence>");
    high.hear();
    assert!(consumes(&high));
    low.effects.commands.clear();
    low.hear();
    assert!(low.effects.commands.iter().any(|c| matches!(c, Command::Cancel { .. })));
    high.say("<presence><priority>-1</priority></presence>");
    low.effects.commands.clear();
    low.hear();
    assert!(consumes(&low), "who says -1 wants no messages");
}

#[test]
fn mailbox_and_presence_of_another_virtual_host_are_others() {
    let xmpp = Xmpp::new(settings());
    let vhost = VhostName::new("other").unwrap();
    let mut here = World::bound_at(&xmpp, "u", "r");
    let mut there = World::bound_over(&xmpp, Peer { vhost, ..peer() }, "u", "r");
    assert_eq!((here.hear(), here.is_closed()), (String::new(), false), "not replaced");
    let consumes = |world: &mut World| {
        world.effects.commands.clear();
        world.hear();
        world.effects.commands.iter().any(|c| matches!(c, Command::Consume(_)))
    };
    here.say("<presence/>");
    there.say("<presence><priority>5</priority></presence>");
    assert!(consumes(&mut here), "the mailbox of its virtual host");
    assert!(consumes(&mut there), "the mailbox of the other one");
    here.effects.commands.clear();
    assert_eq!(here.hear(), "", "it sees nothing of the other one");
    let said = there.say("<iq type='get' id='1' to='u@d/s'><x xmlns='y'/></iq>");
    assert!(said.contains("<service-unavailable"), "{said}");
    there.say("</stream:stream>");
    here.hear();
    assert!(here.effects.commands.is_empty(), "{:?}", here.effects.commands);
}

#[test] // XEP-0198, section 5: what is not counted comes again.
fn stream_goes_on_once_everything_that_has_come_is_counted() {
    let mut world = World::bound();
    enable(&mut world);
    world.say("<message to='a@topics.d'><body>1</body></message>");
    assert!(world.session.on_socket_lost(world.now()));
    let counters = Arc::clone(&world.session.shared.counters);
    tell(&counters, &world.outbox, Word::Resume(0));
    assert_eq!(world.hear(), "");
    let now = world.now();
    world.session.on_socket_gained(now, &mut world.effects);
    assert_eq!(world.said(), "", "the message is not safe yet");
    let early = "<iq type='get' id='p' to='d'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(world.say(early), "", "nothing is read before");
    let said = confirm(&mut world, 1, 1, PublishOutcome::Routed(Durability::Sync));
    let (resumed, answer) = (said.find("<resumed"), said.find("id='p'"));
    assert!(said.contains("h='1'") && resumed.is_some() && resumed < answer, "{said}");
}

#[test] // RFC 6121, section 8.5.3: what a resource does not take is for the others.
fn message_for_a_resource_comes_back_when_its_stream_ends() {
    let mut world = World::bound();
    enable(&mut world);
    let resource = ConsumerId(1);
    assert!(world.deliver(resource, 1, "x").contains("<message"));
    assert!(world.effects.commands.is_empty(), "nothing is settled when it is written");
    assert!(world.session.on_socket_lost(world.now()));
    world.pass(301_000);
    let is_returned = |command: &Command| {
        matches!(command, Command::Settle(s)
            if s.outcome == polymq_contract::Outcome::Failed && s.consumer == resource)
    };
    assert!(world.effects.commands.iter().any(is_returned), "{:?}", world.effects.commands);
}

#[test] // XEP-0198, section 3.
fn stream_management_begins_after_binding() {
    let mut world = World::with(&Xmpp::new(settings()), peer());
    world.log_in("u");
    let said = enable(&mut world);
    assert!(said.contains("<failed") && said.contains("<unexpected-request"), "{said}");
    assert!(!world.is_closed());
    let said = world.pass(31_000);
    assert!(said.contains("<connection-timeout") && world.is_closed(), "{said}");
}

#[test]
fn receiver_who_does_not_read_costs_a_bounded_amount() {
    let xmpp = Xmpp::new(settings());
    let victim = World::bound_at(&xmpp, "v", "r");
    let mut flood = World::bound_at(&xmpp, "u", "r");
    let text = "x".repeat(15_000);
    for _ in 0..2000 {
        flood.say(&format!("<presence to='v@d/r'><status>{text}</status></presence>"));
        flood.say(&format!("<message type='headline' to='v@d/r'><body>{text}</body></message>"));
    }
    assert!(victim.outbox.bytes() < 17 * 1024 * 1024, "{}", victim.outbox.bytes());
    assert!(xmpp.shared.counters.not_kept.value() > 2000);
    let said = flood.say("<iq type='get' id='1' to='v@d/r'><x xmlns='y'/></iq>");
    assert!(said.contains("<resource-constraint") && said.contains("type='wait'"), "{said}");
}
