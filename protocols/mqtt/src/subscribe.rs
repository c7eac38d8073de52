//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 to 3.11.

use bytes::BytesMut;
use polymq_contract::{Answer, Command, Effects, Refusal, Subscription, SubscriptionTarget};
use polymq_model::Value;

use crate::{
    ask::{Ask, Collecting},
    codec::{
        Fault, Reason, Version,
        subscribe::{Subscribe, Unsubscribe},
        writer::{put_suback, put_unsuback},
    },
    refusal::codes,
    session::Session,
    subscriptions::Unfit,
};

/// Most bytes of the arguments of a subscription, which its client session remembers.
const ARGUMENTS_BYTES_MAX: usize = 4096;

/// The code of every failure in SUBACK of MQTT 3.1.1.
const FAILURE: u8 = 0x80;

impl Session {
    /// SUBSCRIBE. SUBACK follows when the broker has answered for every filter.
    pub(crate) fn on_subscribe(&mut self, body: &[u8], effects: &mut Effects) -> Result<(), Fault> {
        let packet = Subscribe::decode(body, self.client.version, self.limits.table_entries_max)?;
        let mut collecting = Collecting::new(packet.packet_id, packet.filters.len());
        for (at, filter) in packet.filters.iter().enumerate() {
            let exchange = &self.shared.exchange;
            let prepared = self.subscriptions.prepare(filter, packet.id, exchange, &self.limits);
            match prepared.and_then(|subscription| with_arguments(subscription, &packet.user)) {
                Ok(subscription) => {
                    let is_new = !self.subscriptions.contains(filter.filter);
                    self.subscriptions.insert(&subscription, exchange, &self.limits);
                    let granted = Reason(filter.qos);
                    collecting.expect(granted, filter.filter, is_new);
                    self.send_subscription(subscription, Ask::Subscribe(at), effects);
                }
                Err(Unfit::Fault(fault)) => return Err(fault),
                Err(Unfit::Refused(reason, text)) => {
                    tracing::debug!(
                        event = "subscription_refused",
                        filter = filter.filter,
                        text,
                        "subscription refused"
                    );
                    collecting.settle_at_once(reason);
                }
            }
        }
        self.asked.collecting = Some(Box::new(collecting));
        self.finish_subscribe(effects);
        Ok(())
    }

    fn send_subscription(&mut self, subscription: Subscription, ask: Ask, effects: &mut Effects) {
        let resume = matches!(ask, Ask::Resume(_));
        let request = self.asked.ask(ask);
        let subscription = Box::new(subscription);
        effects.commands.push(Command::Subscribe { request, subscription, resume });
    }

    /// Takes over the subscriptions of an earlier connection. Those of topics are live already.
    pub(crate) fn resume_subscriptions(
        &mut self,
        subscriptions: Vec<Subscription>,
        effects: &mut Effects,
    ) {
        for subscription in subscriptions {
            let exchange = &self.shared.exchange;
            self.subscriptions.insert(&subscription, exchange, &self.limits);
            match subscription.target {
                SubscriptionTarget::Topic { .. } => {}
                SubscriptionTarget::Share { .. } | SubscriptionTarget::Queue { .. } => {
                    let ask = Ask::Resume(subscription.filter.clone());
                    self.send_subscription(subscription, ask, effects);
                }
            }
        }
    }

    /// The broker has answered for one filter of a SUBSCRIBE.
    pub(crate) fn on_subscribed(
        &mut self,
        at: usize,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) {
        let Some(collecting) = &mut self.asked.collecting else { return };
        collecting.due = collecting.due.saturating_sub(1);
        if let Err(refusal) = answer {
            if let Some(code) = collecting.codes.get_mut(at) {
                *code = codes(refusal.kind).suback.0;
            }
            if collecting.fresh.get(at) == Some(&true)
                && let Some(filter) = collecting.filters.get(at)
            {
                self.subscriptions.remove(filter);
            }
            tracing::debug!(
                event = "subscription_refused",
                text = refusal.text,
                "subscription refused"
            );
        }
        self.finish_subscribe(effects);
    }

