//! What frames are answered with, in the order in which they came.
//!
//! Specification: STOMP 1.2, RECEIPT: a receipt also says that all frames before have arrived.

use std::collections::VecDeque;

use polymq_contract::Output;
use polymq_model::{Durability, RequestId};

use crate::codec::writer::{Told, put_receipt};

/// Receipts that wait beyond this stop the reading: the client runs away from the disk.
const WAITING_MAX: usize = 16 * 1024;
/// The same for what their ids take.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// What a frame waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The confirm of the publish that was numbered last.
    Publish,
    /// The answer to a request. The publishes of a transaction are numbered up to the entry's.
    Answer(RequestId),
    /// The same, and then the connection closes.
    Disconnect(RequestId),
    /// Only those before it.
    Nothing,
}

impl Wait {
    fn is_for(self, request: RequestId) -> bool {
        matches!(self, Self::Answer(own) | Self::Disconnect(own) if own == request)
    }
}

#[derive(Debug)]
struct Waiting {
    wait: Wait,
    /// Number of the last publish when the frame came.
    number: u64,
    /// As the client wrote it.
    receipt: Option<Box<str>>,
    told: Option<Told>,
}

/// The frames whose end has not been told.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    published: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Receipts {
    /// The number of the next publish.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.published = self.published.saturating_add(1);
        self.published
    }

    /// A frame waits for something.
    pub(crate) fn expect(&mut self, wait: Wait, receipt: Option<&str>) {
        let number = self.published;
        self.bytes = self.bytes.saturating_add(receipt.map_or(0, str::len));
        let receipt = receipt.map(Into::into);
        self.waiting.push_back(Waiting { wait, number, receipt, told: None });
    }

    /// A frame has been dealt with.
    pub(crate) fn done(&mut self, receipt: Option<&str>) {
        if receipt.is_some() {
            self.expect(Wait::Nothing, receipt);
        }
    }

    /// Publishes `first` to `last` have ended well.
    pub(crate) fn confirmed(&mut self, first: u64, last: u64, kept: Option<Durability>) {
        let told = Told { kept, is_unrouted: kept.is_none() };
        let at = self.waiting.partition_point(|waiting| waiting.number < first);
        let entries = self.waiting.range_mut(at..);
        for waiting in entries.take_while(|waiting| waiting.number <= last) {
            if waiting.wait == Wait::Publish {
                waiting.told = Some(told);
            }
        }
    }

    /// A request has ended well. False when nobody waits for it.
    pub(crate) fn answered(&mut self, request: RequestId) -> bool {
        let mut entries = self.waiting.iter_mut();
        let Some(waiting) = entries.find(|waiting| waiting.wait.is_for(request)) else {
            return false;
        };
        waiting.told = Some(Told::default());
        true
    }

    /// The receipt asked for by the frame that published `number`, or by its transaction.
    pub(crate) fn of_publish(&self, number: u64) -> Option<&str> {
        let at = self.waiting.partition_point(|waiting| waiting.number < number);
        let mut entries = self.waiting.range(at..);
        let found = entries.find(|waiting| waiting.wait != Wait::Nothing);
        found.filter(|_| number > 0)?.receipt.as_deref()
    }

    /// The receipt asked for by the frame that made a request.
    pub(crate) fn of_request(&self, request: RequestId) -> Option<&str> {
        self.waiting.iter().find(|waiting| waiting.wait.is_for(request))?.receipt.as_deref()
    }

    /// Writes the receipts that are due. True when the client's good-bye was among them.
    pub(crate) fn put(&mut self, out: &mut Output) -> bool {
        let is_due =
            |waiting: &mut Waiting| waiting.wait == Wait::Nothing || waiting.told.is_some();
        while let Some(waiting) = self.waiting.pop_front_if(is_due) {
            if let Some(receipt) = &waiting.receipt {
                self.bytes = self.bytes.saturating_sub(receipt.len());
                put_receipt(receipt, waiting.told.unwrap_or_default(), out.frame());
            }
            if matches!(waiting.wait, Wait::Disconnect(_)) {
                return true;
            }
        }
        false
    }

    /// True when so much waits that no further frame is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// True when anything waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
