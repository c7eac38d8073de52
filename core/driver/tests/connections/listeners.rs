//! Real sockets.

use std::time::Duration;

use polymq_contract::DisconnectCause;
use polymq_driver::{Bind, Listener, ListenerSpec};
use polymq_model::{Limits, VhostName};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream, UnixStream},
};

use crate::toy::{Client, House, any_port, listener, protocols, streamed};

async fn tcp(house: &House) -> std::net::SocketAddr {
    let listener = listener(any_port(), None);
    let address = listener.local_addr().expect("a TCP address");
    house.driver.serve(listener).expect("a runtime");
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_served_over_tcp() {
    let mut house = House::new();
    let address = tcp(&house).await;
    let mut client = Client::new(TcpStream::connect(address).await.expect("a connection"));
    client.log_in().await;
    client.send("ask four\nstream 5000\n").await;
    client.expect("answer 4").await;
    for number in 1..=5000 {
        client.expect(streamed(number).trim_end()).await;
    }
    drop(client);
    assert_eq!(house.disconnected().await, DisconnectCause::PeerGone);
    let counted = house.driver.counters().values();
    assert_eq!((counted.accepted, counted.bytes_in), (1, 27));
    assert_eq!(counted.bytes_out, 5_000_000 + 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_bytes_arrive_although_input_is_left_unread() {
    let house = House::new();
    let address = tcp(&house).await;
    let mut client = Client::new(TcpStream::connect(address).await.expect("a connection"));
    client.log_in().await;
    let unread = "say never\n".repeat(20_000);
    client.send(&format!("say {}\nbye\n{unread}", "x".repeat(60_000))).await;
    let mut all = String::new();
    client.reader.read_to_string(&mut all).await.expect("no reset");
    assert_eq!(all, format!("{}\nbye\n", "x".repeat(60_000)));
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_at_once() {
    let house = House::with(Limits { connections_max: 2, ..Limits::default() });
    let address = tcp(&house).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::new(TcpStream::connect(address).await.expect("a connection"));
        client.log_in().await;
        clients.push(client);
    }
    let mut third = Client::new(TcpStream::connect(address).await.expect("a connection"));
    third.expect_end().await;
    assert_eq!(house.driver.counters().values().refused, 1);
    for client in &mut clients {
        client.send("say fine\n").await;
        client.expect("fine").await;
    }
}

#[tokio::test]
async fn more_connections_than_allowed_from_one_address_are_closed_at_once() {
    let limits = Limits { connections_per_address_max: Some(2), ..Limits::default() };
    let house = House::with(limits);
    let address = tcp(&house).await;
    let connect = async || Client::new(TcpStream::connect(address).await.expect("a connection"));
    let (mut first, mut second) = (connect().await, connect().await);
    first.log_in().await;
    second.log_in().await;
    connect().await.expect_end().await;
    let elsewhere = TcpSocket::new_v4().expect("a socket");
    elsewhere.bind(([127, 0, 0, 2], 0).into()).expect("an address of this machine");
    let mut other = Client::new(elsewhere.connect(address).await.expect("a connection"));
    other.log_in().await;
    first.send("bye\n").await;
    first.expect("bye").await;
    first.expect_end().await;
    while house.driver.counters().values().open > 2 {
        tokio::task::yield_now().await;
    }
    let mut again = connect().await;
    again.log_in().await;
}

#[tokio::test]
async fn a_stopped_driver_gives_its_port_back() {
    let house = House::new();
    let address = tcp(&house).await;
    TcpStream::connect(address).await.expect("a connection");
    house.driver.shutdown(Duration::from_secs(5)).await;
    let bound = Listener::bind(ListenerSpec {
        name: "again".into(),
        protocols: protocols(),
        is_shared: false,
        bind: Bind::Tcp(address),
        tls: None,
        start_tls: None,
        vhost: VhostName::new("/").expect("a name"),
    });
    assert_eq!(bound.expect("the port is free").local_addr(), Some(address));
}

#[tokio::test]
async fn a_taken_port_is_named_in_the_error() {
    let first = listener(any_port(), None);
    let bind = Bind::Tcp(first.local_addr().expect("a TCP address"));
    let second = Listener::bind(ListenerSpec {
        name: "second".into(),
        protocols: protocols(),
        is_shared: false,
        bind: bind.clone(),
        tls: None,
        start_tls: None,
        vhost: VhostName::new("/").expect("a name"),
    });
    let error = second.err().expect("an error").to_string();
    assert!(error.starts_with(&format!("listener `second` cannot listen on {bind}")), "{error}");
}

#[tokio::test]
async fn clients_are_served_over_a_unix_socket_that_a_dead_server_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("toy.sock");
    for _ in 0..2 {
        let house = House::new();
        house.driver.serve(listener(Bind::Unix(path.clone()), None)).expect("a runtime");
        let mut client = Client::new(UnixStream::connect(&path).await.expect("a connection"));
        client.log_in().await;
        house.driver.shutdown(Duration::ZERO).await;
        drop(std::os::unix::net::UnixListener::bind(&path));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_stops_keeps_its_clients_and_its_socket_can_serve_anew() {
    let house = House::new();
    let first = listener(any_port(), None);
    let address = first.local_addr().expect("a TCP address");
    let socket = first.socket().expect("a file").expect("a TCP socket");
    let accepting = house.driver.serve(first).expect("a runtime");
    let mut early = Client::new(TcpStream::connect(address).await.expect("a connection"));
    early.log_in().await;

    accepting.stop();
    let spec = ListenerSpec {
        name: "second".into(),
        protocols: protocols(),
        is_shared: false,
        bind: Bind::Tcp(address),
        tls: None,
        start_tls: None,
        vhost: VhostName::new("/").expect("a name"),
    };
    let second = Listener::over(spec, socket).expect("an address");
    let accepting = house.driver.serve(second).expect("a runtime");
    let mut late = Client::new(TcpStream::connect(address).await.expect("a connection"));
    late.log_in().await;
    for client in [&mut early, &mut late] {
        client.send("ask four\n").await;
        client.expect("answer 4").await;
    }

    accepting.stop();
    // The task that accepts drops its socket in its own time.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    early.send("ask four\n").await;
    early.expect("answer 4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_limits_are_those_of_connections_that_come_later() {
    let house = House::new();
    let address = tcp(&house).await;
    let mut early = Client::new(TcpStream::connect(address).await.expect("a connection"));
    early.log_in().await;
    house.driver.set_limits(Limits { connections_max: 1, ..Limits::default() }.into());
    let mut late = Client::new(TcpStream::connect(address).await.expect("a connection"));
    late.expect_end().await;
    early.send("ask four\n").await;
    early.expect("answer 4").await;
    house.driver.set_limits(Limits::default().into());
    Client::new(TcpStream::connect(address).await.expect("a connection")).log_in().await;
}
