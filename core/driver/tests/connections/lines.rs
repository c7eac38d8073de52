//! Connections that become encrypted, and sessions that go on over another socket.

use std::sync::Arc;

use polymq_contract::DisconnectCause;
use polymq_driver::{ClientCertificates, Tls, server_config};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    tls::Authority,
    toy::{Client, House, Seen, any_port, listener_with},
};

fn serve(house: &House, authority: &Authority) -> std::net::SocketAddr {
    let server = authority.server();
    let (certificate, key) = (server.certificate.as_bytes(), server.key.as_bytes());
    let config = server_config(certificate, key, ClientCertificates::Ignored);
    let tls = Tls::new(config.expect("settings"), None).with_certificates(certificate);
    let listener = listener_with(any_port(), None, Some(Arc::new(tls)));
    let address = listener.local_addr().expect("a TCP address");
    house.driver.serve(listener).expect("a runtime");
    address
}

async fn go(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.expect("an open connection");
    let mut answer = [0; 3];
    socket.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"go\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_becomes_encrypted_on_the_way() {
    let house = House::new();
    let authority = Authority::new();
    let mut socket = TcpStream::connect(serve(&house, &authority)).await.expect("a port");
    go(&mut socket, "tls\n").await;
    let name = ServerName::try_from("localhost").expect("a name");
    let secured = authority.connector(None).connect(name, socket).await.expect("a handshake");
    let mut client = Client::new(secured);
    client.log_in().await;
    client.send("say encrypted\nbye\n").await;
    client.expect("encrypted").await;
    client.expect("bye").await;
    client.expect_end().await;
}

#[tokio::test] // Reliability case A11.
async fn bytes_sent_behind_the_request_for_tls_end_the_connection() {
    let house = House::new();
    let authority = Authority::new();
    let mut socket = TcpStream::connect(serve(&house, &authority)).await.expect("a port");
    go(&mut socket, "tls\nhello\nsay injected\n").await;
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("an end");
    assert_eq!(rest, b"", "nothing of it is heard");
    assert_eq!(house.closed_by("session"), 1);
}

#[tokio::test]
async fn broken_handshake_ends_the_connection() {
    let house = House::new();
    let authority = Authority::new();
    let mut socket = TcpStream::connect(serve(&house, &authority)).await.expect("a port");
    go(&mut socket, "tls\n").await;
    socket.write_all(b"this is no handshake at all\n").await.expect("an open connection");
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    while house.closed_by("handshake") == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn session_goes_on_over_the_socket_of_another() {
    let mut house = House::new();
    let (mut first, _) = house.guest(4096).await;
    first.send("resumable k\n").await;
    first.expect("kept").await;
    drop(first);
    let (mut second, _) = house.guest(4096).await;
    second.send("resume k\nsay still here\n").await;
    second.expect("back").await;
    second.expect("still here").await;
    second.send("ask x\n").await;
    second.expect("answer 1").await;
    let mut ended = 0;
    loop {
        match house.next().await {
            Seen::Disconnected(cause) => {
                assert_eq!(cause, DisconnectCause::Session);
                ended += 1;
            }
            Seen::Asked(queue) if queue == "x" => break,
            _ => {}
        }
    }
    assert_eq!(ended, 1, "only the connection that brought the socket");
    second.send("bye\n").await;
    second.expect("bye").await;
    assert_eq!(house.closed_by("handed_over"), 1);
}

#[tokio::test]
async fn socket_that_stands_is_replaced() {
    let mut house = House::new();
    let (mut first, _) = house.guest(4096).await;
    first.send("resumable k\n").await;
    first.expect("kept").await;
    let (mut second, _) = house.guest(4096).await;
    second.send("resume k\n").await;
    second.expect("back").await;
    first.expect_end().await;
}

#[tokio::test]
async fn unknown_key_is_told_and_the_session_goes_on() {
    let mut house = House::new();
    let (mut client, _) = house.guest(4096).await;
    client.send("resume nobody\nsay on\n").await;
    client.expect("gone").await;
    client.expect("on").await;
}

#[tokio::test]
async fn session_that_has_ended_is_not_resumed() {
    let mut house = House::new();
    let (mut first, _) = house.guest(4096).await;
    first.send("resumable k\nbye\n").await;
    first.expect("kept").await;
    first.expect("bye").await;
    first.expect_end().await;
    let mut second = house.client(4096);
    second.log_in().await;
    second.send("resume k\n").await;
    second.expect("gone").await;
}
