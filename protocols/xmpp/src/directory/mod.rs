//! Who is there: what sessions tell each other beside messages. One short lock, no I/O.
//!
//! Words go through the outbox of a connection, so they keep their order with everything else that
//! the connection hears.
//!
//! A user and the roster are the same in every virtual host. Resources are there in one: those of
//! another neither see each other nor share a mailbox, because each has its own queue for it.

pub(crate) mod room;
pub(crate) mod roster;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::{Mutex, MutexGuard};
use polymq_contract::{Counters, Event, Outbox, Passed};
use polymq_model::VhostName;

use crate::{
    jid::Jid,
    xml::{Element, ns},
};
use room::Room;
use roster::Roster;

/// What one session tells another.
#[derive(Debug)]
pub(crate) enum Word {
    /// Send this to the client. `to` is whom it is for where one session speaks for many.
    Stanza(Element),
    /// The mailbox is yours now, or no longer.
    Mailbox(bool),
    /// Somebody else has bound your resource.
    Replaced,
    /// The client has come back over another connection and has seen this many stanzas.
    Resume(u32),
    /// An item of the roster has changed.
    Roster(Element, u64),
}

/// Bytes that may wait for a session before stanzas of others to it are dropped.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The sessions of everybody.
pub(crate) struct Directory {
    inner: Mutex<Inner>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Inner {
    users: HashMap<String, User>,
    /// The rooms of each virtual host: topics, of which others know nothing.
    rooms: HashMap<VhostName, HashMap<String, Room>>,
    /// Streams that may be resumed, by their keys.
    streams: HashMap<Box<str>, Arc<Outbox>>,
    order: u64,
}

#[derive(Default)]
struct User {
    resources: Vec<Resource>,
    roster: Option<Roster>,
}

struct Resource {
    vhost: VhostName,
    name: String,
    outbox: Arc<Outbox>,
    /// Its last available presence.
    presence: Option<Element>,
    priority: i8,
    /// Place in the order of becoming available.
    since: u64,
    wants_carbons: bool,
    wants_roster: bool,
    has_mailbox: bool,
}

/// Says a word to the session behind an outbox. False for a stanza that is dropped, and counted,
/// because too much waits there already.
pub(crate) fn tell(counters: &Counters, outbox: &Outbox, word: Word) -> bool {
    let is_full = outbox.bytes() >= WAITING_BYTES_MAX;
    let bytes = match &word {
        Word::Stanza(_) | Word::Roster(..) if is_full => {
            counters.not_kept.add(1);
            return false;
        }
        // A session that does not hear what it must know cannot go on.
        Word::Mailbox(_) | Word::Replaced if is_full => {
            outbox.evict();
            return false;
        }
        Word::Stanza(stanza) | Word::Roster(stanza, _) => weight(stanza),
        Word::Mailbox(_) | Word::Replaced | Word::Resume(_) => 0,
    };
    outbox.push(Event::Passed(Passed { word: Arc::new(word), bytes }));
    true
}

/// How a stanza fared that was passed to one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedTo {
    /// It is on its way.
    Passed,
    /// The resource does not read what waits for it already.
    Full,
    /// There is no such resource.
    Nobody,
}

fn weight(element: &Element) -> usize {
    let attributes: usize = element.attributes.iter().map(|a| a.value.len()).sum();
    let nodes: usize = element
        .nodes
        .iter()
        .map(|node| match node {
            crate::xml::Node::Element(child) => weight(child),
            crate::xml::Node::Text(text) => text.len(),
        })
        .sum();
    size_of::<Element>().saturating_add(attributes).saturating_add(nodes)
}

impl Directory {
    /// Nobody is there yet.
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        Self { inner: Mutex::default(), counters: Arc::clone(counters) }
    }

    /// Who is there in a virtual host.
    pub(crate) fn at<'a>(&'a self, vhost: &'a VhostName) -> Here<'a> {
        Here { directory: self, vhost }
    }
}

/// Who is there in one virtual host, and what is the same in all of them.
#[derive(Clone, Copy)]
pub(crate) struct Here<'a> {
    directory: &'a Directory,
    vhost: &'a VhostName,
}