    fn finish_subscribe(&mut self, effects: &mut Effects) {
        let Some(mut done) = self.asked.collecting.take_if(|collecting| collecting.due == 0) else {
            return;
        };
        if self.client.version == Version::V31 {
            // Section 3.8 of MQTT 3.1: what is not permitted is acknowledged all the same.
            for code in &mut done.codes {
                *code = if Reason(*code) == Reason::NOT_AUTHORIZED { 0 } else { *code };
            }
        }
        let failed = done.codes.iter().any(|code| Reason(*code).is_error());
        match self.client.version {
            Version::V5 => {}
            Version::V311 => {
                for code in &mut done.codes {
                    *code = if Reason(*code).is_error() { FAILURE } else { *code };
                }
            }
            Version::V31 if failed => {
                // SUBACK of MQTT 3.1 has no code for failure.
                return self.close("subscribe_refused", "a subscription was refused", effects);
            }
            Version::V31 => {}
        }
        let mut packet = BytesMut::new();
        put_suback(&mut packet, self.client.version, done.packet_id, &done.codes);
        self.put_answer(&packet, effects);
    }

    /// UNSUBSCRIBE. UNSUBACK follows when the broker has answered for every filter.
    pub(crate) fn on_unsubscribe(
        &mut self,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let packet = Unsubscribe::decode(body, self.client.version, self.limits.table_entries_max)?;
        if packet.filters.contains(&"") {
            return Err(Fault::malformed("a topic filter is empty"));
        }
        let mut collecting = Collecting::new(packet.packet_id, packet.filters.len());
        for (at, filter) in packet.filters.iter().enumerate() {
            if !self.subscriptions.contains(filter) {
                collecting.settle_at_once(Reason::NO_SUBSCRIPTION_EXISTED);
                continue;
            }
            collecting.expect(Reason::SUCCESS, filter, false);
            let request = self.asked.ask(Ask::Unsubscribe(at));
            let filter = (*filter).to_owned();
            effects.commands.push(Command::Unsubscribe { request, filter });
        }
        self.asked.collecting = Some(Box::new(collecting));
        self.finish_unsubscribe(effects);
        Ok(())
    }

    /// The broker has answered for one filter of an UNSUBSCRIBE.
    pub(crate) fn on_unsubscribed(
        &mut self,
        at: usize,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) {
        let Some(collecting) = &mut self.asked.collecting else { return };
        collecting.due = collecting.due.saturating_sub(1);
        let code = match answer {
            Ok(Answer::Unsubscribed { existed: false }) => Reason::NO_SUBSCRIPTION_EXISTED,
            Ok(_) => Reason::SUCCESS,
            Err(refusal) => codes(refusal.kind).unsuback,
        };
        if let Some(slot) = collecting.codes.get_mut(at) {
            *slot = code.0;
        }
        if let Some(filter) = collecting.filters.get(at).filter(|_| !code.is_error()) {
            self.subscriptions.remove(filter);
        }
        self.finish_unsubscribe(effects);
    }

    fn finish_unsubscribe(&mut self, effects: &mut Effects) {
        let collecting = &mut self.asked.collecting;
        if let Some(done) = collecting.take_if(|collecting| collecting.due == 0) {
            let mut packet = BytesMut::new();
            put_unsuback(&mut packet, self.client.version, done.packet_id, &done.codes);
            self.put_answer(&packet, effects);
        }
    }
}

/// The subscription with the user properties that are arguments of its queue or its consumer.
fn with_arguments(
    mut subscription: Subscription,
    user: &[(&str, &str)],
) -> Result<Subscription, Unfit> {
    if matches!(subscription.target, SubscriptionTarget::Topic { .. }) {
        return Ok(subscription);
    }
    let arguments = user.iter().filter(|(name, _)| name.starts_with("x-"));
    let bytes: usize = arguments.clone().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ARGUMENTS_BYTES_MAX {
        let text = format!("arguments of {bytes} bytes; at most {ARGUMENTS_BYTES_MAX} are kept");
        return Err(Unfit::Refused(Reason::IMPLEMENTATION_SPECIFIC, text));
    }
    subscription.arguments = arguments
        .map(|(name, value)| ((*name).to_owned(), Value::String((*value).to_owned())))
        .collect();
    Ok(subscription)
}

impl Collecting {
    fn new(packet_id: u16, count: usize) -> Self {
        let codes = Vec::with_capacity(count);
        Self { packet_id, codes, filters: Vec::new(), fresh: Vec::new(), due: 0 }
    }

    fn expect(&mut self, code: Reason, filter: &str, is_new: bool) {
        self.codes.push(code.0);
        self.filters.push(filter.to_owned());
        self.fresh.push(is_new);
        self.due += 1;
    }

    fn settle_at_once(&mut self, code: Reason) {
        self.codes.push(code.0);
        self.filters.push(String::new());
        self.fresh.push(false);
    }
}
