//! A stand-in for an MQTT broker that copies a publisher's bytes to the subscriber unread.
//!
//! It shows what sockets and generator cost: no broker can be faster than this on the machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Size of the copy buffer.
const COPY_BUFFER: usize = 256 * 1024;
/// First byte of a SUBSCRIBE packet.
const SUBSCRIBE: u8 = 0x82;
/// Answer that accepts a client of MQTT 3.1.1.
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
/// Answer that accepts a client of MQTT 5.
const CONNACK_V5: [u8; 5] = [0x20, 3, 0, 0, 0];
/// Answer that grants QoS 0 to packet identifier 1.
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];

type Subscriber = Arc<Mutex<Option<TcpStream>>>;

/// Accepts clients for ever; the latest subscriber gets what any publisher sends.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let subscriber = Subscriber::default();
    for stream in listener.incoming() {
        let (stream, subscriber) = (stream?, Arc::clone(&subscriber));
        thread::spawn(move || {
            // A client that leaves ends its own thread and nothing else.
            let _ = attend(stream, &subscriber);
        });
    }
    Ok(())
}

fn attend(mut stream: TcpStream, subscriber: &Subscriber) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; COPY_BUFFER];
    // The generator sends CONNECT alone and waits; byte 8 of it is the protocol level.
    if stream.read(&mut buffer)? < 9 {
        return Ok(());
    }
    let is_v5 = buffer[8] == 5;
    stream.write_all(if is_v5 { &CONNACK_V5 } else { &CONNACK })?;
    let read = stream.read(&mut buffer)?;
    if buffer[0] == SUBSCRIBE && read > 0 {
        let answer: &[u8] = if is_v5 { &[0x90, 4, 0, 1, 0, 0] } else { &SUBACK };
        stream.write_all(answer)?;
        *subscriber.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        return Ok(());
    }
    let sink = subscriber.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut sink) = sink.as_ref().map(TcpStream::try_clone).transpose()? else {
        return Ok(());
    };
    sink.write_all(&buffer[..read])?;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => sink.write_all(&buffer[..read])?,
        }
    }
}
