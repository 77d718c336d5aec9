//! One value of the AMQP 1.0 type system, borrowed from the message's bytes.

use super::cursor::Cursor;
use super::items::{Array, Described, List, Map};
use super::{AmqpError, Decimal};

/// A value. Scalars are decoded; compounds are walked on request, without allocation.
///
/// The width of an integer's *encoding* (`smallint` or `int`) is not kept; its type is.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// Unsigned, 8 bits.
    Ubyte(u8),
    /// Unsigned, 16 bits.
    Ushort(u16),
    /// Unsigned, 32 bits.
    Uint(u32),
    /// Unsigned, 64 bits.
    Ulong(u64),
    /// Signed, 8 bits.
    Byte(i8),
    /// Signed, 16 bits.
    Short(i16),
    /// Signed, 32 bits.
    Int(i32),
    /// Signed, 64 bits.
    Long(i64),
    /// IEEE 754 binary32.
    Float(f32),
    /// IEEE 754 binary64.
    Double(f64),
    /// IEEE 754-2008 decimal32, decimal64 or decimal128.
    Decimal(Decimal<'a>),
    /// A Unicode scalar value.
    Char(char),
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// RFC 4122, in network order.
    Uuid(&'a [u8; 16]),
    /// Bytes.
    Binary(&'a [u8]),
    /// UTF-8 text.
    String(&'a str),
    /// A symbolic value: ASCII by the standard, but any UTF-8 is accepted.
    Symbol(&'a str),
    /// A string whose bytes are not UTF-8. RabbitMQ makes these of AMQP 0.9.1's short strings.
    RawString(&'a [u8]),
    /// A symbol whose bytes are not UTF-8.
    RawSymbol(&'a [u8]),
    /// Values of any types.
    List(List<'a>),
    /// Pairs of values of any types, in order.
    Map(Map<'a>),
    /// Values of one type.
    Array(Array<'a>),
    /// A value with a descriptor that gives its meaning.
    Described(Described<'a>),
}

impl<'a> Value<'a> {
    /// Name of the type, as the standard spells it, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Ubyte(_) => "a ubyte",
            Value::Ushort(_) => "a ushort",
            Value::Uint(_) => "a uint",
            Value::Ulong(_) => "a ulong",
            Value::Byte(_) => "a byte",
            Value::Short(_) => "a short",
            Value::Int(_) => "an int",
            Value::Long(_) => "a long",
            Value::Float(_) => "a float",
            Value::Double(_) => "a double",
            Value::Decimal(_) => "a decimal",
            Value::Char(_) => "a char",
            Value::Timestamp(_) => "a timestamp",
            Value::Uuid(_) => "a uuid",
            Value::Binary(_) => "a binary",
            Value::String(_) => "a string",
            Value::Symbol(_) => "a symbol",
            Value::RawString(_) => "a string that is not UTF-8",
            Value::RawSymbol(_) => "a symbol that is not UTF-8",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Array(_) => "an array",
            Value::Described(_) => "a described value",
        }
    }

    /// The text of a string or a symbol; `None` where it is not UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(text) | Value::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// Reads the value at the cursor. `depth` compounds surround it.
    #[inline]
    pub(super) fn read(cursor: &mut Cursor<'a>, depth: u8) -> Result<Value<'a>, AmqpError> {
        let constructor = cursor.at();
        match cursor.byte("a format code")? {
            0 => {
                *cursor = cursor.moved_to(constructor);
                cursor.constructor()?;
                Value::payload(cursor, constructor, depth)
            }
            code => Value::plain_payload(cursor, code, constructor, depth),
        }
    }

    /// Reads a payload. Its constructor is at `constructor`: right before the payload or, in an
    /// array, once for all elements.
    pub(super) fn payload(
        cursor: &mut Cursor<'a>,
        constructor: usize,
        depth: u8,
    ) -> Result<Value<'a>, AmqpError> {
        match cursor.moved_to(constructor).byte("a format code")? {
            0 => Described::read(cursor, constructor, depth).map(Value::Described),
            code => Value::plain_payload(cursor, code, constructor, depth),
        }
    }

    #[inline]
    fn plain_payload(
        c: &mut Cursor<'a>,
        code: u8,
        at: usize,
        depth: u8,
    ) -> Result<Value<'a>, AmqpError> {
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x43 => Value::Uint(0),
            0x44 => Value::Ulong(0),
            0x45 => Value::List(List::empty()),
            0x50 => Value::Ubyte(c.byte("a ubyte")?),
            0x51 => Value::Byte(i8::from_be_bytes(*c.array("a byte")?)),
            0x52 => Value::Uint(c.byte("a smalluint")?.into()),
            0x53 => Value::Ulong(c.byte("a smallulong")?.into()),
            0x54 => Value::Int(i8::from_be_bytes(*c.array("a smallint")?).into()),
            0x55 => Value::Long(i8::from_be_bytes(*c.array("a smalllong")?).into()),
            0x56 => match c.byte("a boolean")? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => {
                    let at = c.at() - 1;
                    return Err(AmqpError::Malformed { at, what: "a boolean is neither 0 nor 1" });
                }
            },
            0x60 => Value::Ushort(u16::from_be_bytes(*c.array("a ushort")?)),
            0x61 => Value::Short(i16::from_be_bytes(*c.array("a short")?)),
            0x70 => Value::Uint(u32::from_be_bytes(*c.array("a uint")?)),
            0x71 => Value::Int(i32::from_be_bytes(*c.array("an int")?)),
            0x72 => Value::Float(f32::from_be_bytes(*c.array("a float")?)),
            0x73 => {
                let scalar = char::from_u32(u32::from_be_bytes(*c.array("a char")?));
                let at = c.at() - 4;
                let what = "a char is not a Unicode scalar value";
                Value::Char(scalar.ok_or(AmqpError::Malformed { at, what })?)
            }
            0x74 => Value::Decimal(Decimal::D32(c.array("a decimal32")?)),
            0x80 => Value::Ulong(u64::from_be_bytes(*c.array("a ulong")?)),
            0x81 => Value::Long(i64::from_be_bytes(*c.array("a long")?)),
            0x82 => Value::Double(f64::from_be_bytes(*c.array("a double")?)),
            0x83 => Value::Timestamp(i64::from_be_bytes(*c.array("a timestamp")?)),
            0x84 => Value::Decimal(Decimal::D64(c.array("a decimal64")?)),
            0x94 => Value::Decimal(Decimal::D128(c.array("a decimal128")?)),
            0x98 => Value::Uuid(c.array("a uuid")?),
            0xa0 | 0xb0 => Value::Binary(sized(c, code == 0xb0, "a binary")?),
            0xa1 | 0xb1 => {
                let bytes = sized(c, code == 0xb1, "a string")?;
                std::str::from_utf8(bytes).map_or(Value::RawString(bytes), Value::String)
            }
            0xa3 | 0xb3 => {
                let bytes = sized(c, code == 0xb3, "a symbol")?;
                std::str::from_utf8(bytes).map_or(Value::RawSymbol(bytes), Value::Symbol)
            }
            0xc0 | 0xd0 => Value::List(List::read(c, code == 0xd0, depth)?),
            0xc1 | 0xd1 => Value::Map(Map::read(c, code == 0xd1, depth)?),
            0xe0 | 0xf0 => Value::Array(Array::read(c, code == 0xf0, depth)?),
            code => return Err(AmqpError::UnknownType { at, code }),
        })
    }
}

#[inline]
fn sized<'a>(c: &mut Cursor<'a>, wide: bool, what: &'static str) -> Result<&'a [u8], AmqpError> {
    let size = c.length(wide, what)?;
    c.take(size as usize, what)
}
