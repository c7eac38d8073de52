//! How a queue says no, in the words of RabbitMQ, which people search for.

use polymq_contract::{Refusal, RefusalKind};

use super::Queue;

impl Queue {
    pub(super) fn locked(&self) -> Refusal {
        let text = format!(
            "cannot obtain exclusive access to locked {self}. It could be originally declared on \
             another connection or the exclusive property value does not match that of the \
             original declaration."
        );
        Refusal::new(RefusalKind::Locked, text)
    }

    pub(super) fn missing(&self) -> Refusal {
        Refusal::missing("queue", self.name.as_str(), format!("no {self}"))
    }

    pub(super) fn in_exclusive_use(&self) -> Refusal {
        Refusal::new(RefusalKind::Denied, format!("{self} in exclusive use"))
    }

    pub(super) fn in_state(&self, what: &str) -> Refusal {
        Refusal::new(RefusalKind::Conflict, format!("{self} {what}"))
    }
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue '{}' in vhost '{}'", self.name, self.home.vhost_name())
    }
}
