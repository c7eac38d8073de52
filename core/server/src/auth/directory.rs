//! Where users and tokens are known.

use std::sync::Arc;

use polymq_broker::{BrokerHandle, Credentials, Grant, UserRecord};
use polymq_model::UserName;

/// Where users and tokens are known.
pub(crate) trait Directory: Send + Sync {
    /// The user, if there is one.
    fn find(&self, user: &str) -> Option<Arc<UserRecord>>;

    /// Who administers the broker: `admin`, or else the first by name.
    fn administrator(&self) -> Option<UserName>;

    /// Whose token this is and what it says, if it is good.
    fn token(&self, text: &[u8]) -> Option<(UserName, Arc<Grant>)>;

    /// Keeps a better hash of the same password, if the user still has the hash `before`.
    fn improve(&self, user: &str, before: &str, better: Credentials);
}

impl Directory for BrokerHandle {
    fn find(&self, user: &str) -> Option<Arc<UserRecord>> {
        self.access().user(user)
    }

    fn administrator(&self) -> Option<UserName> {
        let is_one = |name: &UserName| {
            let record = self.access().user(name.as_str());
            record.is_some_and(|record| record.tags.iter().any(|tag| tag == "administrator"))
        };
        let mut all = self.access().users();
        all.retain(is_one);
        let usual = all.iter().position(|name| name.as_str() == "admin");
        let place = usual.unwrap_or_default();
        (place < all.len()).then(|| all.swap_remove(place))
    }

    fn token(&self, text: &[u8]) -> Option<(UserName, Arc<Grant>)> {
        self.check_token(text)
    }

    fn improve(&self, user: &str, before: &str, better: Credentials) {
        if let Ok(user) = UserName::new(user) {
            self.improve_credentials(&user, before, better);
        }
    }
}
