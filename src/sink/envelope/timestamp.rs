//! Formats milliseconds since the Unix epoch as RFC 3339 text in UTC.

use crate::types::time::{FIRST_MS, LAST_MS};

const DAY_MS: i64 = 86_400_000;
/// Days from 0000-03-01 to the epoch. Years that start in March have their odd day at the end.
const EPOCH_DAY: i64 = 719_468;
/// Days in 400, 100, 4 and 1 years.
const DAYS_400: i64 = 146_097;
const DAYS_100: i64 = 36_524;
const DAYS_4: i64 = 1_461;
const DAYS_1: i64 = 365;

/// Appends the time as a JSON string; if its year does not have four digits, the milliseconds as a
/// number.
pub(super) fn push(out: &mut Vec<u8>, ms: i64) {
    if !(FIRST_MS..=LAST_MS).contains(&ms) {
        out.extend_from_slice(itoa::Buffer::new().format(ms).as_bytes());
        return;
    }
    let (year, month, day) = date(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    let mut text = *b"\"0000-00-00T00:00:00.000Z\"";
    let fields = [
        (1, 4, year),
        (6, 2, month),
        (9, 2, day),
        (12, 2, hour),
        (15, 2, minute),
        (18, 2, second),
        (21, 3, milli),
    ];
    for (at, width, mut value) in fields {
        for digit in text.iter_mut().skip(at).take(width).rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    out.extend_from_slice(&text);
}

/// The year, month and day of a day counted from the epoch.
pub(crate) fn date(day: i64) -> (i64, i64, i64) {
    let day = day + EPOCH_DAY;
    let (cycle, day) = (day.div_euclid(DAYS_400), day.rem_euclid(DAYS_400));
    // The last day of a leap year, or of a cycle, must not count as a fifth year or century.
    let century = (day / DAYS_100).min(3);
    let day = day - century * DAYS_100;
    let (leap, day) = (day / DAYS_4, day % DAYS_4);
    let year = (day / DAYS_1).min(3);
    let day = day - year * DAYS_1;
    // From March on, the months' lengths repeat 31 30 31 30 31: 153 days in five months.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + century * 100 + leap * 4 + year;
    if month < 10 { (year, month + 3, day_of_month) } else { (year + 1, month - 9, day_of_month) }
}
