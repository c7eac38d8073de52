//! Numbers and texts on the wire, big-endian as in both protocols.

/// Reads from the front of a packet or frame; a packet that ends early fails the test.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A text behind one byte of length. It may be anything in AMQP; what is not UTF-8 is shown so.
    pub(crate) fn short(&mut self) -> String {
        let length = usize::from(self.u8());
        String::from_utf8_lossy(self.take(length)).into_owned()
    }

    /// Bytes behind four bytes of length.
    pub(crate) fn long(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.u32()).unwrap();
        self.take(length)
    }

    /// Bytes behind two bytes of length.
    pub(crate) fn binary(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.take(length)
    }

    /// A text behind two bytes of length.
    pub(crate) fn text(&mut self) -> String {
        text(self.binary())
    }

    /// The variable byte integer of MQTT; `None` when more bytes must come.
    pub(crate) fn var(&mut self) -> Option<u32> {
        let mut value = 0;
        for step in 0..4 {
            let byte = *self.0.first()?;
            self.0 = &self.0[1..];
            value |= u32::from(byte & 0x7F) << (7 * step);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        panic!("a variable byte integer has more than four bytes");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the server sends UTF-8")
}

pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("a short text has at most 255 bytes"));
    out.extend_from_slice(bytes);
}

pub(crate) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_var(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7F).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}