impl Here<'_> {
    /// Enters a resource; whoever had it before is told to go.
    pub(crate) fn enter(&self, user: &str, resource: &str, outbox: &Arc<Outbox>) {
        let mut inner = self.inner();
        let resources = &mut inner.users.entry(user.to_owned()).or_default().resources;
        if let Some(at) = resources.iter().position(|other| other.is(self.vhost, resource)) {
            tell(self.counters(), &resources.remove(at).outbox, Word::Replaced);
        }
        resources.push(Resource {
            vhost: self.vhost.clone(),
            name: resource.to_owned(),
            outbox: Arc::clone(outbox),
            presence: None,
            priority: 0,
            since: 0,
            wants_carbons: false,
            wants_roster: false,
            has_mailbox: false,
        });
        inner.elect(user, self.vhost, self.counters());
    }

    /// Removes a resource, if it still belongs to this connection.
    pub(crate) fn leave(&self, user: &str, resource: &str, outbox: &Arc<Outbox>) {
        let mut inner = self.inner();
        let Some(entry) = inner.users.get_mut(user) else { return };
        entry
            .resources
            .retain(|other| !other.is(self.vhost, resource) || !Arc::ptr_eq(&other.outbox, outbox));
        if entry.resources.is_empty() {
            inner.users.remove(user);
        } else {
            inner.elect(user, self.vhost, self.counters());
        }
    }

    /// Notes the presence of a resource; `None` when it is not available.
    pub(crate) fn set_presence(&self, user: &str, resource: &str, presence: Option<Element>) {
        let mut inner = self.inner();
        inner.order = inner.order.wrapping_add(1);
        let order = inner.order;
        let Some(found) = inner.resource(user, self.vhost, resource) else { return };
        let priority = presence.as_ref().and_then(|p| p.content_of(ns::CLIENT, "priority"));
        found.priority = priority.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if found.presence.is_none() {
            found.since = order;
        }
        found.presence = presence;
        inner.elect(user, self.vhost, self.counters());
    }

    /// The available resources of a user, with their presence.
    pub(crate) fn available(&self, user: &str) -> Vec<(String, Element)> {
        let inner = self.inner();
        inner
            .resources(user, self.vhost)
            .filter_map(|r| Some((r.name.clone(), r.presence.clone()?)))
            .collect()
    }

    /// True when the user has a resource with this name.
    pub(crate) fn has_resource(&self, user: &str, resource: &str) -> bool {
        self.inner().resource(user, self.vhost, resource).is_some()
    }

    /// Switches carbons of a resource.
    pub(crate) fn set_carbons(&self, user: &str, resource: &str, wants: bool) {
        if let Some(found) = self.inner().resource(user, self.vhost, resource) {
            found.wants_carbons = wants;
        }
    }

    /// The resource has asked for its roster, so it hears of changes.
    pub(crate) fn set_wants_roster(&self, user: &str, resource: &str) {
        if let Some(found) = self.inner().resource(user, self.vhost, resource) {
            found.wants_roster = true;
        }
    }

    /// Passes a stanza to one resource.
    pub(crate) fn pass_to(&self, user: &str, resource: &str, stanza: Element) -> PassedTo {
        let mut inner = self.inner();
        let Some(found) = inner.resource(user, self.vhost, resource) else {
            return PassedTo::Nobody;
        };
        match tell(self.counters(), &found.outbox, Word::Stanza(stanza)) {
            true => PassedTo::Passed,
            false => PassedTo::Full,
        }
    }

    /// Passes a stanza to the available resources of a user, other than `but`; returns how many.
    pub(crate) fn pass_to_available(
        &self,
        user: &str,
        but: Option<&str>,
        stanza: &Element,
    ) -> usize {
        self.pass_where(user, stanza, |r| r.presence.is_some() && Some(r.name.as_str()) != but)
    }

    /// Passes a stanza to the resources that take messages: with a priority that is not negative.
    pub(crate) fn pass_to_listening(&self, user: &str, stanza: &Element) -> usize {
        self.pass_where(user, stanza, |r| r.presence.is_some() && r.priority >= 0)
    }

    /// Passes a stanza to the resource that has the mailbox.
    pub(crate) fn pass_to_active(&self, user: &str, stanza: &Element) -> usize {
        self.pass_where(user, stanza, |r| r.has_mailbox)
    }

    /// Passes a copy to the other resources that want carbons.
    pub(crate) fn pass_carbon(&self, user: &str, but: &str, stanza: &Element) -> usize {
        self.pass_where(user, stanza, |r| r.wants_carbons && r.name != but)
    }

    fn pass_where(&self, user: &str, stanza: &Element, wants: impl Fn(&Resource) -> bool) -> usize {
        let inner = self.inner();
        let mut count: usize = 0;
        for resource in inner.resources(user, self.vhost).filter(|r| wants(r)) {
            tell(self.counters(), &resource.outbox, Word::Stanza(stanza.clone()));
            count = count.saturating_add(1);
        }
        count
    }

    /// Changes a roster that has been loaded; `None` when it has not. What the change returns as
    /// pushes goes to all resources that want to know.
    pub(crate) fn with_roster<R>(
        &self,
        user: &str,
        change: impl FnOnce(&mut Roster) -> (R, Vec<Element>),
    ) -> Option<R> {
        let mut inner = self.inner();
        let entry = inner.users.get_mut(user)?;
        let roster = entry.roster.as_mut()?;
        let (result, pushes) = change(roster);
        let version = roster.version;
        for push in pushes {
            for resource in entry.resources.iter().filter(|r| r.wants_roster) {
                tell(self.counters(), &resource.outbox, Word::Roster(push.clone(), version));
            }
        }
        Some(result)
    }

    /// True when the roster of a user is here.
    pub(crate) fn has_roster(&self, user: &str) -> bool {
        self.inner().users.get(user).is_some_and(|user| user.roster.is_some())
    }

    /// Brings a roster; one that is here already is newer.
    pub(crate) fn load_roster(&self, user: &str, roster: Roster) {
        let mut inner = self.inner();
        inner.users.entry(user.to_owned()).or_default().roster.get_or_insert(roster);
    }

    /// Forgets what is known of a user who is not there.
    pub(crate) fn forget(&self, user: &str) {
        let mut inner = self.inner();
        if inner.users.get(user).is_some_and(|user| user.resources.is_empty()) {
            inner.users.remove(user);
        }
    }

    /// Enters a stream that may be resumed.
    pub(crate) fn enter_stream(&self, key: &str, outbox: &Arc<Outbox>) {
        self.inner().streams.insert(key.into(), Arc::clone(outbox));
    }

    /// Where the stream with this key hears.
    pub(crate) fn stream(&self, key: &str) -> Option<Arc<Outbox>> {
        self.inner().streams.get(key).cloned()
    }

    /// The stream ends.
    pub(crate) fn leave_stream(&self, key: &str) {
        self.inner().streams.remove(key);
    }

    /// Works on the rooms.
    pub(crate) fn rooms<R>(&self, work: impl FnOnce(&mut HashMap<String, Room>) -> R) -> R {
        work(self.inner().rooms.entry(self.vhost.clone()).or_default())
    }

    fn counters(&self) -> &Counters {
        &self.directory.counters
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.directory.inner.lock()
    }
}

