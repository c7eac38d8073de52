//! Channels one of whose publishes was refused: what their client had sent behind it does not
//! happen.

use polymq_contract::{Command, Outcome, Refusal, RefusalKind};
use polymq_model::{Now, PublisherId};

use super::BrokerConnection;

/// Which channel the commands come from, and which channels have failed.
#[derive(Default)]
pub(super) struct Channels {
    current: Option<PublisherId>,
    failed: Vec<PublisherId>,
    /// The current one has failed.
    is_void: bool,
}

impl Channels {
    pub(super) fn enter(&mut self, channel: PublisherId) {
        self.current = Some(channel);
        self.is_void = self.failed.contains(&channel);
    }

    pub(super) fn leave(&mut self, channel: PublisherId) {
        self.failed.retain(|failed| *failed != channel);
        self.current = None;
        self.is_void = false;
    }

    /// The channel that the commands come from, if any.
    pub(super) fn current(&self) -> Option<PublisherId> {
        self.current
    }

    pub(super) fn is_current(&self, channel: PublisherId) -> bool {
        self.current == Some(channel)
    }

    /// What comes next is of this channel, or of none.
    pub(super) fn resume(&mut self, channel: Option<PublisherId>) {
        self.current = channel;
        self.is_void = channel.is_some_and(|channel| self.failed.contains(&channel));
    }

    /// A publish of this publisher was refused. That ends only channels that were entered.
    pub(super) fn fail(&mut self, publisher: PublisherId) {
        if self.current == Some(publisher) && !self.is_void {
            self.failed.push(publisher);
            self.is_void = true;
        }
    }

    /// True when commands do not happen any more.
    #[inline]
    pub(super) fn is_void(&self) -> bool {
        self.is_void
    }
}

impl BrokerConnection {
    /// Deals with a command of a channel that has failed: whoever waits for an answer gets one.
    pub(super) fn pass_over(&mut self, command: Command, now: Now) {
        match command {
            Command::EnterChannel { publisher, channel } => self.enter_channel(publisher, channel),
            Command::LeaveChannel { publisher } => self.channels.leave(publisher),
            // Of another channel, or of this one once it is left.
            Command::OpenChannel { request, channel } => self.open_channel(request, channel),
            Command::CloseChannel { channel } => self.close_channel(channel),
            Command::Release { consumers } => {
                self.finish_run(now);
                self.release_as(&consumers, Outcome::Failed, now);
            }
            command => {
                if let Some(request) = command.request() {
                    let text = "the channel has failed";
                    self.answer(request, Err(Refusal::new(RefusalKind::Conflict, text)), None);
                }
            }
        }
    }
}
