//! Tags of users, and what they let them do with the broker itself.

use super::{Access, Principal};

/// The tag that lets a user send in the name of others.
const IMPERSONATOR: &str = "impersonator";

/// What an operation of management needs its user to be, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Any tag that has to do with management.
    Management,
    /// May change policies and parameters.
    Policymaker,
    /// May see everything.
    Monitoring,
    /// May change everything.
    Administrator,
}

impl Role {
    const ALL: [Self; 4] =
        [Self::Management, Self::Policymaker, Self::Monitoring, Self::Administrator];

    /// The tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Management => "management",
            Self::Policymaker => "policymaker",
            Self::Monitoring => "monitoring",
            Self::Administrator => "administrator",
        }
    }
}

/// The tags of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags(Vec<String>);

impl Tags {
    /// Tags by their names.
    pub fn new(tags: Vec<String>) -> Self {
        Self(tags)
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    fn has(&self, tag: &str) -> bool {
        self.0.iter().any(|own| own == tag)
    }

    /// Whether they make their user what an operation needs.
    ///
    /// An administrator is everything; who monitors or makes policies may use management as well.
    pub fn include(&self, role: Role) -> bool {
        let any = |roles: &[Role]| roles.iter().any(|role| self.has(role.as_str()));
        match role {
            Role::Administrator => any(&[Role::Administrator]),
            Role::Monitoring => any(&[Role::Administrator, Role::Monitoring]),
            Role::Policymaker => any(&[Role::Administrator, Role::Policymaker]),
            Role::Management => {
                any(&[Role::Administrator, Role::Monitoring, Role::Policymaker, Role::Management])
            }
        }
    }

    /// What is left of them under a token that asks for these.
    fn narrowed(&self, asked: &[String]) -> Self {
        if asked.iter().any(|tag| tag == "*") {
            return self.clone();
        }
        let has = |tag: &&String| {
            let role = Role::ALL.into_iter().find(|role| role.as_str() == *tag);
            role.map_or_else(|| self.has(tag), |role| self.include(role))
        };
        Self(asked.iter().filter(has).cloned().collect())
    }

    /// Whether they let their user send in the name of others.
    pub fn impersonate(&self) -> bool {
        self.has(IMPERSONATOR)
    }
}

impl Access {
    /// The tags of somebody at this moment: those of the user, as far as the token goes.
    pub fn tags_of(&self, who: &Principal) -> Tags {
        let own = || {
            let record = self.user(who.user.as_str());
            record.map(|record| record.tags.clone()).unwrap_or_default()
        };
        match &who.grant {
            None => Tags(own()),
            Some(grant) if grant.is_whole => Tags(grant.tags.clone()),
            // The user's own tags may be asked for by what they include.
            Some(grant) => Tags(own()).narrowed(&grant.tags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Tags {
        Tags(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn an_administrator_is_everything_but_no_impersonator() {
        let tags = tags(&["administrator"]);
        for role in [Role::Management, Role::Policymaker, Role::Monitoring, Role::Administrator] {
            assert!(tags.include(role));
        }
        assert!(!tags.impersonate());
    }

    #[test]
    fn a_token_takes_what_the_tags_of_its_user_include() {
        let of = |own: &[&str], asked: &[&str]| tags(own).narrowed(&tags(asked).0);
        assert_eq!(of(&["administrator"], &["monitoring"]), tags(&["monitoring"]));
        assert_eq!(of(&["administrator"], &["administrator"]), tags(&["administrator"]));
        assert_eq!(of(&["monitoring"], &["administrator", "management"]), tags(&["management"]));
        assert_eq!(of(&["monitoring", "own"], &["*"]), tags(&["monitoring", "own"]));
        assert_eq!(of(&["administrator"], &["impersonator", "own"]), tags(&[]));
        assert_eq!(of(&["own"], &["own"]), tags(&["own"]));
        assert_eq!(of(&[], &["management"]), tags(&[]));
    }

    #[test]
    fn other_tags_give_management_and_what_they_say() {
        for (tag, role) in [("monitoring", Role::Monitoring), ("policymaker", Role::Policymaker)] {
            let tags = tags(&[tag]);
            assert!(tags.include(Role::Management) && tags.include(role));
            assert!(!tags.include(Role::Administrator));
        }
        assert!(!tags(&["monitoring"]).include(Role::Policymaker));
        assert!(!tags(&["management"]).include(Role::Monitoring));
        assert!(!tags(&["own", "impersonator"]).include(Role::Management));
    }
}
