//! SEND: headers in one pass, then the message.

use bytes::Bytes;
use polymq_contract::{Command as Order, Effects, Publish, RefusalKind};
use polymq_model::{
    BadDurability, DURABILITY, Durability, Now, PublisherId, Value,
    carry::{Field, Outcome, RETAIN, is_reserved, smaller_ttl},
    delay::{BadDelay, DelayHeaders},
    message::{Body, NewMessage},
};

use crate::{
    Shared,
    codec::{Frame, Version},
    convert::STOMP,
    native,
    receipts::Wait,
    refusal::{Failure, Step},
    session::{Later, Session},
};

/// The one source of publishes of a connection.
pub(crate) const PUBLISHER: PublisherId = PublisherId(0);

/// What one pass over the headers of SEND found.
#[derive(Debug, Default)]
struct Scan<'a> {
    destination: Option<&'a str>,
    transaction: Option<&'a str>,
    receipt: Option<&'a str>,
    reply_to: Option<&'a str>,
    is_persistent: Option<bool>,
    priority: Option<u8>,
    expiration_ms: Option<u64>,
    expires_ms: Option<u64>,
    carried_ttl_ms: Option<u64>,
    carried_qos: Option<u8>,
    retain: bool,
    delays: DelayHeaders,
    durability: Option<Durability>,
}

/// What a header of SEND says to the broker.
enum Known {
    Destination,
    Transaction,
    Receipt,
    ReplyTo,
    Persistent,
    Priority,
    Expiration,
    Expires,
    UserId,
    Retain,
    Durability,
    /// It asks for the message to be routed later.
    Delay,
    Carried(Field),
    /// It belongs to the server, and does not travel on.
    Server,
    Reserved,
    /// `message-id`, which only the server gives.
    MessageId,
    Other,
}

fn known(name: &str) -> Known {
    match name {
        "destination" => Known::Destination,
        "transaction" => Known::Transaction,
        "receipt" => Known::Receipt,
        "reply-to" => Known::ReplyTo,
        "persistent" => Known::Persistent,
        "priority" => Known::Priority,
        "expiration" => Known::Expiration,
        "expires" => Known::Expires,
        "user-id" => Known::UserId,
        "content-length" | "subscription" | "ack" | "redelivered" => Known::Server,
        "message-id" => Known::MessageId,
        _ if DelayHeaders::is_one(name.as_bytes()) => Known::Delay,
        _ if !name.starts_with("x-") => Known::Other,
        "x-retain" => Known::Retain,
        DURABILITY => Known::Durability,
        _ if is_reserved(name) => Known::Reserved,
        _ => match Field::from_key(name) {
            Some(field @ (Field::Ttl | Field::Qos | Field::User)) => Known::Carried(field),
            _ => Known::Other,
        },
    }
}

/// Who sends.
pub(crate) struct Sender<'a> {
    pub(crate) user: &'a str,
    pub(crate) impersonator: bool,
}

impl<'a> Scan<'a> {
    /// Reads the headers, and puts those that travel on into `kept`.
    fn read(
        frame: &Frame<'a>,
        sender: &Sender<'_>,
        shared: &Shared,
        kept: &mut Vec<u8>,
    ) -> Step<Self> {
        let mut scan = Self::default();
        kept.clear();
        for (name, raw) in frame.raw_headers() {
            let stays = match known(name) {
                Known::Other => true,
                Known::Destination => first(&mut scan.destination, raw),
                Known::Transaction => first(&mut scan.transaction, raw),
                Known::Receipt => first(&mut scan.receipt, raw),
                Known::ReplyTo => scan.take_reply_to(frame, raw),
                Known::Server => false,
                Known::Reserved => {
                    shared.entering().dropped("header", Outcome::Reserved, 1);
                    false
                }
                Known::MessageId => {
                    let text = "'message-id' is given by the server; the sender's own is \
                                'amqp-message-id'";
                    return Err(Failure::invalid(text));
                }
                Known::Carried(Field::User) => {
                    let is_own = sender.may_be(&frame.decode(raw));
                    if !is_own {
                        shared.entering().dropped("user_id", Outcome::NotAllowed, 1);
                    }
                    is_own
                }
                Known::Delay => {
                    if native::lines(kept).all(|(before, _)| before != name) {
                        let text = frame.decode(raw).into_owned();
                        scan.delays.add(name, &Value::String(text));
                    }
                    true
                }
                known => {
                    scan.take_value(&known, name, &frame.decode(raw), sender)?;
                    true
                }
            };
            if stays {
                let value = kept_value(frame, name, raw);
                native::put_line(name, value, frame.version(), kept);
            }
        }
        Ok(scan)
    }

