//! Reads the data types of section 1.5 from a slice.

use super::Fault;

/// A cursor over the bytes of one packet.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| Fault::malformed("the packet ends within a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| Fault::malformed("the packet ends within a field"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Fault> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A variable byte integer, which must use no more bytes than it needs [MQTT-1.5.5-1].
    pub fn var_int(&mut self) -> Result<u32, Fault> {
        match var_int(self.rest)? {
            Some(found) if found.minimal => {
                self.bytes(found.len)?;
                Ok(found.value)
            }
            Some(_) => Err(Fault::malformed("a variable byte integer is longer than needed")),
            None => Err(Fault::malformed("the packet ends within a field")),
        }
    }

    /// A UTF-8 string: well-formed, and without U+0000 [MQTT-1.5.4-1, -2].
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Fault::malformed("a string is not well-formed UTF-8"))?;
        if bytes.contains(&0) {
            return Err(Fault::malformed("a string holds the character U+0000"));
        }
        Ok(text)
    }

    /// Bytes behind their length.
    pub fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// A packet identifier, which is never zero [MQTT-2.2.1-3].
    pub fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(Fault::protocol("a packet identifier is zero")),
            id => Ok(id),
        }
    }

    /// The properties of a packet, without their length.
    pub fn properties(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.var_int()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.bytes(len).map_err(|_| Fault::malformed("the property length goes beyond the packet"))
    }

    /// Fails when bytes are left that no field accounts for.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Fault::malformed("bytes follow the last field of the packet"))
    }
}

/// A variable byte integer at the front of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VarInt {
    /// Its value.
    pub value: u32,
    /// Bytes it takes.
    pub len: usize,
    /// False when fewer bytes would have done.
    pub minimal: bool,
}

/// Reads a variable byte integer; `None` when more bytes are needed.
///
/// Errors: a fault when the fourth byte asks for a fifth.
pub fn var_int(bytes: &[u8]) -> Result<Option<VarInt>, Fault> {
    let mut value = 0;
    for (len, (byte, shift)) in (1..).zip(bytes.iter().zip([0u32, 7, 14, 21])) {
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let minimal = len == 1 || *byte != 0;
            return Ok(Some(VarInt { value, len, minimal }));
        }
    }
    if bytes.len() >= 4 {
        return Err(Fault::malformed("a variable byte integer has more than four bytes"));
    }
    Ok(None)
}
