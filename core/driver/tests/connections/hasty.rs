//! Peers that send line by line, many of them: the driver reads those by the clock.

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use polymq_driver::Bind;

use crate::toy::{Client, House, any_port, listener};

const LINES: usize = 20_000;

/// Floods with single lines, talks line by line, and floods again; nothing gets lost.
pub(crate) async fn flood_and_talk<S>(socket: S)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut client = Client::new(socket);
    client.log_in().await;
    for _ in 0..3 {
        client = flood(client).await;
        for number in 0..200 {
            client.send(&format!("say talk {number}\n")).await;
            client.expect(&format!("talk {number}")).await;
        }
    }
    client.send("bye\n").await;
    client.expect("bye").await;
    client.expect_end().await;
}

async fn flood<S>(client: Client<S>) -> Client<S>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Client { mut reader, mut writer } = client;
    let sending = tokio::spawn(async move {
        for number in 0..LINES {
            let line = format!("say flood {number}\n");
            writer.write_all(line.as_bytes()).await.expect("an open connection");
            writer.flush().await.expect("an open connection");
        }
        writer
    });
    let mut line = String::new();
    for number in 0..LINES {
        line.clear();
        reader.read_line(&mut line).await.expect("a line");
        assert_eq!(line, format!("flood {number}\n"));
    }
    Client { reader, writer: sending.await.expect("all is sent") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_peer_that_sends_line_by_line_is_answered_in_order() {
    let house = House::new();
    let listener = listener(any_port(), None);
    let address = listener.local_addr().expect("a port");
    house.driver.serve(listener).expect("a runtime");
    let socket = TcpStream::connect(address).await.expect("a connection");
    socket.set_nodelay(true).expect("an option");
    flood_and_talk(socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_peer_that_sends_line_by_line_is_answered_in_order() {
    let house = House::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("toy.sock");
    house.driver.serve(listener(Bind::Unix(path.clone()), None)).expect("a runtime");
    flood_and_talk(UnixStream::connect(path).await.expect("a connection")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_reads_only_when_it_cannot_write_gets_every_answer() {
    let house = House::new();
    let listener = listener(any_port(), None);
    let address = listener.local_addr().expect("a port");
    house.driver.serve(listener).expect("a runtime");
    let socket = TcpStream::connect(address).await.expect("a connection");
    let line = format!("say {}\n", "x".repeat(500));
    let (mut sent, mut due, mut answers) = (0, 0, 0);
    let mut answer = vec![0; 1 << 20];
    let mut hello = "hello\n".as_bytes();
    while due < 30_000_000 || answers < due {
        let bytes = if hello.is_empty() { &line.as_bytes()[sent % line.len()..] } else { hello };
        let written = if due < 30_000_000 { socket.try_write(bytes) } else { Ok(0) };
        match written {
            Ok(count) if count > 0 && !hello.is_empty() => {
                hello = &hello[count..];
                due = if hello.is_empty() { "welcome\n".len() } else { 0 };
            }
            Ok(count) if count > 0 => {
                sent += count;
                due += if sent % line.len() == 0 { line.len() - "say ".len() } else { 0 };
            }
            Ok(_) | Err(_) => {
                socket.readable().await.expect("an open connection");
                answers += socket.try_read(&mut answer).unwrap_or(0);
            }
        }
    }
    assert_eq!(answers, due);
}
