//! Prints runs as a table.

use crate::loader::Run;
use crate::media::Medium;
use crate::rows;

/// Medians, by peer.
pub(crate) fn of(
    medium: &Medium,
    messages: u64,
    results: &[(&str, anyhow::Result<Run>)],
) -> String {
    let runs = |name: &str| {
        let of: Vec<&Run> = results
            .iter()
            .filter(|(n, _)| *n == name)
            .filter_map(|(_, r)| r.as_ref().ok())
            .collect();
        of
    };
    let mut out = format!(
        "\n**{}: {messages} messages of {} B**\n\n| | messages/s | lowest to highest | MB/s | CPU \
         µs/message | peak MiB | × in time | × in CPU |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
        medium.name,
        rows::BODY_BYTES
    );
    let middle = |name: &str, of: fn(&Run) -> f64| median(runs(name).into_iter().map(of));
    let compared_with = medium.peers.get(1).map_or("", |peer| peer.name());
    for peer in &medium.peers {
        let name = peer.name();
        let failed = results.iter().filter(|(n, r)| *n == name && r.is_err()).count();
        let failed = if failed > 0 { format!(" (failed {failed} times)") } else { String::new() };
        let (Some(rate), Some(cpu)) = (middle(name, Run::rate), middle(name, Run::cpu_us)) else {
            out.push_str(&format!("| {name}{failed} | | | | | | | |\n"));
            continue;
        };
        let rates = || runs(name).into_iter().map(Run::rate);
        let (low, high) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        let memory = runs(name).iter().map(|run| run.memory_peak).max().unwrap_or_default();
        let in_time = middle(compared_with, Run::rate).map(|of| rate / of);
        let in_cpu = middle(compared_with, Run::cpu_us).map(|of| of / cpu);
        let ratio =
            |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        out.push_str(&format!(
            "| {name}{failed} | {rate:.0} | {low:.0} – {high:.0} | {:.0} | {cpu:.2} | {:.0} | {} | {} |\n",
            middle(name, Run::megabytes).unwrap_or_default(),
            memory as f64 / f64::from(1 << 20),
            ratio(in_time),
            ratio(in_cpu),
        ));
    }
    out
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
