//! Rights: one decision for an address whoever asks and whichever way, and how each protocol tells
//! it.

mod matrix;
mod rooms;
mod told;

use polymq_broker::{
    Manager, PermissionRecord, Principal, TopicPermissionRecord, TopicSyntax, UserRecord,
};
use polymq_model::{UserName, VhostName};

use crate::world::World;

/// The user whose rights are bounded; `guest` may do everything.
const USER: &str = "u2";

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn root() -> VhostName {
    VhostName::new("/").unwrap()
}

/// An administrator.
fn manager(world: &World) -> Manager {
    let record = UserRecord {
        password_hash: String::new(),
        scram: String::new(),
        tags: vec!["administrator".to_owned()],
        loopback_only: false,
    };
    world.broker().put_user(user("boss"), record, true);
    world.broker().manage(&Principal::of_user(user("boss")), "test")
}

/// Bounds the topics of `amq.topic` that the user may write and read.
fn bound(world: &World, write: &str, read: &str, syntax: TopicSyntax) {
    let record = TopicPermissionRecord { write: write.into(), read: read.into(), syntax };
    manager(world).put_topic_permission(&root(), &user(USER), "amq.topic", record).unwrap();
    world.settle();
}

/// Sets what the user may do.
fn allow(world: &World, configure: &str, write: &str, read: &str) {
    let record =
        PermissionRecord { configure: configure.into(), write: write.into(), read: read.into() };
    manager(world).put_permission(&root(), &user(USER), record).unwrap();
    world.settle();
}
