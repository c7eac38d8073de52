//! Addresses of XMPP (RFC 7622), and what they address here.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use polymq_model::address::{
    Address, JID_PART_BYTES_MAX, TOPIC_EXCHANGE, local_from_name, local_from_user, name_from_local,
};

use crate::xml::is_legal;

/// An address: a local part, a domain, a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Jid {
    /// What stands before the `@`; empty for none.
    pub local: String,
    /// The domain, in lower case.
    pub domain: String,
    /// What stands behind the `/`; empty for none.
    pub resource: String,
}

impl Jid {
    /// Reads an address; local part and domain become lower case, as preparing them would.
    ///
    /// `None` when a part is empty, too long, or holds what none may hold.
    pub fn parse(text: &str) -> Option<Self> {
        let (bare, resource) = match text.split_once('/') {
            Some((_, "")) => return None,
            Some((bare, resource)) => (bare, resource),
            None => (text, ""),
        };
        let (local, domain) = match bare.split_once('@') {
            Some(("", _)) => return None,
            Some((local, domain)) => (local, domain),
            None => ("", bare),
        };
        let fits = |part: &str| {
            part.len() <= JID_PART_BYTES_MAX && !part.contains(|c: char| c.is_control())
        };
        let is_local = !local.contains([' ', '"', '&', '\'', ':', '<', '>', '@']);
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let is_domain = !domain.is_empty() && !domain.contains([' ', '@', '\\']);
        let is_whole = [local, domain, resource].into_iter().all(fits) && is_local && is_domain;
        is_whole.then(|| Self {
            local: local.to_lowercase(),
            domain: domain.to_lowercase(),
            resource: resource.to_owned(),
        })
    }

    /// The address of a user in a domain.
    pub fn of_user(user: &str, domain: &str) -> Self {
        let (local, domain) = (local_from_user(user), domain.to_owned());
        Self { local, domain, resource: String::new() }
    }

    /// The address without its resource.
    pub fn bare(&self) -> Self {
        Self { resource: String::new(), ..self.clone() }
    }

    /// The address with another resource.
    pub fn with_resource(&self, resource: impl Into<String>) -> Self {
        Self { resource: resource.into(), ..self.clone() }
    }

    /// True without a resource.
    pub fn is_bare(&self) -> bool {
        self.resource.is_empty()
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.local.is_empty() {
            write!(f, "{}@", self.local)?;
        }
        f.write_str(&self.domain)?;
        if !self.resource.is_empty() {
            write!(f, "/{}", self.resource)?;
        }
        Ok(())
    }
}

/// A service whose addresses stand for names of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Queues.
    Queues,
    /// Topics, which are PubSub nodes.
    Topics,
    /// Rooms.
    Rooms,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queues, Self::Topics, Self::Rooms];

    fn word(self) -> &'static str {
        match self {
            Self::Queues => "queues",
            Self::Topics => "topics",
            Self::Rooms => "rooms",
        }
    }

    /// What local parts begin with where one domain holds all services.
    fn prefix(self) -> &'static str {
        match self {
            Self::Queues => "q+",
            Self::Topics => "t+",
            Self::Rooms => "r+",
        }
    }
}

/// What an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The server itself, or a component with all services.
    Server,
    /// A user, who need not exist.
    User,
    /// A service.
    Service(Service),
    /// A queue, a topic in dot form, or a room, by name.
    Named(Service, String),
    /// Nothing of ours.
    Elsewhere,
}

/// The domains that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domains {
    /// A server with users, and a domain below its own for each service.
    Server(String),
    /// A component whose one domain holds all services.
    Component(String),
}

impl Domains {
    /// The domain that the others are below of.
    pub fn base(&self) -> &str {
        match self {
            Self::Server(domain) | Self::Component(domain) => domain,
        }
    }

    /// The address of a service.
    pub fn service(&self, service: Service) -> String {
        match self {
            Self::Server(domain) => format!("{}.{domain}", service.word()),
            Self::Component(domain) => domain.clone(),
        }
    }

    /// What `jid` stands for.
    pub fn place(&self, jid: &Jid) -> Place {
        match self {
            Self::Server(domain) if jid.domain == *domain => match jid.local.is_empty() {
                true => Place::Server,
                false => Place::User,
            },
            Self::Server(domain) => {
                let word = jid.domain.strip_suffix(domain.as_str());
                let word = word.and_then(|word| word.strip_suffix('.'));
                let service = Service::ALL.into_iter().find(|s| Some(s.word()) == word);
                service
                    .map_or(Place::Elsewhere, |service| named(service, &jid.local, &jid.resource))
            }
            Self::Component(domain) if jid.domain == *domain => {
                let part = if jid.local.is_empty() { &jid.resource } else { &jid.local };
                let found = Service::ALL
                    .into_iter()
                    .find_map(|service| Some((service, part.strip_prefix(service.prefix())?)));
                match found {
                    Some((service, name)) if jid.local.is_empty() => named(service, "", name),
                    Some((service, name)) => named(service, name, &jid.resource),
                    None if part.is_empty() => Place::Server,
                    None => Place::Elsewhere,
                }
            }
            Self::Component(_) => Place::Elsewhere,
        }
    }

    /// The address of a queue, a topic or a room.
    pub fn address(&self, service: Service, name: &str) -> Jid {
        let (prefix, domain) = match self {
            Self::Server(_) => ("", self.service(service)),
            Self::Component(domain) => (service.prefix(), domain.clone()),
        };
        let (local, resource) = match local_from_name(name) {
            Some(local) => (format!("{prefix}{local}"), String::new()),
            None => (String::new(), format!("{prefix}{}", resource_from_name(name))),
        };
        Jid { local, domain, resource }
    }

