//! MQTT 3.1.1, as far as a load test speaks it.

use anyhow::bail;

use super::{Client, Plan, wire::Wire};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PACKET_MAX: usize = 1 << 20;

pub(super) struct Mqtt {
    wire: Wire,
    is_confirmed: bool,
    next_id: u16,
    confirmed: u64,
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(head: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    out.push(head);
    let mut left: usize = body.iter().map(|part| part.len()).sum();
    loop {
        let seven = u8::try_from(left % 128).unwrap_or(0);
        left /= 128;
        out.push(if left > 0 { seven | 0x80 } else { seven });
        if left == 0 {
            break;
        }
    }
    body.iter().for_each(|part| out.extend_from_slice(part));
}

/// The first whole packet: its first byte, its body and how many bytes it takes.
fn first(bytes: &[u8]) -> anyhow::Result<Option<(u8, &[u8], usize)>> {
    let Some((head, rest)) = bytes.split_first() else { return Ok(None) };
    let (mut size, mut shift) = (0_usize, 0_u32);
    for (index, byte) in rest.iter().take(4).enumerate() {
        size |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            if size > PACKET_MAX {
                bail!("the broker sends a packet of {size} bytes");
            }
            let begin = index + 2;
            let body = bytes.get(begin..begin + size);
            return Ok(body.map(|body| (*head, body, begin + size)));
        }
    }
    if rest.len() >= 4 { bail!("the broker does not speak MQTT") } else { Ok(None) }
}

impl Mqtt {
    pub(super) fn open(plan: &Plan, name: &str) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(plan.address)?;
        let mut body = b"\0\x04MQTT\x04".to_vec();
        // User name, password, clean session; no keep-alive.
        body.extend_from_slice(&[0xc2, 0, 0]);
        for part in [name, &plan.user, &plan.password] {
            text(part, &mut body);
        }
        packet(CONNECT, &[&body], &mut wire.out);
        let is_confirmed = plan.is_confirmed;
        let mut client = Self { wire, is_confirmed, next_id: 0, confirmed: 0 };
        match client.expect(CONNACK)?.get(1) {
            Some(0) => Ok(client),
            Some(4 | 5) => bail!("the broker refuses the login"),
            code => bail!("the broker refuses the connection ({code:?})"),
        }
    }

    fn expect(&mut self, wanted: u8) -> anyhow::Result<Vec<u8>> {
        self.wire.ask(|wire| {
            let Some((head, body, size)) = first(wire.waiting())? else { return Ok(None) };
            let body = body.to_vec();
            wire.take(size);
            if head & 0xf0 == wanted {
                return Ok(Some(body));
            }
            bail!("the broker sends a packet of type {}", head >> 4)
        })
    }

    fn id(&mut self) -> [u8; 2] {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id.to_be_bytes()
    }
}

impl Client for Mqtt {
    fn publish(&mut self, place: &str, body: &[u8]) {
        let mut topic = Vec::with_capacity(place.len() + 4);
        text(place, &mut topic);
        let head = if self.is_confirmed {
            topic.extend_from_slice(&self.id());
            PUBLISH | 2
        } else {
            PUBLISH
        };
        packet(head, &[&topic, body], &mut self.wire.out);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.wire.flush()
    }

    fn read(&mut self, on_message: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        if first(self.wire.waiting())?.is_none() {
            self.wire.fill()?;
        }
        let mut acks = Vec::new();
        while let Some((head, body, size)) = first(self.wire.waiting())? {
            match head & 0xf0 {
                PUBLISH => {
                    let topic = body.first_chunk().map_or(0, |two| u16::from_be_bytes(*two));
                    let mut begin = 2 + usize::from(topic);
                    if head & 6 != 0 {
                        packet(
                            PUBACK,
                            &[body.get(begin..begin + 2).unwrap_or_default()],
                            &mut acks,
                        );
                        begin += 2;
                    }
                    on_message(body.get(begin..).unwrap_or_default());
                }
                PUBACK => self.confirmed += 1,
                _ => {}
            }
            self.wire.take(size);
        }
        self.wire.out.extend_from_slice(&acks);
        self.wire.flush()
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn prepare(&mut self, place: &str, consumes: bool) -> anyhow::Result<()> {
        if !consumes {
            return Ok(());
        }
        let mut filter = self.id().to_vec();
        text(place, &mut filter);
        filter.push(u8::from(self.is_confirmed));
        packet(SUBSCRIBE, &[&filter], &mut self.wire.out);
        match self.expect(SUBACK)?.get(2) {
            Some(0..=2) => Ok(()),
            _ => bail!("the broker refuses the subscription"),
        }
    }

    fn remove(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        packet(PUBLISH, &[&[0; 300], b"x"], &mut bytes);
        let (head, body, size) = first(&bytes).unwrap().unwrap();
        assert_eq!((head, body.len(), size), (PUBLISH, 301, 304));
        assert!((0..bytes.len()).all(|cut| first(&bytes[..cut]).unwrap().is_none()));
        assert!(
            first(b"HTTP\xff\xff\xff\xff\xff").is_err() || first(b"\x30\xff\xff\xff\xff").is_err()
        );
    }
}
