//! What a store should hold, in the plainest form, and random batches that change it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use polymq_store::{Batch, BatchWriter, Epoch, Hold, LogId, ReadLimit, Seq, ShardBatch, ShardId};

use crate::{core::LogCore, read, sim::Rng};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) expiry_ms: u64,
    pub(super) flags: u8,
    pub(super) props: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) hold: Option<Hold>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Log {
    pub(super) name: String,
    pub(super) next_seq: u64,
    pub(super) messages: BTreeMap<u64, Message>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Model {
    pub(super) logs: BTreeMap<u32, Log>,
    pub(super) metas: BTreeMap<String, (u64, Vec<u8>)>,
    pub(super) last_batch: u64,
    /// The highest number a log ever had.
    pub(super) last_log: u32,
}

const ALL: ReadLimit = ReadLimit { messages_max: 7, bytes_max: 10_000 };

impl Model {
    /// What `core` holds, read through its own means.
    pub(super) fn of(core: &LogCore) -> Self {
        let opened = core.opened();
        let last_log = opened.next_log.0.saturating_sub(1);
        let mut model = Self { last_batch: opened.last_batch.0, last_log, ..Self::default() };
        for (key, version, value) in opened.metas {
            model.metas.insert(key, (version, value.to_vec()));
        }
        for log in opened.logs {
            let mut messages = BTreeMap::new();
            let mut from = Some(Seq(0));
            while let Some(at) = from {
                let page = read::read(&core.shared, log.id, at, ALL).unwrap();
                from = page.next;
                for m in page.messages {
                    let message = Message {
                        expiry_ms: m.expiry_ms,
                        flags: m.flags,
                        props: m.props.to_vec(),
                        body: m.body.to_vec(),
                        hold: m.hold,
                    };
                    assert!(messages.insert(m.seq.0, message).is_none());
                }
            }
            assert_eq!(log.live_count, messages.len() as u64, "counts equal a full scan");
            let bytes = messages.values().map(|m| (m.props.len() + m.body.len()) as u64);
            assert_eq!(log.live_bytes, bytes.sum::<u64>(), "bytes equal a full scan");
            let next_seq = log.next_seq.0;
            let floor = messages.keys().next().copied().unwrap_or(next_seq);
            assert_eq!(log.floor.0, floor);
            model.logs.insert(log.id.0, Log { name: log.name, next_seq, messages });
        }
        model
    }

    /// Makes up the next batch, and what the store should hold after it.
    pub(super) fn random_batch(&self, rng: &mut Rng, epoch: Epoch) -> (Batch, Self) {
        let mut next = self.clone();
        next.last_batch += 1;
        let number = ShardBatch(next.last_batch);
        let (mut buf, mut records) = (BytesMut::new(), 0);
        let mut writer = BatchWriter::new(number, &mut buf, &mut records);
        for _ in 0..=rng.below(12) {
            next.random_change(rng, &mut writer);
        }
        let batch = Batch { shard: ShardId(0), epoch, number, records, payload: buf.freeze() };
        (batch, next)
    }

    fn random_log(&self, rng: &mut Rng) -> Option<u32> {
        let count = self.logs.len() as u64;
        if count == 0 {
            return None;
        }
        self.logs.keys().nth(usize::try_from(rng.below(count)).unwrap()).copied()
    }

    fn random_change(&mut self, rng: &mut Rng, writer: &mut BatchWriter<'_>) {
        let kind = rng.below(100);
        let Some(id) = self.random_log(rng).filter(|_| kind >= 3) else {
            self.last_log += 1;
            let name = format!("log-{}", self.last_log);
            writer.log_create(LogId(self.last_log), &name);
            self.logs.insert(self.last_log, Log { name, ..Log::default() });
            return;
        };
        match kind {
            0..60 => self.publish(rng, writer, id),
            60..80 => self.ack(rng, writer, id),
            80..88 => self.hold(rng, writer, id),
            88..91 => {
                let log = self.logs.get_mut(&id).unwrap();
                let below = log.next_seq.saturating_sub(rng.below(6));
                writer.purge(LogId(id), Seq(below));
                log.messages.retain(|seq, _| *seq >= below);
            }
            91..92 => {
                writer.log_delete(LogId(id));
                self.logs.remove(&id);
            }
            _ => {
                let key = format!("key-{}", rng.below(20));
                if rng.chance(30) {
                    writer.meta_delete(&key);
                    self.metas.remove(&key);
                } else {
                    let value = bytes(rng, 300);
                    writer.meta_put(&key, &value);
                    self.metas.insert(key, (self.last_batch, value));
                }
            }
        }
    }

    fn publish(&mut self, rng: &mut Rng, writer: &mut BatchWriter<'_>, id: u32) {
        let long_props = if rng.below(400) == 0 { 80_000 } else { 60 };
        let long_body = if rng.below(100) == 0 { 40_000 } else { 1_200 };
        let props = bytes(rng, long_props);
        let body = bytes(rng, long_body);
        let flags = u8::try_from(rng.below(32)).unwrap() << 1;
        let expiry_ms = rng.below(3);
        let log = self.logs.get_mut(&id).unwrap();
        // Gaps are legal.
        let seq = log.next_seq + rng.below(2) * rng.below(5);
        log.next_seq = seq + 1;
        let (front, back) = props.split_at(props.len() / 2);
        let parts = [front, back];
        let first = writer.publish(LogId(id), Seq(seq), expiry_ms, flags, &parts, &body);
        let message = Message { expiry_ms, flags, props, body, hold: None };
        log.messages.insert(seq, message.clone());
        if rng.chance(30) {
            for (other, log) in &mut self.logs {
                let (seq, expiry_ms) = (log.next_seq, rng.below(9));
                log.next_seq += 1;
                assert!(writer.publish_same(LogId(*other), Seq(seq), expiry_ms, first));
                log.messages.insert(seq, Message { expiry_ms, ..message.clone() });
            }
        }
    }

    fn ack(&mut self, rng: &mut Rng, writer: &mut BatchWriter<'_>, id: u32) {
        let log = self.logs.get_mut(&id).unwrap();
        let mut ranges = Vec::new();
        for _ in 0..=rng.below(3) {
            let first = rng.below(log.next_seq + 1);
            let last = first + rng.below(40);
            ranges.push((Seq(first), Seq(last)));
            log.messages.retain(|seq, _| *seq < first || *seq > last);
        }
        writer.ack(LogId(id), &ranges);
    }

    fn hold(&mut self, rng: &mut Rng, writer: &mut BatchWriter<'_>, id: u32) {
        let log = self.logs.get_mut(&id).unwrap();
        let seq = rng.below(log.next_seq + 1);
        let hold = Hold {
            delivery_count: u32::try_from(rng.below(5)).unwrap(),
            acquired_count: u32::try_from(rng.below(5)).unwrap(),
            due_ms: rng.below(3),
        };
        let Hold { delivery_count, acquired_count, due_ms } = hold;
        writer.hold(LogId(id), Seq(seq), delivery_count, acquired_count, due_ms);
        if let Some(message) = log.messages.get_mut(&seq) {
            message.hold = Some(hold);
        }
    }
}

fn bytes(rng: &mut Rng, below: u64) -> Vec<u8> {
    let len = usize::try_from(rng.below(below)).unwrap();
    let byte = u8::try_from(rng.below(256)).unwrap();
    Bytes::from(vec![byte; len]).to_vec()
}
