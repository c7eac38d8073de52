//! Spans of messages, as a collector of OpenTelemetry gets them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::Server;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that takes everything, and what it has got.
fn collector() -> (u16, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (got, spans) = channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            while let Some(body) = request(&mut reader) {
                let all = body["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
                for span in all.as_array().unwrap() {
                    let _ = got.send(span.clone());
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                              Content-Length: 2\r\n\r\n{}";
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (port, spans)
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<Value> {
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Some(serde_json::from_slice(&body).unwrap())
}

/// A client of STOMP that has logged in.
fn stomp(server: &Server) -> BufReader<TcpStream> {
    let mut socket = server.connect("stomp");
    socket.write_all(b"CONNECT\nlogin:guest\npasscode:guest\n\n\0").unwrap();
    let mut reader = BufReader::new(socket);
    assert!(frame(&mut reader).starts_with("CONNECTED"));
    reader
}

fn frame(reader: &mut BufReader<TcpStream>) -> String {
    let mut bytes = Vec::new();
    reader.read_until(0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap().trim_start_matches('\n').to_owned()
}

#[test]
fn a_publish_and_each_delivery_have_a_span_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (port, spans) = collector();
    let endpoint = format!("tracing.endpoint=http://127.0.0.1:{port}");
    let server = Server::start(dir.path(), &["--dev", "--set", &endpoint]);
    let mut readers: Vec<_> = (0..2).map(|_| stomp(&server)).collect();
    for reader in &mut readers {
        let subscribe = b"SUBSCRIBE\nid:1\ndestination:/topic/t\nreceipt:r\n\n\0";
        reader.get_mut().write_all(subscribe).unwrap();
        assert!(frame(reader).starts_with("RECEIPT"));
    }
    let mut publisher = stomp(&server);
    for flags in ["00", "01"] {
        let send = format!(
            "SEND\ndestination:/topic/t\nauthorization:s3cret\n\
             traceparent:00-{TRACE}-{PARENT}-{flags}\ntracestate:a=1\n\nx\0"
        );
        publisher.get_mut().write_all(send.as_bytes()).unwrap();
    }
    let mut seen: Vec<String> = readers
        .iter_mut()
        .map(|reader| {
            let unsampled = frame(reader);
            let same = format!("traceparent:00-{TRACE}-{PARENT}-00\n");
            assert!(unsampled.contains(&same), "{unsampled}");
            let sampled = frame(reader);
            assert!(sampled.contains("tracestate:a=1\n"), "{sampled}");
            let (_, rest) = sampled.split_once(&format!("traceparent:00-{TRACE}-")).unwrap();
            rest[..16].to_owned()
        })
        .collect();

    let wait = Duration::from_secs(60);
    let got: Vec<Value> = (0..3).map(|_| spans.recv_timeout(wait).unwrap()).collect();
    let of = |word: &str| -> Vec<&Value> {
        let named = |span: &&Value| span["name"].as_str().unwrap().starts_with(word);
        got.iter().filter(named).collect()
    };
    let (published, delivered) = (of("publish"), of("deliver"));
    assert_eq!((published.len(), delivered.len()), (1, 2), "{got:?}");
    assert_eq!(published[0]["parentSpanId"], PARENT);
    assert_eq!(published[0]["name"], "publish amq.topic:t");
    assert!(got.iter().all(|span| span["traceId"] == TRACE), "{got:?}");
    let all = format!("{got:?}");
    assert!(!all.contains("guest") && !all.contains("s3cret"), "logins are no part: {all}");
    let parent = &published[0]["spanId"];
    assert!(delivered.iter().all(|span| span["parentSpanId"] == *parent), "{got:?}");
    let mut ids: Vec<_> =
        delivered.iter().map(|span| span["spanId"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    seen.sort();
    assert_eq!(seen, ids, "each receiver finds the span of its own delivery");
    assert_ne!(ids[0], ids[1]);
}

/// An answer of HTTP with its headers.
fn ask(server: &Server, line: &str, headers: &str, body: &str) -> String {
    let mut socket = server.connect("http");
    write!(
        socket,
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn messages_over_http_have_spans_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (port, spans) = collector();
    let endpoint = format!("tracing.endpoint=http://127.0.0.1:{port}");
    let server = Server::start(dir.path(), &["--dev", "--set", &endpoint]);
    let json = "Content-Type: application/json\r\n";
    let queue = "/api/v1/vhosts/~/queues/q";
    let made = ask(&server, &format!("PUT {queue}"), json, "{}");
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let context = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    let sent = ask(&server, &format!("POST {queue}/messages"), &context, "x");
    assert!(sent.starts_with("HTTP/1.1 200"), "{sent}");
    let receive = format!("POST {queue}/messages:receive");
    let taken = ask(&server, &receive, json, r#"{"max":1}"#);
    let wait = Duration::from_secs(60);
    let got: Vec<Value> = (0..2).map(|_| spans.recv_timeout(wait).unwrap()).collect();
    assert_eq!(got[0]["name"], "publish :q", "{got:?}");
    assert_eq!(
        (&got[0]["parentSpanId"], &got[1]["parentSpanId"]),
        (&PARENT.into(), &got[0]["spanId"])
    );
    let own = format!("00-{TRACE}-{}-01", got[1]["spanId"].as_str().unwrap());
    assert!(taken.contains(&own), "{taken}");
}
