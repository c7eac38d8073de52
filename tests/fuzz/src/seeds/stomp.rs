//! Inputs for STOMP.

use super::Seed;

/// CONNECT of a client of this version.
pub fn stomp_connect(version: &str) -> Vec<u8> {
    format!("CONNECT\naccept-version:{version}\nhost:/\nlogin:guest\npasscode:guest\n\n\0")
        .into_bytes()
}

/// A subscription to a queue, with acknowledgements.
pub fn stomp_subscribe() -> Vec<u8> {
    b"SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n\0".to_vec()
}

const SUBSCRIPTIONS: [&str; 4] = [
    "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client-individual\nprefetch-count:3\n\
     receipt:1\n\n\0",
    "SUBSCRIBE\nid:2\ndestination:/topic/a.*.#\nx-priority:5\nx-origin:true\n\n\0",
    "SUBSCRIBE\nid:3\ndestination:/exchange/x/k\ndurable:true\nauto-delete:false\n\n\0",
    "SUBSCRIBE\nid:4\ndestination:/amq/queue/b\nselector:\n\n\0",
];

const SENDS: [&str; 9] = [
    "SEND\ndestination:/topic/t\n\nplain\0\n",
    "SEND\ndestination:/queue/q\ncontent-length:3\nx-max-length:9\n\na\0b\0",
    "SEND\ndestination:/exchange/amq.headers\nfoo:1\nfoo:2\npriority:7\npersistent:true\n\n\0",
    "SEND\ndestination:/topic/%C3%A9.100%\nk\\cx:a\\nb\\\\c\\cd\nreceipt:r\n\n\0",
    "SEND\ndestination:/reply-queue/amq.gen-1\nexpiration:5\nexpires:1700000000001\n\n\0",
    "SEND\ndestination:/queue/q\nreply-to:/temp-queue/x\ncorrelation-id:c\n\n\0",
    "SEND\ndestination:/topic/t\nx-death:[]\nx-mq-ttl:4\nx-mq-types:a=i32;b=list\na:5\nb:[1]\n\n\0",
    "SEND\ndestination:/topic/t\nx-mq-extra:[[\"a\",\"str\",\"b\"]]\nx-mq-multi:a,a\na:1\n\n\0",
    "SEND\ndestination:/topic/t\ntimestamp:1700000000\ntype:k\nJMSXGroupID:g\nuser-id:guest\n\n\0",
];

const TRANSACTION: [&str; 4] = [
    "BEGIN\ntransaction:t\nreceipt:b\n\n\0",
    "SEND\ndestination:/topic/t\ntransaction:t\n\nx\0",
    "COMMIT\ntransaction:t\nreceipt:c\n\n\0",
    "BEGIN\ntransaction:u\n\n\0ABORT\ntransaction:u\n\n\0",
];

const ENDINGS: [&str; 8] = [
    "UNSUBSCRIBE\nid:2\nreceipt:u\n\n\0",
    "UNSUBSCRIBE\nid:3\ndurable:true\n\n\0",
    "ACK\nid:x-1-1\nmessage-id:x-1-1\nsubscription:1\n\n\0",
    "NACK\nid:x-1-1\nmessage-id:x-1-1\nrequeue:false\nx-retry-after:5\nx-reason:bad\n\n\0",
    "DISCONNECT\nreceipt:d\n\n\0",
    "\n\n\r\n\n",
    "SEND\ndestination:/nowhere\nreceipt:e\n\n\0",
    "CONNECT\naccept-version:1.2\n\n\0",
];

/// Known attacks: lying lengths, what does not end, what injects.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("length-minus-1", text("SEND\ndestination:/topic/t\ncontent-length:-1\n\nx\0")),
        (
            "length-huge",
            text("SEND\ndestination:/topic/t\ncontent-length:99999999999999999999\n\n"),
        ),
        ("length-16-mib", text("SEND\ndestination:/topic/t\ncontent-length:16777216\n\n")),
        ("length-short", text("SEND\ndestination:/topic/t\ncontent-length:1\n\nabc\0")),
        (
            "length-twice",
            text("SEND\ndestination:/topic/t\ncontent-length:1\ncontent-length:9\n\na\0"),
        ),
        ("endless-header", [text("SEND\nk:"), vec![b'v'; 100_000]].concat()),
        ("endless-line", vec![b'S'; 100_000]),
        ("many-headers", [text("SEND\n"), b"a:b\n".repeat(10_000)].concat()),
        ("nul-in-header", text("SEND\ndestination:/topic/t\nk:a\0b\n\n\0")),
        ("not-utf-8", b"SEND\ndestination:/topic/t\nk:\xFF\xFE\n\n\0".to_vec()),
        ("bad-escape", text("SEND\ndestination:/topic/t\nk:\\t\n\n\0")),
        ("injection", text("SEND\ndestination:/topic/t\nk:a\\ncontent-length\\c0\\n\\n\n\n\0")),
        ("receipt-injection", text("SEND\ndestination:/nowhere\nreceipt:a\\nb\n\n\0")),
        ("carriage-returns", text("SEND\r\ndestination:/topic/t\r\nk:a\rb\r\n\r\nx\0")),
        ("deep-key", text(&format!("SEND\ndestination:/topic/{}\n\n\0", ".".repeat(300)))),
    ]
}

pub(super) fn stomp(seeds: &mut Vec<Seed>) {
    let mut push = |target, name: String, bytes| seeds.push(Seed { target, name, bytes });
    for version in ["1.0", "1.1", "1.2", "1.0,1.1,1.2", "9.9", ""] {
        push("stomp_stranger", format!("connect-{version}"), stomp_connect(version));
    }
    for (name, text) in [
        ("old", "CONNECT\nlogin: guest\npasscode: guest\n\n\0\n"),
        ("beats", "STOMP\r\naccept-version:1.1\r\nheart-beat:1,4294967295\r\n\r\n\0\n\n"),
        ("bad-beats", "CONNECT\naccept-version:1.2\nheart-beat:x,-1\n\n\0"),
        ("http", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        push("stomp_stranger", name.to_owned(), text.as_bytes().to_vec());
    }
    let groups = [&SUBSCRIPTIONS[..], &SENDS, &TRANSACTION, &ENDINGS];
    for mode in 0..3_u8 {
        let all = SENDS.concat() + &SUBSCRIPTIONS.concat();
        push("stomp_session", format!("{mode}-all"), [&[mode][..], all.as_bytes()].concat());
        for (at, frame) in groups.concat().iter().enumerate() {
            let bytes = [&[mode][..], frame.as_bytes()].concat();
            push("stomp_session", format!("{mode}-{at}"), bytes);
        }
        for (name, attack) in attacks() {
            push("stomp_session", format!("{mode}-{name}"), [vec![mode], attack].concat());
        }
    }
    for (at, frame) in groups.concat().iter().enumerate() {
        push("stomp_codec", format!("frame-{at}"), frame.as_bytes().to_vec());
        let head = frame.split("\n\n").next().unwrap_or_default();
        let lines = head.split_once('\n').map_or("", |(_, lines)| lines);
        let len = u8::try_from(lines.len()).unwrap_or(u8::MAX);
        let piece = [0, len].into_iter().chain(lines.bytes());
        let piece: Vec<u8> = piece.collect();
        push("stomp_frames", format!("send-{at}"), [vec![2], piece.clone(), piece].concat());
    }
    for (name, attack) in attacks() {
        push("stomp_codec", name.to_owned(), attack);
    }
}
