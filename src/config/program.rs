//! `where` and `map`: programs on the messages of a consumer.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::Problem;
use crate::transform::Program;

/// A program, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a program in the language jq, as in '.region == \"eu\"', or { file = \"PATH\" }"
)]
pub(super) enum ProgramKeys {
    /// The program itself, in the language jq.
    Text(String),
    /// The file that it is in.
    File(#[serde(deserialize_with = "from_table")] ProgramFile),
}

/// A program in a file of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProgramFile {
    /// Path of the file, relative to the configuration file.
    file: PathBuf,
}

/// A list would be taken for the table's values.
fn from_table<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ProgramFile, D::Error> {
    let table = serde_json::Map::deserialize(from)?;
    ProgramFile::deserialize(serde_json::Value::Object(table)).map_err(serde::de::Error::custom)
}

impl ProgramKeys {
    /// The compiled program. `None` only if a problem was added.
    pub(super) fn compile(
        self,
        at: &str,
        folder: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Program> {
        let (text, of) = match self {
            ProgramKeys::Text(text) => (text, String::new()),
            ProgramKeys::File(ProgramFile { file }) => {
                let path = folder.join(file);
                match std::fs::read_to_string(&path) {
                    Ok(text) => (text, format!("{}: ", path.display())),
                    Err(error) => {
                        let what =
                            format!("cannot read the program in {}: {error}", path.display());
                        problems.push(Problem::new(at, what));
                        return None;
                    }
                }
            }
        };
        match Program::compile(&text) {
            Ok(program) => Some(program),
            Err(error) => {
                problems.push(Problem::new(at, format!("{of}{error}")));
                None
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "transform")]
mod tests {
    use super::*;

    #[test]
    fn programs_are_texts_or_files_and_errors_say_where() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good.jq"), "# a comment\n.a").unwrap();
        std::fs::write(folder.path().join("bad.jq"), ".a |\n  nonsense(1)").unwrap();
        for (keys, says) in [
            ("\".a == 1\"", None),
            ("{\"file\": \"good.jq\"}", None),
            ("\".a ==\"", Some("line 1, column 6 of the program: a term is expected")),
            (
                "{\"file\": \"bad.jq\"}",
                Some("bad.jq: line 2, column 3 of the program: there is no function"),
            ),
            ("{\"file\": \"none.jq\"}", Some("cannot read the program in")),
        ] {
            let keys: ProgramKeys = serde_json::from_str(keys).unwrap();
            let mut problems = Vec::new();
            let program = keys.compile("consumer[0].map", folder.path(), &mut problems);
            let said = problems.first().map(ToString::to_string);
            assert_eq!(program.is_some(), says.is_none());
            assert!(
                said.as_deref().unwrap_or_default().contains(says.unwrap_or_default()),
                "{said:?}"
            );
        }
        assert!(serde_json::from_str::<ProgramKeys>("{\"fil\": \"x\"}").is_err());
    }
}
