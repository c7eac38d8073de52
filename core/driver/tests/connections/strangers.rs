//! Peers that have not logged in, and ports that serve several protocols.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use polymq_contract::{DisconnectCause, Protocol};
use polymq_model::Limits;
use tokio::time::Instant;

use crate::toy::{Client, House, LineProtocol, peer};

const PIPE: usize = 64 * 1024;

#[tokio::test(start_paused = true)]
async fn a_silent_stranger_is_cut_at_the_login_limit() {
    let mut house = House::new();
    let start = Instant::now();
    house.client(PIPE).expect_end().await;
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&start.elapsed()));
    assert_eq!(house.closed_by("login_timeout"), 1);
    assert!(house.seen.try_recv().is_err(), "the broker was bothered");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_trickles_bytes_is_cut_at_the_login_limit() {
    let mut house = House::new();
    let start = Instant::now();
    let mut client = house.client(PIPE);
    for byte in ["h", "e"] {
        client.send(byte).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    client.expect_end().await;
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&start.elapsed()));
    assert_eq!(house.disconnected().await, DisconnectCause::Timeout);
}

#[tokio::test(start_paused = true)]
async fn who_has_logged_in_may_be_silent() {
    let mut house = House::new();
    let (mut client, _) = house.guest(PIPE).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    client.send("say still here\n").await;
    client.expect("still here").await;
}

#[tokio::test]
async fn a_stranger_may_send_only_so_many_bytes() {
    let mut house = House::new();
    let mut client = house.client(PIPE);
    client.send(&"x".repeat(Limits::default().login_bytes_max)).await;
    client.expect_end().await;
    assert_eq!(house.closed_by("login_bytes"), 1);
    assert_eq!(house.disconnected().await, DisconnectCause::Session);
}

#[tokio::test]
async fn bytes_sent_right_behind_the_login_do_not_count_as_a_strangers() {
    let house = House::new();
    let mut client = house.client(PIPE);
    let tail = "x".repeat(40_000);
    client.send(&format!("ask who\nhello\nlength {tail}\n")).await;
    client.expect("answer 3").await;
    client.expect("welcome").await;
    client.expect("40000").await;
}

#[tokio::test]
async fn a_connection_that_the_broker_refuses_is_closed() {
    let house = House::new();
    house.broker.refuses.store(true, Ordering::SeqCst);
    let mut client = house.client(PIPE);
    client.send("hello\n").await;
    client.expect_end().await;
    assert_eq!(house.closed_by("refused"), 1);
}

fn on_shared_port(house: &House) -> Client<tokio::io::DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let protocols: Vec<Arc<dyn Protocol>> =
        vec![Arc::new(LineProtocol { mark: "mark" }), Arc::new(LineProtocol { mark: "make" })];
    house.driver.adopt(theirs, protocols, peer());
    Client::new(ours)
}

#[tokio::test]
async fn the_first_bytes_choose_among_the_protocols_of_a_port() {
    let mut house = House::new();
    for mark in ["mark", "make"] {
        let mut client = on_shared_port(&house);
        for byte in mark.chars() {
            client.send(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        house.connected().await;
        client.send("\nmark\n").await;
        if mark == "make" {
            client.expect("unknown make").await;
        } else {
            client.expect("mark").await;
        }
        client.expect(mark).await;
        client.send("bye\n").await;
        client.expect("bye").await;
        house.disconnected().await;
    }
}

#[tokio::test]
async fn bytes_that_no_protocol_knows_close_the_connection() {
    let house = House::new();
    let mut client = on_shared_port(&house);
    client.send("max").await;
    client.expect_end().await;
    assert_eq!(house.closed_by("unrecognised"), 1);
}
