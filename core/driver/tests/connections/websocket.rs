//! WebSocket: a toy protocol over frames, with the client of tungstenite and with bytes by hand.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use polymq_contract::DisconnectCause;
use polymq_driver::{Form, Incoming};
use polymq_model::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use crate::toy::{House, STREAMED_BYTES, peer, protocols, streamed};

/// A frame of a client, whose mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

impl House {
    /// The client's end of a connection that was upgraded.
    async fn raw_web_socket(&self, form: Form) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("open");
        ours.set_nodelay(true).expect("a socket");
        let (theirs, _) = listener.accept().await.expect("a connection");
        let protocol = protocols().remove(0);
        self.driver.adopt_web_socket(Incoming::tcp(theirs), form, protocol, peer());
        ours
    }

    async fn web_socket(&self, form: Form) -> WebSocketStream<TcpStream> {
        let socket = self.raw_web_socket(form).await;
        WebSocketStream::from_raw_socket(socket, Role::Client, None).await
    }
}

/// The next message, as text.
async fn next(client: &mut WebSocketStream<TcpStream>) -> String {
    let message = client.next().await.expect("a message").expect("good frames");
    String::from_utf8(message.into_data().to_vec()).expect("text")
}

async fn close_code(client: &mut WebSocketStream<TcpStream>) -> Option<CloseCode> {
    loop {
        match client.next().await? {
            Ok(Message::Close(close)) => return close.map(|close| close.code),
            Ok(_) => {}
            Err(error) => panic!("no close frame: {error}"),
        }
    }
}

#[tokio::test]
async fn messages_carry_a_stream_of_bytes() {
    let house = House::new();
    let mut client = house.web_socket(Form::Binary).await;
    client.send(Message::Binary("hel".into())).await.expect("open");
    client.send(Message::Binary("lo\nsay one\nsay two\nask".into())).await.expect("open");
    assert_eq!(next(&mut client).await, "welcome\none\ntwo\n");
    client.send(Message::Binary(" who\n".into())).await.expect("open");
    assert_eq!(next(&mut client).await, "answer 3\n");
}

#[tokio::test]
async fn text_leaves_as_text_where_it_is_some() {
    let house = House::new();
    for (form, is_text) in [(Form::Text, true), (Form::Binary, false)] {
        let mut client = house.web_socket(form).await;
        client.send(Message::Binary("hello\n".into())).await.expect("open");
        let message = client.next().await.expect("a message").expect("good frames");
        assert_eq!(message.is_text(), is_text, "{form:?}");
    }
}

