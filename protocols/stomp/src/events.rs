//! What the broker says.

use polymq_contract::{Answer, CancelReason, Effects, Event, PublishOutcome, Refusal};
use polymq_model::{ConsumerId, Now, RequestId};

use crate::{
    refusal::Failure,
    session::{Pending, Phase, Session},
};

impl Session {
    pub(crate) fn on_event(&mut self, event: Event, now: Now, effects: &mut Effects) {
        match event {
            Event::Delivered(delivery) => self.deliver(&delivery, now, effects),
            Event::Confirmed { first, last, outcome, .. } => match outcome {
                PublishOutcome::Routed(kept) => self.receipts.confirmed(first, last, Some(kept)),
                PublishOutcome::Unrouted => self.receipts.confirmed(first, last, None),
                PublishOutcome::Refused(kind) => {
                    let failure = Failure::of_kind(kind, "the message was not taken");
                    self.fail_publish(first, &failure, effects);
                }
            },
            Event::PublishRefused { number, refusal, .. } => {
                self.fail_publish(number, &Failure::refused(&refusal), effects);
            }
            Event::Answered { request, answer } => self.on_answer(request, *answer, now, effects),
            Event::ConsumerCancelled { consumer, reason } => {
                self.on_consumer_cancelled(consumer, reason, effects);
            }
            Event::Blocked { .. } => self.is_blocked = true,
            Event::Unblocked => {
                self.is_blocked = false;
                self.heart_beat.received(now.instant);
            }
            Event::Closing { reason, .. } => {
                self.fail(&Failure::closing(&reason), None, effects);
            }
            // Nothing is published as mandatory, and no client session is opened.
            Event::Returned { .. }
            | Event::Broadcast { .. }
            | Event::Passed(_)
            | Event::TakenOver
            | Event::Placed { .. } => {}
        }
    }

    /// A publish was refused: its connection ends, and the broker has dropped what came behind it.
    fn fail_publish(&mut self, number: u64, failure: &Failure, effects: &mut Effects) {
        let receipt = self.receipts.of_publish(number).map(str::to_owned);
        self.fail(failure, receipt.as_deref(), effects);
    }

    fn on_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        now: Now,
        effects: &mut Effects,
    ) {
        if self.phase == Phase::Closed {
            return;
        }
        let Some((_, pending)) = self.pending.take_if(|(pending, _)| *pending == request) else {
            return self.on_late_answer(request, answer, effects);
        };
        let step = match pending {
            Pending::Login => self.on_logged_in(answer, effects),
            Pending::Vhost => self.on_vhost(answer, now, effects),
            Pending::Ensure(ensuring) => self.on_ensured(ensuring, answer, effects),
            Pending::TempQueue(step) => self.on_temp_queue(step, answer, effects),
            Pending::Subscribe(subscribing) => self.on_subscribing(subscribing, answer, effects),
        };
        if let Err(failure) = step {
            self.fail_pending(&failure, effects);
        }
        // The receipt of a subscription comes before its first message.
        self.put_receipts(effects);
    }

    /// An answer that no frame was held back for.
    fn on_late_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        effects: &mut Effects,
    ) {
        match answer {
            Ok(_) => {
                self.receipts.answered(request);
            }
            Err(refusal) => {
                let receipt = self.receipts.of_request(request).map(str::to_owned);
                self.fail(&Failure::refused(&refusal), receipt.as_deref(), effects);
            }
        }
    }

    fn on_consumer_cancelled(
        &mut self,
        consumer: ConsumerId,
        reason: CancelReason,
        effects: &mut Effects,
    ) {
        let Some(what) = self.subscriptions.describe(consumer) else { return };
        let why = match reason {
            CancelReason::QueueDeleted => "its queue was deleted",
            CancelReason::Timeout => "a message was not acknowledged in time",
            CancelReason::Denied => "the user may not read it any more",
        };
        self.fail(&Failure::cancelled(format!("{what} has ended: {why}")), None, effects);
    }
}