    /// What answers to `jid` are sent to.
    pub fn reply_address(&self, jid: &Jid) -> Address {
        match self.place(jid) {
            Place::Named(Service::Queues, name) => Address::Queue(name),
            Place::Named(Service::Topics, key) => {
                Address::Exchange { exchange: TOPIC_EXCHANGE.to_owned(), key: Some(key) }
            }
            Place::Named(Service::Rooms, name) => {
                let (exchange, key) = (TOPIC_EXCHANGE.to_owned(), Some(room_key(&name)));
                Address::Exchange { exchange, key }
            }
            Place::Server | Place::User | Place::Service(_) | Place::Elsewhere => {
                Address::Jid(jid.to_string())
            }
        }
    }

    /// The address of XMPP that a reply address is; `None` when it has none.
    pub fn jid_of(&self, address: &Address) -> Option<String> {
        match address {
            Address::Queue(name) => Some(self.address(Service::Queues, name).to_string()),
            Address::Exchange { exchange, key: Some(key) } if exchange == TOPIC_EXCHANGE => {
                Some(self.address(Service::Topics, key).to_string())
            }
            Address::Jid(jid) => Some(jid.clone()),
            Address::Exchange { .. } | Address::Opaque(_) => None,
        }
    }
}

fn named(service: Service, local: &str, resource: &str) -> Place {
    // The resource of a room is the nickname of an occupant.
    let name = match (service, local) {
        (_, "") if resource.is_empty() => return Place::Service(service),
        (_, "") => name_from_resource(resource),
        (Service::Rooms, local) => Some(name_from_local(local).into_owned()),
        (_, local) if resource.is_empty() => Some(name_from_local(local).into_owned()),
        _ => None,
    };
    name.map_or(Place::Elsewhere, |name| Place::Named(service, name))
}

/// The name as a text that no preparing changes: itself, or `~` and base64url.
pub fn resource_from_name(name: &str) -> String {
    // Peers put letters and the marks on them together, so what has marks is not left to them.
    let is_mark = |c: char| matches!(c, '\u{300}'..='\u{36F}' | '\u{1100}'..='\u{11FF}');
    let is_kept = |c: char| is_legal(c) && !c.is_control() && !is_mark(c);
    let is_plain = !name.is_empty()
        && !name.starts_with('~')
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && name.len() <= JID_PART_BYTES_MAX
        && name.chars().all(is_kept);
    match is_plain {
        true => name.to_owned(),
        false => format!("~{}", BASE64_URL_SAFE_NO_PAD.encode(name)),
    }
}

/// The name behind such a text; `None` when it is none.
pub fn name_from_resource(text: &str) -> Option<String> {
    match text.strip_prefix('~') {
        Some(encoded) => String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

/// The routing key of a room.
pub fn room_key(room: &str) -> String {
    // The name is one level, whatever it holds.
    format!("rooms.{}", room.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server() -> Domains {
        Domains::Server("d".to_owned())
    }

    #[test]
    fn addresses_are_read_and_written() {
        let jid = Jid::parse("U1@D.example/Phone x/y@z").unwrap();
        assert_eq!(jid.to_string(), "u1@d.example/Phone x/y@z");
        for bad in ["", "@d", "u@", "u@d/", "a b@d", "u@d@e", "u@\u{1}"] {
            assert_eq!(Jid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn upper_case_queue_goes_into_the_resource() {
        let jid = |name: &str| server().address(Service::Queues, name).to_string();
        assert_eq!(jid("orders"), "orders@queues.d");
        assert_eq!(jid("Orders"), "queues.d/Orders");
        assert_eq!(jid("a/b"), "a\\2fb@queues.d");
        assert_eq!(jid("~x"), "queues.d/~fng");
        let component = Domains::Component("c".to_owned());
        assert_eq!(component.address(Service::Topics, "a.b").to_string(), "t+a.b@c");
        assert_eq!(component.address(Service::Queues, "Q").to_string(), "c/q+Q");
    }

    #[test]
    fn places_of_the_server_are_told_apart() {
        let place = |jid: &str| server().place(&Jid::parse(jid).unwrap());
        assert_eq!(place("d"), Place::Server);
        assert_eq!(place("u@d/r"), Place::User);
        assert_eq!(place("topics.d"), Place::Service(Service::Topics));
        assert_eq!(place("ops@rooms.d/nick"), Place::Named(Service::Rooms, "ops".into()));
        assert_eq!(place("xqueues.d"), Place::Elsewhere);
        assert_eq!(place("other.org"), Place::Elsewhere);
        assert_eq!(room_key("a.b"), "rooms.a/b");
    }

    proptest! {
        #![proptest_config(crate::test_config(256))]
        #[test]
        fn every_name_has_an_address_that_leads_back(
            name in "[a-zA-Z~ /@.é\u{301}\u{1}:&'\\\\25cf]{1,16}",
        ) {
            for domains in [server(), Domains::Component("c".to_owned())] {
                for service in [Service::Queues, Service::Topics] {
                    let text = domains.address(service, &name).to_string();
                    let jid = Jid::parse(&text);
                    prop_assert_eq!(
                        jid.map(|jid| domains.place(&jid)),
                        Some(Place::Named(service, name.clone())),
                        "{}", text
                    );
                }
            }
        }
    }
}
