//! `rillway test`: runs the cases of the configuration file (`[[test]]`) through the programs of their
//! consumers, without a broker and without a sink.

mod diff;
mod run;

use std::io::IsTerminal;

use clap::Args;
use serde::Serialize;

use self::run::Outcome;
use super::exit::Failure;
use super::schema::write;
use crate::config::Config;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Run only the cases whose name, or whose consumer, contains this
    filter: Option<String>,
}

/// Result of all cases.
#[derive(Debug, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    cases: Vec<Outcome>,
}

/// Runs the cases and prints the result.
///
/// # Errors
/// If a case fails, or there is none.
pub(super) fn test(config: &Config, args: &TestArgs, json: bool) -> anyhow::Result<()> {
    let is_wanted = |text: &str| args.filter.as_deref().is_none_or(|part| text.contains(part));
    let cases = config.tests.iter();
    let cases = cases.filter(|case| is_wanted(&case.name) || is_wanted(case.consumer.as_str()));
    let cases: Vec<Outcome> = cases.map(|case| run::run(config, case)).collect();
    if cases.is_empty() {
        let what = match &args.filter {
            Some(filter) => format!("no case has {filter:?} in its name or its consumer's"),
            None => {
                "the configuration has no [[test]]: add one, with `consumer`, `body`, and one of \
                     `expect`, `dropped` and `bad`"
                    .to_owned()
            }
        };
        return Err(Failure::Usage(what).into());
    }
    let failed = cases.iter().filter(|case| !case.passed).count();
    let report = Report { passed: cases.len() - failed, failed, cases };
    write(&match json {
        true => format!("{:#}\n", serde_json::to_value(&report)?),
        false => report.text(std::io::stdout().is_terminal()),
    })?;
    match failed {
        0 => Ok(()),
        _ => {
            Err(Failure::Differs(format!("{failed} of {} cases failed", report.cases.len())).into())
        }
    }
}

impl Report {
    /// The failed cases with what differs, and the sum.
    fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        for case in &self.cases {
            let (mark, colour) = if case.passed { ("ok", "32") } else { ("FAILED", "31") };
            let mark =
                if coloured { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() };
            text.push_str(&format!("{mark:<6} {}: {}\n", case.consumer, case.name));
            for problem in &case.problems {
                for line in problem.text(coloured).lines() {
                    text.push_str(&format!("       {line}\n"));
                }
            }
        }
        text.push_str(&format!("\n{} passed, {} failed\n", self.passed, self.failed));
        text
    }
}
