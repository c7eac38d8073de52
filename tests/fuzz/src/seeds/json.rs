//! Message objects.

use super::Seed;

/// Objects that are right, and some that are not, one a line.
const OBJECTS: &str = r#"
{"exchange":"","routing_key":"q","payload":"hi"}
{"exchange":"amq.topic","routing_key":"a.b","payload":[1,2.5e300],"payload_encoding":"json"}
{"payload":"/wA=","payload_encoding":"base64","properties":{"content_encoding":"gzip"}}
{"properties":{"content_type":"a/b","delivery_mode":1,"priority":255,"text":true}}
{"properties":{"correlation_id":"7","correlation_kind":"ulong"}}
{"properties":{"message_id":"urn:uuid:00112233-4455-6677-8899-aabbccddeeff"}}
{"properties":{"reply_to":"/exchanges/amq.topic/r.1","expiration":"5000","ttl":9000,"qos":2}}
{"properties":{"expires_at":"2030-01-01T00:00:00Z","timestamp":1,"timestamp_ms":1001,"delay":5}}
{"properties":{"headers":{"n":5,"f":1.5,"t":"x","l":[1,null,{"$t":"i8","v":3}],"$$t":1}}}
{"properties":{"headers":{"b":"/wA=","d":"12.50"},"header_types":{"/b":"bytes","/d":"dec"}}}
{"properties":{"header_list":[["a",1],["a","2"]],"header_types":{"/0/1":"u16"}}}
{"properties":{"header_list":[["a",1],["a","2"]],"first_counts":true}}
{"properties":{"headers":{"x-death":1,"x-mq-id":"i","x-mq-types":"a=i32","a":"5"}}}
{"properties":{"headers":{"cloudEvents_specversion":"1.0","x-durability":"os"}}}
{"receipt":"r","seq":1,"redelivered":true,"delivery_count":2,"death":[{}],"payload":"x"}
{"properties":{"headers":{"a\u0000b":"\ud83d\ude00","":""}},"routing_key":"\u00e9.\n"}
{"paylod":1}
{"payload":"a","payload":"b"}
"#;

pub(super) fn add_all(seeds: &mut Vec<Seed>) {
    for (number, line) in OBJECTS.lines().filter(|line| !line.is_empty()).enumerate() {
        let (name, bytes) = (format!("object-{number}"), line.as_bytes().to_vec());
        seeds.push(Seed { target: "json_message", name, bytes });
    }
    let deep = ["[", "{\"a\":"]
        .map(|open| format!("{{\"properties\":{{\"headers\":{{\"a\":{}", open.repeat(100_000)));
    for (number, text) in deep.into_iter().enumerate() {
        let (name, bytes) = (format!("deep-{number}"), text.into_bytes());
        seeds.push(Seed { target: "json_message", name, bytes });
    }
}
