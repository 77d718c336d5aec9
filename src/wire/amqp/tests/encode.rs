//! A small encoder, for tests only: values as a tree, in their widest or their tightest encoding.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{AmqpError, Decimal, Value};

/// A value that owns its parts. Floats are kept as bits, so that NaN equals itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(u32),
    Double(u64),
    Decimal(Vec<u8>),
    Char(char),
    Timestamp(i64),
    Uuid([u8; 16]),
    Binary(Vec<u8>),
    String(String),
    Symbol(String),
    RawString(Vec<u8>),
    RawSymbol(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Array(Vec<Tree>),
    Described(Box<Tree>, Box<Tree>),
}

pub(crate) fn described(descriptor: Tree, value: Tree) -> Tree {
    Tree::Described(Box::new(descriptor), Box::new(value))
}

/// A section: a described value.
pub(crate) fn section(code: u64, value: Tree, tight: bool) -> Vec<u8> {
    encode(&described(Tree::Ulong(code), value), tight)
}

pub(crate) fn encode(tree: &Tree, tight: bool) -> Vec<u8> {
    let (mut constructor, payload) = parts(tree, tight);
    constructor.extend(payload);
    constructor
}

/// The constructor and the payload. Not tight, the constructor depends on the type alone (for
/// decimals, on the width too), which is what arrays need.
fn parts(tree: &Tree, tight: bool) -> (Vec<u8>, Vec<u8>) {
    let one = |code: u8, payload: &[u8]| (vec![code], payload.to_vec());
    match tree {
        Tree::Null => one(0x40, &[]),
        Tree::Bool(true) if tight => one(0x41, &[]),
        Tree::Bool(false) if tight => one(0x42, &[]),
        Tree::Bool(b) => one(0x56, &[u8::from(*b)]),
        Tree::Ubyte(n) => one(0x50, &n.to_be_bytes()),
        Tree::Ushort(n) => one(0x60, &n.to_be_bytes()),
        Tree::Uint(0) if tight => one(0x43, &[]),
        Tree::Uint(n) if tight && *n < 256 => one(0x52, &[*n as u8]),
        Tree::Uint(n) => one(0x70, &n.to_be_bytes()),
        Tree::Ulong(0) if tight => one(0x44, &[]),
        Tree::Ulong(n) if tight && *n < 256 => one(0x53, &[*n as u8]),
        Tree::Ulong(n) => one(0x80, &n.to_be_bytes()),
        Tree::Byte(n) => one(0x51, &n.to_be_bytes()),
        Tree::Short(n) => one(0x61, &n.to_be_bytes()),
        Tree::Int(n) if tight && i8::try_from(*n).is_ok() => one(0x54, &[*n as u8]),
        Tree::Int(n) => one(0x71, &n.to_be_bytes()),
        Tree::Long(n) if tight && i8::try_from(*n).is_ok() => one(0x55, &[*n as u8]),
        Tree::Long(n) => one(0x81, &n.to_be_bytes()),
        Tree::Float(bits) => one(0x72, &bits.to_be_bytes()),
        Tree::Double(bits) => one(0x82, &bits.to_be_bytes()),
        Tree::Decimal(b) => one([0x74, 0x84, 0x94][b.len() / 8], b),
        Tree::Char(c) => one(0x73, &u32::from(*c).to_be_bytes()),
        Tree::Timestamp(ms) => one(0x83, &ms.to_be_bytes()),
        Tree::Uuid(u) => one(0x98, u),
        Tree::Binary(b) => sized(0xa0, 0xb0, b, tight),
        Tree::String(s) => sized(0xa1, 0xb1, s.as_bytes(), tight),
        Tree::Symbol(s) => sized(0xa3, 0xb3, s.as_bytes(), tight),
        Tree::RawString(s) => sized(0xa1, 0xb1, s, tight),
        Tree::RawSymbol(s) => sized(0xa3, 0xb3, s, tight),
        Tree::List(items) if items.is_empty() && tight => one(0x45, &[]),
        Tree::List(items) => {
            let data = items.iter().flat_map(|i| encode(i, tight)).collect::<Vec<_>>();
            counted(0xc0, 0xd0, items.len(), &data, tight)
        }
        Tree::Map(pairs) => {
            let data: Vec<u8> = pairs
                .iter()
                .flat_map(|(k, v)| [encode(k, tight), encode(v, tight)].concat())
                .collect();
            counted(0xc1, 0xd1, pairs.len() * 2, &data, tight)
        }
        Tree::Array(items) => {
            // Once for each element: twice would be exponential in nested arrays.
            let all: Vec<_> = items.iter().map(|i| parts(i, false)).collect();
            let mut data = all.first().map_or(vec![0x40], |first| first.0.clone());
            all.iter().for_each(|(_, payload)| data.extend(payload));
            counted(0xe0, 0xf0, items.len(), &data, tight)
        }
        Tree::Described(descriptor, value) => {
            let (inner, payload) = parts(value, tight);
            ([vec![0], encode(descriptor, tight), inner].concat(), payload)
        }
    }
}

