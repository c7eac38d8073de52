//! How connections end, one at a time and all together.

use std::time::Duration;

use polymq_contract::{DisconnectCause, Event};

use crate::toy::{House, Seen};

const PIPE: usize = 64 * 1024;

#[tokio::test]
async fn last_commands_run_before_the_broker_hears_that_the_peer_has_gone() {
    let mut house = House::new();
    let (client, _) = house.guest(PIPE).await;
    drop(client);
    assert!(matches!(house.next().await, Seen::Asked(name) if name == "farewell"));
    assert!(matches!(house.next().await, Seen::Disconnected(DisconnectCause::PeerGone)));
    assert_eq!(house.closed_by("peer_gone"), 1);
}

#[tokio::test]
async fn a_panic_of_a_session_ends_its_connection_only() {
    let mut house = House::new();
    let (mut other, _) = house.guest(PIPE).await;
    let (mut client, _) = house.guest(PIPE).await;
    client.send("boom\n").await;
    client.expect_end().await;
    assert_eq!(house.disconnected().await, DisconnectCause::Panic);
    assert_eq!(house.closed_by("panic"), 1);
    other.send("say unharmed\n").await;
    other.expect("unharmed").await;
}

#[tokio::test]
async fn a_panic_of_the_broker_ends_the_connection_that_met_it() {
    let mut house = House::new();
    let (mut other, _) = house.guest(PIPE).await;
    let (mut client, _) = house.guest(PIPE).await;
    client.send("ask panic\n").await;
    client.expect_end().await;
    assert_eq!(house.disconnected().await, DisconnectCause::Panic);
    other.send("say unharmed\n").await;
    other.expect("unharmed").await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_lingers_only_so_long_for_a_peer_that_never_closes() {
    let mut house = House::new();
    let (mut client, _) = house.guest(PIPE).await;
    client.send("bye\n").await;
    client.expect("bye").await;
    client.expect_end().await;
    assert_eq!(house.disconnected().await, DisconnectCause::Session);
    assert_eq!(house.driver.counters().values().open, 1);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(house.driver.counters().values().open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_sessions_say_goodbye() {
    let mut house = House::new();
    let (mut client, outbox) = house.guest(PIPE).await;
    let stop = async {
        outbox.push(Event::Closing { reason: "we stop".into(), shutdown: true });
        house.driver.shutdown(Duration::from_secs(30)).await;
    };
    let goodbye = async {
        client.expect("we stop").await;
        client.expect_end().await;
        drop(client);
    };
    let start = tokio::time::Instant::now();
    tokio::join!(stop, goodbye);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(house.disconnected().await, DisconnectCause::Session);
    assert_eq!(house.driver.counters().values().open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_strangers_at_once_and_the_rest_when_its_time_is_over() {
    let mut house = House::new();
    let mut stranger = house.client(PIPE);
    stranger.send("say hi\n").await;
    stranger.expect("hi").await;
    house.connected().await;
    let (mut client, _) = house.guest(PIPE).await;
    let mut silent = house.client(PIPE);
    let start = tokio::time::Instant::now();
    let strangers = async {
        stranger.expect_end().await;
        silent.expect_end().await;
        assert!(start.elapsed() < Duration::from_secs(1));
        client.send("say still served\n").await;
        client.expect("still served").await;
        client.expect_end().await;
        assert!(start.elapsed() >= Duration::from_secs(30));
    };
    tokio::join!(house.driver.shutdown(Duration::from_secs(30)), strangers);
    assert_eq!(house.disconnected().await, DisconnectCause::Shutdown);
    assert_eq!(house.disconnected().await, DisconnectCause::Shutdown);
    assert_eq!(house.driver.counters().values().open, 0);
}
