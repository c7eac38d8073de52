//! Peers that are slower than the broker.

use polymq_contract::DisconnectCause;
use polymq_model::Limits;

use crate::toy::{House, STREAMED_BYTES, Seen, streamed};

const MESSAGES: u64 = 10_000;

fn tight() -> Limits {
    Limits { outbox_bytes_max: 64 * 1024, output_bytes_max: 32 * 1024, ..Limits::default() }
}

#[tokio::test]
async fn a_peer_that_reads_late_gets_everything_and_costs_no_more_than_the_limits() {
    let mut house = House::with(tight());
    let (mut client, outbox) = house.guest(4096).await;
    client.send(&format!("stream {MESSAGES}\n")).await;
    assert!(matches!(house.next().await, Seen::Stalled));
    let mut most = 0;
    for number in 1..=MESSAGES {
        most = most.max(outbox.bytes());
        let line = client.line().await.expect("a message");
        assert_eq!(line, streamed(number).trim_end());
    }
    assert!(most < tight().outbox_bytes_max + 2 * STREAMED_BYTES, "{most}");
    assert_eq!(outbox.bytes(), 0);
}

#[tokio::test]
async fn a_peer_that_never_reads_stalls_only_itself() {
    let mut house = House::with(tight());
    let (mut client, _) = house.guest(4096).await;
    client.send(&format!("stream {MESSAGES}\n")).await;
    assert!(matches!(house.next().await, Seen::Stalled));
    let mut other = house.client(4096);
    other.log_in().await;
    other.send("say hi\n").await;
    other.expect("hi").await;
    drop(client);
    assert_eq!(house.disconnected().await, DisconnectCause::PeerGone);
}

#[tokio::test]
async fn a_peer_that_never_reads_can_be_evicted() {
    let mut house = House::with(tight());
    let (mut client, outbox) = house.guest(4096).await;
    client.send(&format!("stream {MESSAGES}\n")).await;
    assert!(matches!(house.next().await, Seen::Stalled));
    outbox.evict();
    house.disconnected().await;
    assert_eq!(house.closed_by("evicted"), 1);
}

#[tokio::test]
async fn no_more_is_read_from_a_peer_that_takes_no_answers() {
    let mut house = House::with(tight());
    let (mut client, _) = house.guest(1024).await;
    let line = format!("say {}\n", "x".repeat(995));
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let sending = async {
        for _ in 0..1000 {
            client.send(&line).await;
            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let full = tokio::time::timeout(std::time::Duration::from_secs(3600), sending);
    tokio::time::pause();
    assert!(full.await.is_err(), "the driver read a megabyte without sending an answer");
    let sent = sent.into_inner();
    assert!((32..200).contains(&sent), "{sent}");
}
