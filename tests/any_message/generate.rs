//! Messages of every kind, by a seed: all types of AMQP 1.0, all shapes of JSON, extreme numbers, texts
//! and times, strings that are not UTF-8, deep nesting, and bytes that are no message at all.

use fastrand::Rng;

/// One in this many messages is a plain one, which has to arrive in every sink.
pub(super) const NEIGHBOUR_EVERY: u64 = 5;

pub(super) fn is_neighbour(offset: u64) -> bool {
    offset.is_multiple_of(NEIGHBOUR_EVERY)
}

pub(super) fn neighbour(offset: u64) -> Vec<u8> {
    data(&plain(offset))
}

/// The body of a neighbour.
pub(super) fn plain(offset: u64) -> Vec<u8> {
    format!("{{\"n\":{offset},\"text\":\"n{offset}\",\"at\":\"2026-01-01T00:00:00Z\"}}")
        .into_bytes()
}

/// The body of a message: JSON, or any bytes.
pub(super) fn body_of(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(0..10) {
        0 => bytes(rng),
        1 => Vec::new(),
        _ => json(rng).into_bytes(),
    }
}

/// The message at this offset.
pub(crate) fn message(seed: u64, offset: u64) -> Vec<u8> {
    if is_neighbour(offset) {
        return neighbour(offset);
    }
    let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(offset));
    let rng = &mut rng;
    match rng.u32(0..100) {
        0..45 => data(json(rng).as_bytes()),
        45..50 => data(&bytes(rng)),
        50..85 => [sections(rng), body(rng)].concat(),
        85..90 => [sections(rng), data(json(rng).as_bytes())].concat(),
        90..95 => {
            // A complete message with one error in it.
            let mut bytes = [sections(rng), body(rng)].concat();
            if let Some(byte) = rng.choice(&mut bytes) {
                *byte ^= 1 << rng.u32(0..8);
            }
            bytes.truncate(rng.usize(0..=bytes.len()));
            bytes
        }
        95..97 => deep(rng),
        97..99 => bytes(rng),
        _ => Vec::new(),
    }
}

