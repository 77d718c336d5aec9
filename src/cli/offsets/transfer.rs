//! `rillway offsets export` and `import`: where every consumer goes on, as a file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::moving::{Consent, Move, carry_out};
use super::{find, plans_of};
use crate::cli::exit::Failure;
use crate::cli::schema::write;
use crate::config::Config;
use crate::consumer::positions::{self, Next, Target};
use crate::files::{self, NEXT};
use crate::flow::resume;
use crate::types::{Offset, Timestamp};

/// Arguments of `offsets export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write; `-` is standard output
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Arguments of `offsets import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file that `export` wrote; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

/// Version of the file's layout.
const LAYOUT: u32 = 1;

/// Content of the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    layout: u32,
    /// When it was written, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exported_at: Option<String>,
    positions: Vec<Exposition>,
}

/// Where one consumer goes on in one stream.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exposition {
    consumer: String,
    stream: String,
    /// The next message that it wants.
    next_offset: Offset,
}

/// Writes where each consumer goes on. One that has not begun, or would halt, has no position: it is named on
/// standard error.
pub(super) async fn export(config: &Config, args: &ExportArgs) -> anyhow::Result<()> {
    let plans = join_all(config.consumers.iter().map(|consumer| plans_of(config, consumer))).await;
    let (mut plans_of_all, mut failed) = (Vec::new(), Vec::new());
    for (consumer, plans) in config.consumers.iter().zip(plans) {
        match plans {
            Ok(plans) => plans_of_all.extend(plans),
            Err(error) => failed.push(format!("consumer {:?}: {error}", consumer.name)),
        }
    }
    let subjects: Vec<_> = plans_of_all.iter().map(|plan| plan.subject()).collect();
    let seen = join_all(subjects.iter().map(positions::see)).await;
    let mut exported = Vec::new();
    for (plan, seen) in plans_of_all.iter().zip(seen) {
        let key = plan.spec.key();
        match seen.map(|seen| seen.next) {
            Ok(Next::At(_, None)) => eprintln!("{key}: has not begun, and is left out"),
            Ok(Next::At(next_offset, Some(_))) => exported.push(Exposition {
                consumer: key.consumer.to_string(),
                stream: key.stream.to_string(),
                next_offset,
            }),
            Ok(Next::From(why) | Next::Halt(why)) => failed.push(format!("{key}: {why}")),
            Err(error) => failed.push(format!("{key}: {error:#}")),
        }
    }
    if !failed.is_empty() {
        let failed = failed.join("\n");
        return Err(Failure::Unavailable(format!("{failed}\nNothing was written")).into());
    }
    let exported_at = Some(Timestamp::now().to_string());
    let exported = Exported { layout: LAYOUT, exported_at, positions: exported };
    let text = format!("{:#}\n", serde_json::to_value(&exported)?);
    if args.file.as_os_str() == "-" {
        return write(&text);
    }
    let mut next = args.file.clone().into_os_string();
    next.push(NEXT);
    files::replace(&args.file, Path::new(&next), text.as_bytes()).map_err(|error| {
        let shown = args.file.display();
        Failure::Unavailable(format!("{shown} cannot be written: {error}"))
    })?;
    Ok(())
}

/// Moves every consumer to where the file says.
pub(super) async fn import(
    config: &Config,
    args: &ImportArgs,
    as_json: bool,
) -> anyhow::Result<()> {
    let exported = read(&args.file)?;
    let mut moves = Vec::new();
    for one in &exported.positions {
        let consumer = find(config, &one.consumer)?;
        let plans = plans_of(config, consumer).await.map_err(Failure::Unavailable)?;
        let plan = plans.into_iter().find(|plan| plan.spec.stream.as_str() == one.stream);
        let Some(plan) = plan else {
            return Err(Failure::Usage(format!(
                "{}: consumer {:?} does not read stream {:?}. Nothing was moved",
                args.file.display(),
                one.consumer,
                one.stream
            ))
            .into());
        };
        let target = Target::To(resume::Start::Offset(one.next_offset));
        moves.push(Move { plan, target });
    }
    carry_out(config, moves, &args.consent, as_json).await
}

fn read(file: &Path) -> Result<Exported, Failure> {
    let shown = file.display();
    let text = match file.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => fs::read_to_string(file),
    };
    let text = text.map_err(|error| Failure::Usage(format!("{shown} cannot be read: {error}")))?;
    parse(&text).map_err(|what| Failure::Usage(format!("{shown}: {what}. Nothing was moved")))
}

fn parse(text: &str) -> Result<Exported, String> {
    let exported: Exported = serde_json::from_str(text)
        .map_err(|error| format!("not what `rillway offsets export` writes: {error}"))?;
    if exported.layout != LAYOUT {
        return Err(format!(
            "its layout is {}, and this rillway knows {LAYOUT}: use the version that wrote it",
            exported.layout
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for one in &exported.positions {
        if !seen.insert((&one.consumer, &one.stream)) {
            return Err(format!(
                "consumer {:?} on stream {:?} is in it twice",
                one.consumer, one.stream
            ));
        }
    }
    Ok(exported)
}

/// Fuzz target: what is read is read again as it was written.
pub(in crate::cli) fn fuzz_exported(text: &str) {
    if let Ok(exported) = parse(text) {
        let again = serde_json::to_string(&exported).map_err(|error| error.to_string());
        assert_eq!(again.and_then(|again| parse(&again)), Ok(exported));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nonsense_is_named() {
        let one = |consumer: &str| Exposition {
            consumer: consumer.to_owned(),
            stream: "s".to_owned(),
            next_offset: Offset(u64::MAX),
        };
        let text = |positions| {
            let exported = Exported { layout: LAYOUT, exported_at: None, positions };
            serde_json::to_string(&exported).unwrap()
        };
        let read = parse(&text(vec![one("a"), one("b")])).unwrap();
        assert_eq!(read.positions, [one("a"), one("b")]);
        for (text, says) in [
            (text(vec![one("a"), one("a")]), "twice"),
            (r#"{"layout":2,"positions":[]}"#.to_owned(), "its layout is 2"),
            (r#"{"layout":1,"position":[]}"#.to_owned(), "unknown field"),
            (
                r#"{"layout":1,"positions":[{"consumer":"a","stream":"s","next_offset":-1}]}"#
                    .to_owned(),
                "-1",
            ),
            (String::new(), "not what `rillway offsets export` writes"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
