//! Headers of HTTP, batches of events, receipts, logins.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use polymq_http::strangers::Receipts;

use super::Seed;

/// Headers of publishes; a `|` stands for the end of a line.
const HEADS: [&str; 16] = [
    "Content-Type: text/plain|Content-Encoding: gzip||hi",
    "Mq-Message-Id: urn:uuid:00112233-4455-6677-8899-aabbccddeeff|Mq-Type: t||",
    "Mq-Correlation-Id: 7|Mq-Correlation-Kind: ulong||x",
    "Mq-Correlation-Id: b64:/wA=|Mq-Correlation-Kind: binary||x",
    "Mq-Reply-To: /exchanges/amq.topic/r.1|Mq-App-Id: app|Mq-Group-Id: g||",
    "Mq-Priority: 255|Mq-Expiration: 30000|Mq-Persistent: false|Mq-Retain: true||v",
    "Mq-Timestamp: 1700000000|Mq-Delay: 5|Mq-Qos: 2|Mq-Text: true||\u{e9}",
    "Mq-Timestamp: 2030-01-01T00:00:00.123+02:00|Mq-User-Id: u||",
    "Mq-Headers: {\"n\":5,\"f\":1.5,\"l\":[1,null,{\"$t\":\"i8\",\"v\":3}],\"$$t\":1}||",
    "Mq-Headers: {\"a\":\"\\u007f\",\"\":true,\"x-death\":1,\"x-mq-id\":\"i\"}||",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01|baggage: a=b||",
    "traceparent: a|Mq-Headers: {\"traceparent\":\"b\",\"tracestate\":5}||",
    "ce-specversion: 1.0|ce-id: 1|ce-source: /s|ce-type: t|ce-subject: Euro%20%E2%82%AC||{}",
    "ce-specversion: 1.0|ce-id: 1|ce-source: s|ce-type: t|ce-data: 5|Content-Type: a/json||[1]",
    "ce-specversion: 2.0|ce-id: %||",
    "Mq-Prioriti: 5|Mq-Headers: [1]|Mq-Timestamp: soon||",
];

const BATCHES: [&str; 8] = [
    "[]",
    r#"[{"specversion":"1.0","id":"1","type":"t","source":"/s","data":{"a":[1,2]}},{}]"#,
    r#"[{"a":1},5]"#,
    r#"[ {"a" : "é\ud83d\ude00"} , { "b":1e400 } ]"#,
    r#"{"specversion":"1.0"}"#,
    r#"[{"a":1},]"#,
    "[{\"a\":\"\\ud800\"}]",
    "[{\"data_base64\":\"AP8=\"}] x",
];

const LOGINS: [&str; 10] = [
    "Basic dTpwOnc=",
    "bAsIc  dTpw ",
    "Basic dXNlcg==",
    "Basic !!",
    "Basic /////w==",
    "Basic OnA=",
    "Bearer abc",
    "Bearer ",
    "Digest x",
    "",
];

/// The server's half of the nonce of the target.
const NONCE: &str = "BQUFBQUFBQUFBQUFBQUFBQUFBQUF";

fn scram() -> Vec<(u8, String)> {
    let last = |binding: &[u8], nonce: &str, bytes: usize| {
        let (binding, proof) = (STANDARD.encode(binding), STANDARD.encode(vec![3; bytes]));
        format!("c={binding},r={nonce}{NONCE},p={proof}")
    };
    let bound = [&b"p=tls-exporter,,"[..], &[9; 32]].concat();
    vec![
        (0, format!("n,,n=user,r=abc\n{}", last(b"n,,", "abc", 32))),
        (1, format!("y,,n=user,r=abc\n{}", last(b"y,,", "abc", 20))),
        (0, format!("n,a=a=2Cb,n=a=2Cb,r=x,ext=1\n{}", last(b"n,a=a=2Cb,", "x", 32))),
        (6, format!("p=tls-exporter,,n=user,r=abc\n{}", last(&bound, "abc", 32))),
        (22, "p=tls-server-end-point,,n=user,r=abc\n".to_owned()),
        (0, "n,,m=ext,n=user,r=x".to_owned()),
        (0, "n,a=other,n=user,r=x".to_owned()),
        (0, "n,,n=us=er,r=a b".to_owned()),
        (0, format!("n,,n=u,r={}", "r".repeat(3000))),
        (0, format!("SCRAM-SHA-256$4096:{0}${0}:{0}", STANDARD.encode([4; 32]))),
        (0, format!("SCRAM-SHA-1$1:AA==${0}:{0}", STANDARD.encode([4; 20]))),
        (0, "SCRAM-SHA-256$0:AA==$AA==:AA==".to_owned()),
    ]
}

pub(super) fn add_all(seeds: &mut Vec<Seed>) {
    let mut add = |target: &'static str, at: usize, bytes: Vec<u8>| {
        seeds.push(Seed { target, name: format!("http-{at}"), bytes });
    };
    for (at, head) in HEADS.iter().enumerate() {
        add("http_headers", at, head.replace('|', "\n").into_bytes());
    }
    let deep = format!("Mq-Headers: {{\"a\":{}\n\n", "[".repeat(100_000));
    add("http_headers", HEADS.len(), deep.into_bytes());
    let many: String = (0..2000).map(|at| format!("ce-a{at}: %41\n")).collect();
    add("http_headers", HEADS.len() + 1, format!("ce-specversion: 1.0\n{many}\n").into_bytes());
    for (at, batch) in BATCHES.iter().enumerate() {
        add("http_events", at, batch.as_bytes().to_vec());
    }
    add("http_events", BATCHES.len(), "[{\"a\":".repeat(50_000).into_bytes());
    for (at, login) in LOGINS.iter().enumerate() {
        add("http_authorization", at, login.as_bytes().to_vec());
    }
    add("http_authorization", LOGINS.len(), b"Basic \xff".to_vec());
    let receipts = Receipts::new(&[7; 32]);
    for (at, bearer) in [["u", "/", "q"], ["", "", ""], ["é", "v", "a b"]].iter().enumerate() {
        let text = [bearer.join("\n"), receipts.sign(u64::MAX, *bearer)].join("\n");
        add("http_receipt", at, text.into_bytes());
    }
    add("http_receipt", 3, b"u\n/\nq\nAAAA".to_vec());
    for (at, (mode, text)) in scram().into_iter().enumerate() {
        add("scram", at, [&[mode][..], text.as_bytes()].concat());
    }
}
