//! Typed header values, the same whatever protocol they came from.

/// Headers in the order they were written; a name may repeat.
pub type Table = Vec<(String, Value)>;

/// A header value. Its type never depends on the length of what it holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// Truth value.
    Bool(bool),
    /// Signed 8 bits.
    I8(i8),
    /// Unsigned 8 bits.
    U8(u8),
    /// Signed 16 bits.
    I16(i16),
    /// Unsigned 16 bits.
    U16(u16),
    /// Signed 32 bits.
    I32(i32),
    /// Unsigned 32 bits.
    U32(u32),
    /// Signed 64 bits.
    I64(i64),
    /// Unsigned 64 bits.
    U64(u64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// `unscaled` times ten to the power of minus `scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits as a number.
        unscaled: i128,
    },
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// 16 bytes.
    Uuid([u8; 16]),
    /// Opaque bytes.
    Bytes(Vec<u8>),
    /// A long string of AMQP that is not UTF-8.
    LongString(Vec<u8>),
    /// Text.
    String(String),
    /// A symbol of AMQP 1.0.
    Symbol(String),
    /// A character of AMQP 1.0.
    Char(char),
    /// Values in order.
    List(Vec<Value>),
    /// Named values in order.
    Map(Table),
}

impl Value {
    /// The value as an integer, when it is one or is decimal text, which MQTT and STOMP clients
    /// send.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::I8(v) => Some(i64::from(*v)),
            Self::U8(v) => Some(i64::from(*v)),
            Self::I16(v) => Some(i64::from(*v)),
            Self::U16(v) => Some(i64::from(*v)),
            Self::I32(v) => Some(i64::from(*v)),
            Self::U32(v) => Some(i64::from(*v)),
            Self::I64(v) => Some(*v),
            Self::U64(v) => i64::try_from(*v).ok(),
            Self::String(text) => text.parse().ok(),
            Self::Null
            | Self::Bool(_)
            | Self::F32(_)
            | Self::F64(_)
            | Self::Decimal { .. }
            | Self::Timestamp(_)
            | Self::Uuid(_)
            | Self::Bytes(_)
            | Self::LongString(_)
            | Self::Symbol(_)
            | Self::Char(_)
            | Self::List(_)
            | Self::Map(_) => None,
        }
    }

    /// The value as text, when it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) | Self::Symbol(text) = self { Some(text) } else { None }
    }

    /// The value as a truth value: a boolean, or the words `true` and `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            Self::String(text) if text == "true" => Some(true),
            Self::String(text) if text == "false" => Some(false),
            _ => None,
        }
    }
}

/// The last value under `name`, if there is one.
pub fn find<'a>(table: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    table.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
}
