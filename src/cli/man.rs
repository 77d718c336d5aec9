//! `rillway man [DIR]`: the manual pages, for packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::exit::Failure;
use super::{Cli, schema};

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder to write a page for each command into [default: print rillway(1)]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn print(args: &ManArgs) -> anyhow::Result<()> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return schema::write(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| {
            Failure::unavailable(format!("cannot write to {}: {error}", dir.display()))
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        print(&ManArgs { dir: Some(dir.path().join("man1")) }).unwrap();
        let page = |name: &str| std::fs::read_to_string(dir.path().join("man1").join(name));
        let whole = page("rillway.1").unwrap();
        assert!(whole.contains("rillway\\-run(1)") && whole.contains("Exit codes: "), "{whole}");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("rillway-{}.1", command.get_name());
            assert!(page(&name).is_ok_and(|page| page.contains(".SH NAME")), "{name}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("man1");
        let error = print(&ManArgs { dir: Some(dir.clone()) }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write to {}: ", dir.display())), "{error}");
    }
}
