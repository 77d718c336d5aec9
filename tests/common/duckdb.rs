//! DuckDB as a second reader of Parquet and JSON files.

use std::process::Command;

use serde_json::Value;

use super::python;
use super::skip::Unavailable;

/// The rows of the answer, each with its values in order.
pub(crate) fn ask(sql: &str) -> Result<Vec<Vec<Value>>, Unavailable> {
    // Long queries would print their progress among the answer.
    const PROGRAM: &str = "import sys, json, duckdb\n\
        duckdb.sql('SET enable_progress_bar = false')\n\
        rows = duckdb.sql(sys.argv[1]).fetchall()\n\
        print(json.dumps([[v if isinstance(v, (int, float, type(None))) else str(v) for v in row] for row in rows]))";
    let output = Command::new(python::of("duckdb")?).args(["-c", PROGRAM, sql]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}\n{said}");
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}