impl Resource {
    fn is(&self, vhost: &VhostName, name: &str) -> bool {
        self.name == name && self.vhost == *vhost
    }
}

impl Inner {
    /// The resources of a user that are there in a virtual host.
    fn resources<'a>(
        &'a self,
        user: &str,
        vhost: &'a VhostName,
    ) -> impl Iterator<Item = &'a Resource> {
        let resources = self.users.get(user).map(|user| user.resources.as_slice());
        resources.unwrap_or_default().iter().filter(move |resource| resource.vhost == *vhost)
    }

    fn resource(&mut self, user: &str, vhost: &VhostName, resource: &str) -> Option<&mut Resource> {
        let resources = &mut self.users.get_mut(user)?.resources;
        resources.iter_mut().find(|other| other.is(vhost, resource))
    }

    /// Gives the mailbox to the available resource with the highest priority that is not negative;
    /// among equals, to the one that came last.
    fn elect(&mut self, user: &str, vhost: &VhostName, counters: &Counters) {
        let here = self.resources(user, vhost);
        let listening = here.filter(|r| r.presence.is_some() && r.priority >= 0);
        let best = listening.max_by_key(|r| (r.priority, r.since)).map(|r| r.name.clone());
        let Some(entry) = self.users.get_mut(user) else { return };
        // The earlier one hears of it first, so that what it gives back is there for the next.
        for wins in [false, true] {
            for resource in entry.resources.iter_mut().filter(|r| r.vhost == *vhost) {
                let is_best = best.as_ref() == Some(&resource.name);
                if is_best == wins && resource.has_mailbox != wins {
                    resource.has_mailbox = wins;
                    tell(counters, &resource.outbox, Word::Mailbox(wins));
                }
            }
        }
    }
}

/// An outbox that nobody reads, for sessions that were never opened by a driver.
pub(crate) fn nowhere() -> Arc<Outbox> {
    static NOWHERE: OnceLock<Arc<Outbox>> = OnceLock::new();
    let outbox = NOWHERE.get_or_init(|| {
        let outbox = Outbox::new(1);
        outbox.close();
        Arc::new(outbox)
    });
    Arc::clone(outbox)
}

/// The user whose address this is, if it is one of the domain's.
pub(crate) fn user_of(jid: &Jid, domain: &str) -> Option<String> {
    let is_ours = jid.domain == domain && !jid.local.is_empty();
    is_ours.then(|| polymq_model::address::user_from_local(&jid.local)).flatten()
}
