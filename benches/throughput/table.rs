//! Prints runs as a table.

use std::fmt::Write as _;

use crate::options::Case;
use crate::peers::{Peer, Run};

type Results<'a> = &'a [(Peer, anyhow::Result<Run>)];

/// Medians, by peer.
pub(crate) fn of(case: &Case, results: Results<'_>) -> String {
    let runs = |peer: Peer| {
        results.iter().filter(move |(p, _)| *p == peer).filter_map(|(_, r)| r.as_ref().ok())
    };
    let rate = |peer| median(runs(peer).map(Run::rate));
    let per_chunk = runs(Peer::Plain).find(|r| r.chunks > 0);
    let per_chunk = per_chunk.map(|r| r.messages as f64 / r.chunks as f64);
    let mut out = format!(
        "\n{case}: {} messages, {} a chunk as its headers say\n\n",
        case.messages,
        per_chunk.map_or("?".to_owned(), |n| format!("{n:.1}"))
    );
    out.push_str(
        "| | messages/s | lowest to highest | CPU µs/message | peak MiB | × plain | × official |\n",
    );
    out.push_str("|---|--:|--:|--:|--:|--:|--:|\n");
    for peer in Peer::ALL {
        let failed = results.iter().filter(|(p, r)| *p == peer && r.is_err()).count();
        let Some(median_rate) = rate(peer) else {
            if failed > 0 {
                line(
                    &mut out,
                    format_args!("| {} | failed {failed} times | | | | | |", peer.name()),
                );
            }
            continue;
        };
        let rates = || runs(peer).map(Run::rate);
        let (low, high) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        let cpu = median(runs(peer).map(Run::cpu_us)).unwrap_or_default();
        let memory = runs(peer).map(|r| r.memory_peak).max().unwrap_or_default();
        let to = |other| {
            rate(other).map_or("–".to_owned(), |r: f64| format!("{:.2}", median_rate / r))
        };
        let cut = if runs(peer).any(|r| !r.whole) { " (stopped at its time limit)" } else { "" };
        let failed = if failed > 0 { format!(" (failed {failed} times)") } else { String::new() };
        line(
            &mut out,
            format_args!(
                "| {}{cut}{failed} | {} | {} – {} | {cpu:.3} | {:.0} | {} | {} |",
                peer.name(),
                thousands(median_rate),
                thousands(low),
                thousands(high),
                memory as f64 / f64::from(1 << 20),
                to(Peer::Plain),
                to(Peer::Official),
            ),
        );
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").unwrap_or_default();
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
