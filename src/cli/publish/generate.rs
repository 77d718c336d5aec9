//! Generates sample events.
//!
//! The same number always gives the same event (except its time), so that received messages can be
//! compared with sent ones.

use crate::types::Timestamp;

const EVENTS: [&str; 5] = ["view", "click", "search", "cart", "purchase"];
const COUNTRIES: [&str; 6] = ["DE", "FR", "JP", "BR", "IN", "US"];

/// Smallest padding: the key and an empty text.
const PAD: &str = ",\"pad\":\"\"";

/// The body of event number `seq`: a JSON object, of exactly `size` bytes if one is given. A size
/// too small for an event gives a JSON string or number; size 0 is empty.
pub(super) fn body(seq: u64, at: Timestamp, size: Option<usize>) -> Vec<u8> {
    let event = event(seq, at);
    match size {
        None => event.into_bytes(),
        Some(size) if size < event.len() => short(seq, size),
        Some(size) => padded(event, size),
    }
}

fn event(seq: u64, at: Timestamp) -> String {
    let mut random = fastrand::Rng::with_seed(seq);
    let user = random.u32(1..10_000);
    let event = EVENTS[random.usize(..EVENTS.len())];
    let cents = random.u32(100..50_000);
    let (whole, part) = (cents / 100, cents % 100);
    let country = COUNTRIES[random.usize(..COUNTRIES.len())];
    let ts = at.0;
    format!(
        "{{\"seq\":{seq},\"user_id\":{user},\"event\":\"{event}\",\"amount\":{whole}.{part:02},\
         \"country\":\"{country}\",\"ts\":{ts}}}"
    )
}

fn padded(mut event: String, size: usize) -> Vec<u8> {
    let missing = size - event.len();
    if missing < PAD.len() {
        event.extend(std::iter::repeat_n(' ', missing));
    } else {
        event.pop();
        event.push_str(&PAD[..PAD.len() - 1]);
        event.extend(std::iter::repeat_n('x', missing - PAD.len()));
        event.push_str("\"}");
    }
    event.into_bytes()
}

/// The number alone, as a string with the last digits that fit between the quotes.
fn short(seq: u64, size: usize) -> Vec<u8> {
    match size {
        0 => Vec::new(),
        1 => vec![b'0' + (seq % 10) as u8],
        2 => (10 + seq % 90).to_string().into_bytes(),
        _ => {
            let digits = format!("{seq:0width$}", width = size - 2);
            format!("\"{}\"", &digits[digits.len() - (size - 2)..]).into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_exact_and_json() {
        let at = Timestamp(1_767_225_600_000);
        for seq in [0, 7, 123_456, u64::MAX] {
            for size in (0..400).chain([4096, 1 << 20]) {
                let body = body(seq, at, Some(size));
                assert_eq!(body.len(), size);
                if size > 0 {
                    serde_json::from_slice::<serde_json::Value>(&body)
                        .unwrap_or_else(|e| panic!("{size}: {e}: {body:?}"));
                }
            }
        }
    }

    #[test]
    fn events_are_numbered_and_come_again() {
        let at = Timestamp(5);
        let event: serde_json::Value = serde_json::from_slice(&body(42, at, None)).unwrap();
        assert_eq!((event["seq"].as_u64(), event["ts"].as_i64()), (Some(42), Some(5)));
        for key in ["user_id", "event", "amount", "country"] {
            assert!(event.get(key).is_some(), "{key}");
        }
        assert_eq!(body(42, at, Some(300)), body(42, at, Some(300)));
        assert_ne!(body(42, at, Some(12)), body(43, at, Some(12)));
    }
}
