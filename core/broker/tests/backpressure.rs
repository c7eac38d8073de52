//! Publishers and the disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use world::{World, message, publish_of};

#[test]
fn a_publisher_without_confirms_waits_for_the_disk_too() {
    let world = World::new();
    let mut client = world.connect();
    client.queue("q");
    world.store.faults().delay_replies(true);
    let body = "x".repeat(64 * 1024);
    let mut sent = 0;
    while client.may_read() {
        let large = message("", "q", &body).build(&mut Vec::new());
        client.send(publish_of(large, 0));
        sent += 1;
        assert!(sent < 100, "nothing bounds the publisher");
    }
    client.events();
    world.store.release();
    assert!(client.outbox.take_nudge(), "the task is asked to look again");
    assert!(client.may_read());
}
