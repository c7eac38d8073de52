//! Who sees whose presence (RFC 6121, section 3). Both sides are ours, so both rosters change here.

use polymq_model::UserName;

use super::{iq::Route, presence::presence};
use crate::{
    directory::{roster::Item, user_of},
    jid::Jid,
    session::{Session, Turn},
};

/// Two users.
struct Pair {
    me: String,
    mine: Jid,
    contact: String,
    theirs: Jid,
}

impl Session {
    /// Changes a contact in the roster of a user, tells the user's clients, and stores it. Returns
    /// what the contact was before.
    fn change_contact(
        &self,
        user: &str,
        contact: &str,
        change: impl FnOnce(&mut Item),
        turn: &mut Turn<'_>,
    ) -> Item {
        let changed = self.here().with_roster(user, |roster| {
            let before = roster.get(contact).cloned().unwrap_or_default();
            let version = roster.version;
            let push = roster.change(contact, change);
            let stored = (roster.version != version).then(|| (roster.version, roster.to_text()));
            ((before, stored), push.into_iter().collect())
        });
        let Some((before, stored)) = changed else { return Item::default() };
        if let (Some((version, text)), Ok(user)) = (stored, UserName::new(user)) {
            super::roster::store(user, version, text, turn);
        }
        before
    }

    /// Asking for, giving and taking away the sight of presence: RFC 6121, section 3. Both sides
    /// are ours, so both rosters are changed here.
    pub(super) fn on_subscription(&mut self, kind: String, route: &Route, turn: &mut Turn<'_>) {
        let domain = self.shared.domains.base().to_owned();
        let Some(contact) = user_of(&route.to, &domain) else { return };
        let me = self.user.clone();
        self.with_roster(me, turn, move |session, turn| {
            let other = contact.clone();
            session.with_roster(contact, turn, move |session, turn| {
                session.change_subscription(&kind, &other, turn);
            });
        });
    }

    fn change_subscription(&mut self, kind: &str, contact: &str, turn: &mut Turn<'_>) {
        let domain = self.shared.domains.base();
        let pair = Pair {
            me: self.user.clone(),
            mine: self.jid.bare(),
            contact: contact.to_owned(),
            theirs: Jid::of_user(contact, domain),
        };
        match kind {
            "subscribe" => self.subscribe(&pair, turn),
            "subscribed" => self.approve(&pair, turn),
            "unsubscribe" => self.unsubscribe(&pair, turn),
            _ => self.refuse(&pair, turn),
        }
    }

    /// Changes both sides: the contact in the user's roster, and the user in the contact's. Returns
    /// what both were before.
    fn change_pair(
        &self,
        pair: &Pair,
        mine: impl FnOnce(&mut Item),
        theirs: impl FnOnce(&mut Item),
        turn: &mut Turn<'_>,
    ) -> (Item, Item) {
        let own = self.change_contact(&pair.me, &pair.theirs.to_string(), mine, turn);
        let other = self.change_contact(&pair.contact, &pair.mine.to_string(), theirs, turn);
        (own, other)
    }

    fn tell_contact(&self, pair: &Pair, kind: &'static str) {
        let stanza = presence(Some(kind), &pair.mine).attr("to", pair.theirs.to_string());
        self.here().pass_to_available(&pair.contact, None, &stanza);
    }

    /// The user asks to see the presence of the contact.
    fn subscribe(&mut self, pair: &Pair, turn: &mut Turn<'_>) {
        let mine = pair.mine.to_string();
        let theirs =
            self.change_contact(&pair.contact, &mine, |item| item.pending_in = !item.from, turn);
        let may_see = theirs.from;
        let asks = |item: &mut Item| {
            item.ask = !item.to && !may_see;
            item.to |= may_see;
        };
        self.change_contact(&pair.me, &pair.theirs.to_string(), asks, turn);
        if !may_see {
            return self.tell_contact(pair, "subscribe");
        }
        // RFC 6121, section 3.1.3: who may see already is told so at once.
        let told = presence(Some("subscribed"), &pair.theirs).attr("to", mine);
        self.send(&told, turn);
        for (resource, mut stanza) in self.here().available(&pair.contact) {
            stanza.set("from", pair.theirs.with_resource(resource).to_string());
            stanza.set("to", self.jid.to_string());
            self.send(&stanza, turn);
        }
    }

    /// The user lets the contact, who has asked, see their presence.
    fn approve(&self, pair: &Pair, turn: &mut Turn<'_>) {
        let approves = |item: &mut Item| {
            item.from |= item.pending_in;
            item.pending_in = false;
        };
        let own = self.change_contact(&pair.me, &pair.theirs.to_string(), approves, turn);
        if !own.pending_in {
            return;
        }
        let sees = |item: &mut Item| {
            item.to |= item.ask;
            item.ask = false;
        };
        self.change_contact(&pair.contact, &pair.mine.to_string(), sees, turn);
        self.tell_contact(pair, "subscribed");
        for (resource, mut stanza) in self.here().available(&pair.me) {
            stanza.set("from", pair.mine.with_resource(resource).to_string());
            self.here().pass_to_available(&pair.contact, None, &stanza);
        }
    }

    /// The user no longer wants to see the presence of the contact.
    fn unsubscribe(&self, pair: &Pair, turn: &mut Turn<'_>) {
        let (own, _) = self.change_pair(
            pair,
            |item| (item.to, item.ask) = (false, false),
            |item| (item.from, item.pending_in) = (false, false),
            turn,
        );
        if own.to || own.ask {
            self.tell_contact(pair, "unsubscribe");
        }
    }

    /// The user no longer lets the contact see their presence, or has never done so.
    fn refuse(&self, pair: &Pair, turn: &mut Turn<'_>) {
        let (own, _) = self.change_pair(
            pair,
            |item| (item.from, item.pending_in) = (false, false),
            |item| (item.to, item.ask) = (false, false),
            turn,
        );
        if !own.from && !own.pending_in {
            return;
        }
        self.tell_contact(pair, "unsubscribed");
        for (resource, _) in self.here().available(&pair.me) {
            let gone = presence(Some("unavailable"), &pair.mine.with_resource(resource));
            self.here().pass_to_available(&pair.contact, None, &gone);
        }
    }

    /// Takes both directions of a subscription away: a contact was removed.
    pub(super) fn end_subscriptions(&mut self, jid: &Jid, item: &Item, turn: &mut Turn<'_>) {
        let place = self.shared.domains.place(jid);
        let route = Route { from: self.jid.clone(), to: jid.clone(), place };
        if item.to || item.ask {
            self.on_subscription("unsubscribe".to_owned(), &route, turn);
        }
        if item.from || item.pending_in {
            self.on_subscription("unsubscribed".to_owned(), &route, turn);
        }
    }
}
