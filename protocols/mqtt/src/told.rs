//! What an acknowledgement of a publish says beside its reason code: sections 3.4.2.2 and 3.5.2.2.

use polymq_model::{DURABILITY, Durability};

use crate::{
    client::Client,
    codec::writer::{Properties, reason_string},
};

/// What an acknowledgement says beside its reason code.
#[derive(Debug)]
pub(crate) enum Told {
    Nothing,
    Problem(Box<str>),
    Kept(Durability),
}

impl Told {
    pub(crate) fn problem(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, |text| Self::Problem(text.into()))
    }

    /// What a publish that asked, or did not, is told about how well it is kept. Silence means that
    /// it is kept as the protocol promises.
    pub(crate) fn kept(kept: Durability, asked: bool) -> Self {
        match kept {
            Durability::Os | Durability::SyncInterval { .. } => Self::Kept(kept),
            Durability::Sync | Durability::Memory if asked => Self::Kept(kept),
            Durability::Sync | Durability::Memory => Self::Nothing,
        }
    }

    pub(crate) fn properties(&self, client: &Client) -> Option<Properties> {
        match self {
            Self::Nothing => None,
            Self::Problem(text) => Some(reason_string(Some(text))),
            Self::Kept(kept) => {
                let mut properties = Properties::default();
                properties.user(DURABILITY, &kept.to_string());
                client.takes_ack_property(properties.encoded_len()).then_some(properties)
            }
        }
    }
}