#[tokio::test]
async fn a_long_stream_arrives_whole_while_pings_are_answered() {
    let house = House::new();
    let mut client = house.web_socket(Form::Binary).await;
    client.send(Message::Binary("hello\nstream 3000\n".into())).await.expect("open");
    for _ in 0..20 {
        client.send(Message::Ping("still there?".into())).await.expect("open");
    }
    let mut expected = "welcome\n".to_owned();
    (1..=3000).for_each(|number| expected.push_str(&streamed(number)));
    assert!(expected.len() > 3000 * STREAMED_BYTES);
    let (mut received, mut pongs) = (Vec::new(), 0);
    while received.len() < expected.len() || pongs == 0 {
        match client.next().await.expect("a message").expect("good frames") {
            Message::Binary(bytes) => received.extend_from_slice(&bytes),
            Message::Pong(payload) => {
                assert_eq!(&payload[..], b"still there?");
                pongs += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(received == expected.as_bytes(), "bytes were lost or moved");
}

#[tokio::test]
async fn who_closes_gets_its_code_back_and_the_broker_hears_of_it() {
    let mut house = House::new();
    let mut client = house.web_socket(Form::Binary).await;
    client.send(Message::Binary("hello\n".into())).await.expect("open");
    assert_eq!(next(&mut client).await, "welcome\n");
    let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
    client.close(Some(close)).await.expect("open");
    assert_eq!(close_code(&mut client).await, Some(CloseCode::Away));
    assert!(client.next().await.is_none(), "the server ends the connection");
    assert_eq!(house.disconnected().await, DisconnectCause::PeerGone);
}

#[tokio::test]
async fn a_session_that_ends_closes_normally() {
    let mut house = House::new();
    let mut client = house.web_socket(Form::Binary).await;
    client.send(Message::Binary("hello\nbye\n".into())).await.expect("open");
    assert_eq!(next(&mut client).await, "welcome\nbye\n");
    assert_eq!(close_code(&mut client).await, Some(CloseCode::Normal));
    assert_eq!(house.disconnected().await, DisconnectCause::Session);
}

#[tokio::test]
async fn a_server_that_stops_goes_away() {
    let mut house = House::new();
    let mut client = house.web_socket(Form::Binary).await;
    client.send(Message::Binary("hello\n".into())).await.expect("open");
    let outbox = house.connected().await;
    assert_eq!(next(&mut client).await, "welcome\n");
    let reason = "the server stops".into();
    house.driver.stop_accepting();
    outbox.push(polymq_contract::Event::Closing { reason, shutdown: true });
    assert_eq!(close_code(&mut client).await, Some(CloseCode::Away));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_is_silent_is_told_why_it_must_go() {
    let limits = Limits { login_timeout: Duration::from_millis(50), ..Limits::default() };
    let house = House::with(limits);
    let mut client = house.web_socket(Form::Binary).await;
    assert_eq!(close_code(&mut client).await, Some(CloseCode::Policy));
    assert_eq!(house.closed_by("login_timeout"), 1);
}

#[tokio::test]
async fn who_breaks_the_rules_is_told_the_code_and_cut() {
    let house = House::new();
    let unmasked = vec![0x82, 1, b'x'];
    let huge = vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let large = vec![0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    let cases = [(unmasked, 1002_u16), (huge, 1002), (large, 1009), (frame(0x81, b"text"), 1003)];
    for (bytes, code) in cases {
        let mut client = house.raw_web_socket(Form::Binary).await;
        client.write_all(&bytes).await.expect("open");
        // What comes behind is read away, so that no reset overtakes the close frame.
        client.write_all(&[0; 100_000]).await.expect("open");
        let mut answer = Vec::new();
        let mut head = [0; 4];
        client.read_exact(&mut head).await.expect("a close frame");
        client.shutdown().await.expect("open");
        client.read_to_end(&mut answer).await.expect("the end");
        assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code));
        assert_eq!(answer.len(), usize::from(head[1]) - 2, "nothing else comes");
    }
    assert_eq!(house.closed_by("transport_fault"), 4);
}

#[tokio::test]
async fn a_flood_of_pings_costs_no_memory_and_no_other_client() {
    let house = House::new();
    let mut client = house.raw_web_socket(Form::Binary).await;
    client.write_all(&frame(0x82, b"hello\n")).await.expect("open");
    let mut welcome = [0; 10];
    client.read_exact(&mut welcome).await.expect("an answer");
    // Nobody reads the pongs; those that find no room are replaced by the next ones.
    let pings = frame(0x89, &[b'x'; 100]).repeat(1000);
    for _ in 0..100 {
        client.write_all(&pings).await.expect("open");
    }
    client.write_all(&frame(0x82, b"say done\n")).await.expect("open");
    let mut other = house.web_socket(Form::Binary).await;
    other.send(Message::Binary("hello\n".into())).await.expect("open");
    assert_eq!(next(&mut other).await, "welcome\n");
    let mut tail = Vec::new();
    while !tail.ends_with(b"done\n") {
        assert!(client.read_buf(&mut tail).await.expect("open") > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_pinged_and_lost_when_no_pong_comes() {
    let web_socket_silence = Duration::from_millis(100);
    let mut house = House::with(Limits { web_socket_silence, ..Limits::default() });
    let mut client = house.raw_web_socket(Form::Binary).await;
    client.write_all(&frame(0x82, b"hello\n")).await.expect("open");
    let mut welcome = [0; 10];
    client.read_exact(&mut welcome).await.expect("an answer");
    let mut ping = [0; 2];
    client.read_exact(&mut ping).await.expect("a ping");
    assert_eq!(ping, [0x89, 0]);
    client.write_all(&frame(0x8a, b"")).await.expect("open");
    client.read_exact(&mut ping).await.expect("another ping");
    assert_eq!(ping, [0x89, 0]);
    assert_eq!(house.disconnected().await, DisconnectCause::PeerGone);
}
