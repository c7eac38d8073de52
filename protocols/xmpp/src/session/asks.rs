//! What the session has asked the broker, and what is to be done with the answers.

use std::collections::HashMap;

use polymq_contract::{Answer, Command, Effects, Refusal};
use polymq_model::{Now, RequestId};

use super::Session;

/// Answers that may be due while stanzas go on.
const DUE_MAX: usize = 256;

/// One call into the session: the time, and where what comes of it goes.
pub(crate) struct Turn<'a> {
    /// When.
    pub(crate) now: Now,
    /// What the driver does.
    pub(crate) effects: &'a mut Effects,
}

/// What the broker answers.
pub(crate) type Asked = Result<Answer, Refusal>;

/// What is done with an answer.
pub(crate) type Then =
    Box<dyn for<'a> FnOnce(&mut Session, Result<Answer, Refusal>, &mut Turn<'a>) + Send>;

/// Answers that are due.
#[derive(Default)]
pub(super) struct Asks {
    due: HashMap<RequestId, (bool, Then)>,
    holding: usize,
    last: u32,
}

impl Asks {
    /// True while nothing more may be read.
    pub(super) fn must_wait(&self) -> bool {
        self.holding > 0 || self.due.len() >= DUE_MAX
    }
}

impl Session {
    /// Asks the broker; `then` gets the answer.
    pub(crate) fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        command: impl FnOnce(RequestId) -> Command,
        then: impl for<'a> FnOnce(&mut Self, Asked, &mut Turn<'a>) + Send + 'static,
    ) {
        self.ask_as(false, turn, command, Box::new(then));
    }

    /// Asks the broker, and reads nothing more until the answer is there.
    pub(crate) fn ask_and_wait(
        &mut self,
        turn: &mut Turn<'_>,
        command: impl FnOnce(RequestId) -> Command,
        then: impl for<'a> FnOnce(&mut Self, Asked, &mut Turn<'a>) + Send + 'static,
    ) {
        self.ask_as(true, turn, command, Box::new(then));
    }

    fn ask_as(
        &mut self,
        holds: bool,
        turn: &mut Turn<'_>,
        command: impl FnOnce(RequestId) -> Command,
        then: Then,
    ) {
        self.asks.last = self.asks.last.wrapping_add(1);
        let request = RequestId(self.asks.last);
        self.asks.holding = self.asks.holding.saturating_add(usize::from(holds));
        self.asks.due.insert(request, (holds, then));
        turn.effects.commands.push(command(request));
    }

    pub(super) fn on_answer(
        &mut self,
        request: RequestId,
        answer: Result<Answer, Refusal>,
        turn: &mut Turn<'_>,
    ) {
        let Some((holds, then)) = self.asks.due.remove(&request) else { return };
        self.asks.holding = self.asks.holding.saturating_sub(usize::from(holds));
        then(self, answer, turn);
    }
}