    /// A reply address that is a queue of this connection is written by whoever makes the queue.
    fn take_reply_to(&mut self, frame: &Frame<'a>, raw: &'a str) -> bool {
        if self.reply_to.is_some() {
            return true;
        }
        self.reply_to = Some(raw);
        !frame.decode(raw).starts_with(TEMP_QUEUE)
    }

    /// Of repeated headers the first counts.
    fn take_value(&mut self, known: &Known, name: &str, value: &str, sender: &Sender<'_>) -> Step {
        match known {
            Known::Persistent => set(&mut self.is_persistent, || flag(name, value)),
            Known::Priority => set(&mut self.priority, || {
                let wrong = || format!("header '{name}' is '{value}', not a number from 0 to 255");
                digits(value)
                    .and_then(|n| u8::try_from(n).ok())
                    .ok_or_else(|| Failure::invalid(wrong()))
            }),
            Known::Expiration => set(&mut self.expiration_ms, || number(name, value)),
            Known::Expires => set(&mut self.expires_ms, || number(name, value)),
            Known::Retain => {
                self.retain |= value == "true";
                Ok(())
            }
            Known::Durability => set(&mut self.durability, || {
                let wrong = |bad: BadDurability| Failure::invalid(bad.to_string());
                Durability::parse(value).map_err(wrong)
            }),
            Known::Carried(Field::Ttl) => set(&mut self.carried_ttl_ms, || number(name, value)),
            Known::Carried(_) => {
                self.carried_qos = digits(value).and_then(|n| u8::try_from(n).ok());
                Ok(())
            }
            Known::UserId if !sender.may_be(value) => {
                let own = sender.user;
                let text = format!("header 'user-id' is '{value}', but the user is '{own}'");
                Err(Failure::invalid(text))
            }
            _ => Ok(()),
        }
    }

    fn qos(&self) -> u8 {
        let by_durability = u8::from(self.is_persistent == Some(true));
        self.carried_qos.filter(|qos| *qos == 2).unwrap_or(by_durability)
    }

    /// When the message expires, 0 for never. `expires` is a time in ms since 1970, and 0 says
    /// never, as in JMS.
    fn deadline_ms(&self, now_ms: u64) -> u64 {
        let by_ttl = smaller_ttl(self.expiration_ms, self.carried_ttl_ms)
            .map(|ttl| now_ms.saturating_add(ttl).max(1));
        let by_time = self.expires_ms.filter(|at| *at > 0);
        [by_ttl, by_time].into_iter().flatten().min().unwrap_or(0)
    }
}

/// How reply addresses of queues begin that the connection is to make.
pub(crate) const TEMP_QUEUE: &str = "/temp-queue/";

impl Session {
    /// SEND. `shared` is the whole frame by reference, for long bodies.
    pub(crate) fn on_send(
        &mut self,
        frame: &Frame<'_>,
        shared: Option<&Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        let mut kept = std::mem::take(&mut self.native);
        let done = self.send(frame, shared, &mut kept, now, effects);
        self.native = kept;
        done
    }