fn sized(narrow: u8, wide: u8, data: &[u8], tight: bool) -> (Vec<u8>, Vec<u8>) {
    match u8::try_from(data.len()) {
        Ok(size) if tight => (vec![narrow], [&[size], data].concat()),
        _ => (vec![wide], [&(data.len() as u32).to_be_bytes(), data].concat()),
    }
}

fn counted(narrow: u8, wide: u8, n: usize, data: &[u8], tight: bool) -> (Vec<u8>, Vec<u8>) {
    match (u8::try_from(data.len() + 1), u8::try_from(n)) {
        (Ok(size), Ok(n)) if tight => (vec![narrow], [&[size, n], data].concat()),
        _ => {
            let size = (data.len() as u32 + 4).to_be_bytes();
            (vec![wide], [&size, &(n as u32).to_be_bytes(), data].concat())
        }
    }
}

/// What the decoder read, as a tree.
pub(crate) fn tree(value: Value<'_>) -> Result<Tree, AmqpError> {
    Ok(match value {
        Value::Null => Tree::Null,
        Value::Bool(b) => Tree::Bool(b),
        Value::Ubyte(n) => Tree::Ubyte(n),
        Value::Ushort(n) => Tree::Ushort(n),
        Value::Uint(n) => Tree::Uint(n),
        Value::Ulong(n) => Tree::Ulong(n),
        Value::Byte(n) => Tree::Byte(n),
        Value::Short(n) => Tree::Short(n),
        Value::Int(n) => Tree::Int(n),
        Value::Long(n) => Tree::Long(n),
        Value::Float(n) => Tree::Float(n.to_bits()),
        Value::Double(n) => Tree::Double(n.to_bits()),
        Value::Decimal(Decimal::D32(b)) => Tree::Decimal(b.to_vec()),
        Value::Decimal(Decimal::D64(b)) => Tree::Decimal(b.to_vec()),
        Value::Decimal(Decimal::D128(b)) => Tree::Decimal(b.to_vec()),
        Value::Char(c) => Tree::Char(c),
        Value::Timestamp(ms) => Tree::Timestamp(ms),
        Value::Uuid(u) => Tree::Uuid(*u),
        Value::Binary(b) => Tree::Binary(b.to_vec()),
        Value::String(s) => Tree::String(s.to_owned()),
        Value::Symbol(s) => Tree::Symbol(s.to_owned()),
        Value::RawString(s) => Tree::RawString(s.to_owned()),
        Value::RawSymbol(s) => Tree::RawSymbol(s.to_owned()),
        Value::List(list) => Tree::List(list.items().map(|i| tree(i?)).collect::<Result<_, _>>()?),
        Value::Array(a) => Tree::Array(a.items().map(|i| tree(i?)).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let pairs = map.entries().map(|e| e.and_then(|(k, v)| Ok((tree(k)?, tree(v)?))));
            Tree::Map(pairs.collect::<Result<_, _>>()?)
        }
        Value::Described(d) => described(tree(d.descriptor()?)?, tree(d.value()?)?),
    })
}