fn data(body: &[u8]) -> Vec<u8> {
    [&[0, 0x53, 0x75, 0xb0], &(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn body(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(0..4) {
        0 => [data(&bytes(rng)), data(b"1")].concat(),
        1 => [vec![0, 0x53, 0x76], compound(0xd0, values(rng, 3))].concat(),
        2 => Vec::new(),
        _ => [vec![0, 0x53, 0x77], value(rng, 4)].concat(),
    }
}

fn sections(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    if rng.u32(0..3) == 0 {
        out.extend([0, 0x53, 0x70, 0xc0, 2, 1, 0x41]);
    }
    if rng.u32(0..3) == 0 {
        out.extend([0, 0x53, 0x72]);
        out.extend(map(rng));
    }
    if rng.bool() {
        out.extend([0, 0x53, 0x73]);
        let count = rng.usize(0..14);
        let fields = (0..count).map(|_| if rng.bool() { value(rng, 1) } else { vec![0x40] });
        out.extend(compound(0xd0, fields.collect()));
    }
    if rng.bool() {
        out.extend([0, 0x53, 0x74]);
        out.extend(map(rng));
    }
    out
}

fn map(rng: &mut Rng) -> Vec<u8> {
    let mut items = Vec::new();
    for _ in 0..rng.u32(0..4) {
        items.push(if rng.u32(0..4) > 0 {
            sized(0xa1, key(rng).as_bytes())
        } else {
            value(rng, 1)
        });
        items.push(value(rng, 2));
    }
    compound(0xd1, items)
}

fn values(rng: &mut Rng, depth: u32) -> Vec<Vec<u8>> {
    (0..rng.u32(0..4)).map(|_| value(rng, depth)).collect()
}

fn compound(code: u8, items: Vec<Vec<u8>>) -> Vec<u8> {
    let all = items.concat();
    let mut out = vec![code];
    out.extend((all.len() as u32 + 4).to_be_bytes());
    out.extend((items.len() as u32).to_be_bytes());
    out.extend(all);
    out
}

fn sized(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code + 0x10], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn value(rng: &mut Rng, depth: u32) -> Vec<u8> {
    let with = |code: u8, bytes: &[u8]| [&[code], bytes].concat();
    let edge = *rng.choice(&[0, 1, -1, i64::MIN, i64::MAX, 1 << 53, 253_402_300_799_999]).unwrap();
    let number = if rng.bool() { edge } else { rng.i64(..) };
    match rng.u32(0..if depth > 0 { 28 } else { 22 }) {
        0 => vec![0x40],
        1 => vec![0x41],
        2 => with(0x56, &[rng.u8(0..2)]),
        3 => with(0x50, &[rng.u8(..)]),
        4 => with(0x51, &[rng.u8(..)]),
        5 => with(0x60, &(number as u16).to_be_bytes()),
        6 => with(0x61, &(number as u16).to_be_bytes()),
        7 => with(0x70, &(number as u32).to_be_bytes()),
        8 => with(0x71, &(number as u32).to_be_bytes()),
        9 => with(0x80, &number.to_be_bytes()),
        10 => with(0x81, &number.to_be_bytes()),
        11 => with(0x72, &(number as u32).to_be_bytes()),
        12 => {
            let odd = [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, -0.0, 5e-324];
            with(0x82, &rng.choice(&odd).unwrap().to_be_bytes())
        }
        13 => with(0x83, &number.to_be_bytes()),
        14 => with(0x74, &(number as u32).to_be_bytes()),
        15 => with(0x84, &number.to_be_bytes()),
        16 => with(0x94, &[number.to_be_bytes(), rng.i64(..).to_be_bytes()].concat()),
        17 => with(0x73, &u32::from(rng.char(..)).to_be_bytes()),
        18 => with(0x98, &rng.u128(..).to_be_bytes()),
        19 => sized(0xa0, &bytes(rng)),
        20 => sized(0xa1, text(rng).as_bytes()),
        // Strings and symbols of any bytes, as RabbitMQ makes them of AMQP 0.9.1's.
        21 => sized(if rng.bool() { 0xa1 } else { 0xa3 }, &bytes(rng)),
        22 | 23 => compound(0xd0, values(rng, depth - 1)),
        24 | 25 => map(rng),
        26 => [vec![0], value(rng, 0), value(rng, depth - 1)].concat(),
        // An array of int, or of many nulls.
        _ => {
            let (count, code) = if rng.bool() { (2, 0x71) } else { (rng.u32(0..5000), 0x40) };
            let payload = if code == 0x71 { vec![0xff; 8] } else { Vec::new() };
            let mut out = vec![0xf0];
            out.extend((payload.len() as u32 + 5).to_be_bytes());
            out.extend(count.to_be_bytes());
            out.push(code);
            out.extend(payload);
            out
        }
    }
}

fn deep(rng: &mut Rng) -> Vec<u8> {
    let depth = rng.usize(0..200);
    if rng.bool() {
        return data([vec![b'['; depth], vec![b']'; depth]].concat().as_slice());
    }
    let mut encoded = vec![0x45];
    for _ in 0..depth {
        encoded = compound(0xd0, vec![encoded]);
    }
    [vec![0, 0x53, 0x77], encoded].concat()
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(0..40)).map(|_| rng.u8(..)).collect()
}

fn key(rng: &mut Rng) -> String {
    let own = ["n", "text", "at", "ok", "any", "key\\ud83d", "k\\u0000", "", "a/b"];
    (*rng.choice(&own).unwrap()).to_owned()
}

fn text(rng: &mut Rng) -> String {
    match rng.u32(0..4) {
        0 => time(rng),
        1 => (0..rng.usize(0..9)).map(|_| rng.char(..)).collect(),
        2 => "a\0b".to_owned(),
        _ => number(rng),
    }
}

fn time(rng: &mut Rng) -> String {
    let times = [
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "1700000000123",
        "-62167219200001",
        "9223372036854775807",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:60Z",
        "-009999-01-01T00:00:00Z",
    ];
    (*rng.choice(&times).unwrap()).to_owned()
}

fn number(rng: &mut Rng) -> String {
    let numbers = [
        "1.5e-9223372036854775807",
        "1e9223372036854775807",
        "-1E+400",
        "18446744073709551616",
        "-9223372036854775809",
        "0.1",
        "-0",
        "0e99999999999999999999",
        "1e-400",
        "12345678901234567890.12345678901234567890",
        "1e131072",
    ];
    match rng.u32(0..3) {
        0 => rng.i64(..).to_string(),
        1 => format!("{}e{}", rng.i32(..), rng.i32(-1200..1200)),
        _ => (*rng.choice(&numbers).unwrap()).to_owned(),
    }
}

/// Usually an object, with the keys that the typed columns read.
fn json(rng: &mut Rng) -> String {
    if rng.u32(0..8) == 0 {
        return json_value(rng, 3);
    }
    let count = rng.usize(0..6);
    let entries: Vec<String> =
        (0..count).map(|_| format!("\"{}\":{}", key(rng), json_value(rng, 3))).collect();
    let blank = *rng.choice(&["", " ", "\n", "\t"]).unwrap();
    format!("{blank}{{{}}}{blank}", entries.join(","))
}

fn json_value(rng: &mut Rng, depth: u32) -> String {
    match rng.u32(0..if depth > 0 { 11 } else { 8 }) {
        0 => "null".to_owned(),
        1 => "true".to_owned(),
        2 | 3 => number(rng),
        4 => format!("\"{}\"", number(rng)),
        5 => format!("\"{}\"", time(rng)),
        6 => {
            let odd =
                [r#""caf\u00e9 \ud83d""#, r#""\udc00\ud800""#, r#""\u0000""#, r#""\ud83d\ude00""#];
            (*rng.choice(&odd).unwrap()).to_owned()
        }
        7 => serde_json::Value::from(text(rng)).to_string(),
        8 => "[".repeat(130) + &"]".repeat(130),
        9 => {
            let items: Vec<String> =
                (0..rng.usize(0..4)).map(|_| json_value(rng, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let count = rng.usize(0..4);
            let entries: Vec<String> = (0..count)
                .map(|_| format!("\"{}\":{}", key(rng), json_value(rng, depth - 1)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}