    fn send(
        &mut self,
        frame: &Frame<'_>,
        shared: Option<&Bytes>,
        kept: &mut Vec<u8>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        let sender = Sender { user: &self.user, impersonator: self.impersonator };
        let scan = Scan::read(frame, &sender, &self.shared, kept)?;
        let Some(destination) = scan.destination else {
            return Err(Failure::malformed("SEND has no header 'destination'").into());
        };
        self.find_route(&frame.decode(destination), frame, effects)?;
        if let Some(reply_to) = scan.reply_to.map(|raw| frame.decode(raw))
            && reply_to.starts_with(TEMP_QUEUE)
        {
            let queue = self.temp_queue(&reply_to, effects)?;
            let mut address = String::from("reply-to:/reply-queue/");
            address.push_str(queue);
            address.push('\n');
            kept.extend_from_slice(address.as_bytes());
        }
        let delay = scan.delays.delay().map_err(bad_delay)?;
        if delay.is_some() {
            native::remove(kept, |name| DelayHeaders::is_one(name.as_bytes()));
        }
        let route = self.last_route.route();
        let is_durable = scan.is_persistent == Some(true);
        let message = NewMessage {
            format: &STOMP,
            exchange: &route.exchange,
            key: &route.key,
            props: kept,
            body: match shared {
                Some(whole) => Body::Shared(whole.slice_ref(frame.body)),
                None => Body::Slice(frame.body),
            },
            durable: is_durable,
            priority: scan.priority,
            qos: scan.qos(),
            retain: scan.retain,
            deadline_ms: scan.deadline_ms(now.unix_ms),
            arrived_ms: now.unix_ms,
            extra_keys: Vec::new(),
        }
        .build(&mut self.scratch)
        .lowered(scan.durability);
        let publish = Publish {
            publisher: PUBLISHER,
            number: 0,
            mandatory: false,
            received: None,
            delay,
            message,
        };
        if let Some(transaction) = scan.transaction {
            self.send_later(&frame.decode(transaction), publish)?;
            self.receipts.done(scan.receipt);
            return Ok(());
        }
        let number = scan.receipt.map_or(0, |receipt| {
            let number = self.receipts.next_number();
            self.receipts.expect(Wait::Publish, Some(receipt));
            number
        });
        effects.commands.push(Order::Publish(Publish { number, ..publish }));
        Ok(())
    }

    /// Makes the route of `destination` the last one, and its queue ready.
    fn find_route(
        &mut self,
        destination: &str,
        frame: &Frame<'_>,
        effects: &mut Effects,
    ) -> Result<(), Later> {
        let exchange = &self.shared.settings.exchange;
        self.last_route.find(destination, exchange, &self.limits)?;
        if !self.last_route.is_ready {
            let queue = self.last_route.route().key.clone();
            self.make_ready(&queue, frame, effects)?;
            self.last_route.is_ready = true;
        }
        Ok(())
    }
}

impl Sender<'_> {
    fn may_be(&self, user: &str) -> bool {
        user == self.user || self.impersonator
    }
}

fn bad_delay(bad: BadDelay) -> Box<Failure> {
    let kind = match bad {
        BadDelay::NotANumber(_) => RefusalKind::Invalid,
        BadDelay::NotAvailable(_) => RefusalKind::NotAvailable,
    };
    Failure::of_kind(kind, bad.to_string())
}

/// A value as it is kept: as it came, but in 1.0 a space behind the colon is usual, and no part of
/// a number, a flag or a destination. Texts of other protocols may begin with one.
fn kept_value<'a>(frame: &Frame<'a>, name: &str, raw: &'a str) -> &'a str {
    if frame.version() != Version::V10 {
        return raw;
    }
    // A space at the end may belong to the name of a queue.
    let trimmed = raw.trim_start().trim_end_matches('\r');
    let is_trimmed = match name {
        "reply-to" => trimmed.starts_with('/'),
        "persistent" | "priority" | "expiration" | "expires" | "timestamp" | RETAIN
        | DURABILITY => true,
        _ => matches!(Field::from_key(name), Some(Field::Ttl | Field::Qos)),
    };
    if is_trimmed { trimmed } else { raw }
}

fn first<'a>(slot: &mut Option<&'a str>, raw: &'a str) -> bool {
    slot.get_or_insert(raw);
    false
}

fn set<T>(slot: &mut Option<T>, read: impl FnOnce() -> Step<T>) -> Step {
    if slot.is_none() {
        *slot = Some(read()?);
    }
    Ok(())
}

/// Errors: a value that is neither `true` nor `false`.
pub(crate) fn flag(name: &str, value: &str) -> Step<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Failure::invalid(format!("header '{name}' is '{value}', not true or false"))),
    }
}

/// Errors: a value that is no whole number of 0 or more.
pub(crate) fn number(name: &str, value: &str) -> Step<u64> {
    digits(value).ok_or_else(|| {
        let text = format!("header '{name}' is '{value}', not a whole number of 0 or more");
        Failure::of_kind(RefusalKind::Invalid, text)
    })
}

fn digits(value: &str) -> Option<u64> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().ok()).flatten()
}