fn scalar() -> impl Strategy<Value = Tree> + Clone {
    prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<u8>().prop_map(Tree::Ubyte),
        any::<u16>().prop_map(Tree::Ushort),
        prop_oneof![0u32..300, any::<u32>()].prop_map(Tree::Uint),
        prop_oneof![0u64..300, any::<u64>()].prop_map(Tree::Ulong),
        any::<i8>().prop_map(Tree::Byte),
        any::<i16>().prop_map(Tree::Short),
        prop_oneof![-200i32..200, any::<i32>()].prop_map(Tree::Int),
        prop_oneof![-200i64..200, any::<i64>()].prop_map(Tree::Long),
        any::<u32>().prop_map(Tree::Float),
        any::<u64>().prop_map(Tree::Double),
        prop_oneof![vec(any::<u8>(), 4), vec(any::<u8>(), 8), vec(any::<u8>(), 16)]
            .prop_map(Tree::Decimal),
        any::<char>().prop_map(Tree::Char),
        any::<i64>().prop_map(Tree::Timestamp),
        any::<[u8; 16]>().prop_map(Tree::Uuid),
        vec(any::<u8>(), 0..300).prop_map(Tree::Binary),
        any::<String>().prop_map(Tree::String),
        "[a-z:-]{0,12}".prop_map(Tree::Symbol),
        not_utf8().prop_map(Tree::RawString),
        not_utf8().prop_map(Tree::RawSymbol),
    ]
}

/// Bytes of which a string can be made that is none.
fn not_utf8() -> impl Strategy<Value = Vec<u8>> + Clone {
    vec(any::<u8>(), 0..9).prop_map(|bytes| [&bytes[..], &[0xff]].concat())
}

/// Any value, arrays of every kind of element included.
pub(crate) fn any_tree() -> impl Strategy<Value = Tree> + Clone {
    scalar().prop_recursive(4, 60, 6, |inner| {
        let list = vec(inner.clone(), 0..6).prop_map(Tree::List);
        let map = vec((inner.clone(), inner.clone()), 0..4).prop_map(Tree::Map);
        let ints = vec(any::<i32>().prop_map(Tree::Int), 0..5).prop_map(Tree::Array);
        let array = prop_oneof![
            ints.clone(),
            vec(Just(Tree::Null), 0..9).prop_map(Tree::Array),
            vec(any::<bool>().prop_map(Tree::Bool), 1..9).prop_map(Tree::Array),
            vec(any::<String>().prop_map(Tree::String), 1..5).prop_map(Tree::Array),
            vec(list.clone(), 1..4).prop_map(Tree::Array),
            vec(map.clone(), 1..4).prop_map(Tree::Array),
            vec(ints, 1..4).prop_map(Tree::Array),
            (inner.clone(), vec(any::<u64>(), 1..4)).prop_map(|(descriptor, values)| {
                let value = |n| described(descriptor.clone(), Tree::Ulong(n));
                Tree::Array(values.into_iter().map(value).collect())
            }),
        ];
        prop_oneof![list, map, array, (inner.clone(), inner).prop_map(|(d, v)| described(d, v))]
    })
}

/// A message with every section, the body of any kind.
pub(crate) fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let map = || vec(("[a-z-]{0,9}".prop_map(Tree::Symbol), any_tree()), 0..3).prop_map(Tree::Map);
    let maybe = |code, strategy: BoxedStrategy<Tree>| {
        proptest::option::of((strategy, any::<bool>()))
            .prop_map(move |s| s.map_or(vec![], |(tree, tight)| section(code, tree, tight)))
    };
    let list = vec(any_tree(), 0..5).prop_map(Tree::List);
    let data = vec(any::<u8>(), 0..40).prop_map(Tree::Binary);
    let body = prop_oneof![
        Just(vec![]),
        vec(data, 1..3)
            .prop_map(|all| all.into_iter().flat_map(|d| section(0x75, d, true)).collect()),
        vec(list.clone(), 1..3)
            .prop_map(|all| all.into_iter().flat_map(|l| section(0x76, l, true)).collect()),
        any_tree().prop_map(|value| section(0x77, value, true)),
    ];
    let before = (
        maybe(0x70, list.clone().boxed()),
        maybe(0x71, map().boxed()),
        maybe(0x72, map().boxed()),
        maybe(0x73, list.boxed()),
        maybe(0x74, map().boxed()),
    );
    (before, body, maybe(0x78, map().boxed()))
        .prop_map(|(b, body, footer)| [b.0, b.1, b.2, b.3, b.4, body, footer].concat())
}
