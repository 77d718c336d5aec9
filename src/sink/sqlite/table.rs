//! The table that takes the records: its name, its creation, and whether an existing one fits.
//!
//! SQLite converts a stored value by the column's *affinity*, which follows from the words of its
//! declared type. A column that would change a value (a text `0012` becomes 12 in an INTEGER column) is
//! refused at the start, so that nobody discovers it in the data a year later.

use rusqlite::Connection;

use crate::types::Offset;
use crate::types::column::ColumnType;

/// The declared type of a column.
fn declared(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Text | ColumnType::Json | ColumnType::Timestamp => "TEXT",
        ColumnType::Integer => "INTEGER",
        ColumnType::Float => "REAL",
        ColumnType::Numeric => "NUMERIC",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Bytes => "BLOB",
    }
}

/// The affinity of a declared type: <https://sqlite.org/datatype3.html>, 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

fn affinity(declared: &str) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    match () {
        () if has(&["INT"]) => Affinity::Integer,
        () if has(&["CHAR", "CLOB", "TEXT"]) => Affinity::Text,
        () if has(&["BLOB"]) || declared.is_empty() || declared == "ANY" => Affinity::Blob,
        () if has(&["REAL", "FLOA", "DOUB"]) => Affinity::Real,
        () => Affinity::Numeric,
    }
}

/// Whether a column of this affinity stores the values unchanged. A point in time never becomes a number,
/// and bytes are never converted.
fn keeps(affinity: Affinity, kind: ColumnType) -> bool {
    match kind {
        ColumnType::Text | ColumnType::Json => matches!(affinity, Affinity::Text | Affinity::Blob),
        ColumnType::Integer => !matches!(affinity, Affinity::Text | Affinity::Real),
        ColumnType::Float | ColumnType::Numeric | ColumnType::Boolean => affinity != Affinity::Text,
        ColumnType::Timestamp | ColumnType::Bytes => true,
    }
}

/// Whether a column of a STRICT table, which refuses values that it cannot convert, stores the values
/// unchanged.
fn takes_strictly(declared: &str, kind: ColumnType) -> bool {
    let names: &[&str] = match kind {
        ColumnType::Text | ColumnType::Json | ColumnType::Timestamp => &["TEXT", "ANY"],
        ColumnType::Integer => &["INT", "INTEGER", "ANY"],
        ColumnType::Float => &["REAL", "ANY"],
        ColumnType::Numeric | ColumnType::Boolean => &["INT", "INTEGER", "REAL", "ANY"],
        ColumnType::Bytes => &["BLOB", "ANY"],
    };
    names.iter().any(|name| name.eq_ignore_ascii_case(declared))
}

/// The declared type of a column in a STRICT table.
fn declared_strictly(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Numeric => "ANY",
        ColumnType::Boolean => "INTEGER",
        other => declared(other),
    }
}

/// An identifier in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statement that creates the table. A key of one integer is the row id itself.
pub(super) fn create_statement<'c>(
    table: &str,
    columns: impl Iterator<Item = (&'c str, ColumnType)>,
    key: &[String],
) -> String {
    let mut list: Vec<String> = columns
        .map(|(name, kind)| {
            let must = if key.iter().any(|of_key| of_key == name) { " NOT NULL" } else { "" };
            format!("{} {}{must}", quoted(name), declared(kind))
        })
        .collect();
    if !key.is_empty() {
        list.push(format!("PRIMARY KEY ({})", names(key)));
    }
    format!("CREATE TABLE {} ({})", quoted(table), list.join(", "))
}

/// Names in quotes, for a list.
fn names(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// The columns that the existing table lacks.
pub(super) fn missing<'c>(
    database: &Connection,
    table: &str,
    columns: impl Iterator<Item = (&'c str, ColumnType)>,
) -> rusqlite::Result<Vec<(&'c str, ColumnType)>> {
    let mut statement = database.prepare("SELECT name FROM pragma_table_xinfo(?1, 'main')")?;
    let found = statement.query_map([table], |row| row.get(0))?;
    let found: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
    Ok(columns.filter(|(name, _)| !found.iter().any(|f| f.eq_ignore_ascii_case(name))).collect())
}

/// The statement that adds a column to the existing table.
pub(super) fn add_statement(
    database: &Connection,
    table: &str,
    name: &str,
    kind: ColumnType,
) -> rusqlite::Result<String> {
    let strict =
        "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    let strict: bool = database.query_row(strict, [table], |row| row.get(0))?;
    let kind = if strict { declared_strictly(kind) } else { declared(kind) };
    Ok(format!("ALTER TABLE {} ADD COLUMN {} {kind}", quoted(table), quoted(name)))
}

/// The statement that inserts one row. `OR ABORT`: whatever a constraint of the table itself says, a
/// refused row is reported, and never dropped silently or written over another one.
pub(super) fn insert_statement<'c>(table: &str, columns: impl Iterator<Item = &'c str>) -> String {
    let (mut names, mut marks) = (String::new(), String::new());
    for (nth, name) in columns.enumerate() {
        let comma = if nth > 0 { ", " } else { "" };
        names.push_str(&format!("{comma}{}", quoted(name)));
        marks.push_str(&format!("{comma}?{}", nth + 1));
    }
    format!("INSERT OR ABORT INTO {} AS present ({names}) VALUES ({marks})", quoted(table))
}

/// The statement that inserts a row, or replaces the one of its key: unless that is of a later message of
/// the same stream, which a replay must not undo.
pub(super) fn upsert_statement<'c>(
    table: &str,
    columns: impl Iterator<Item = &'c str>,
    key: &[String],
) -> String {
    let columns: Vec<&str> = columns.collect();
    let sets: Vec<String> = columns
        .iter()
        .filter(|name| !key.iter().any(|of_key| of_key == **name))
        .map(|name| format!("{0} = excluded.{0}", quoted(name)))
        .collect();
    format!(
        "{} ON CONFLICT ({}) DO UPDATE SET {} WHERE present.stream IS NOT excluded.stream \
         OR present.\"offset\" <= excluded.\"offset\"",
        insert_statement(table, columns.into_iter()),
        names(key),
        sets.join(", ")
    )
}

/// The statement that deletes the row of a key, with the same exception. Its parameters are the stream, the
/// offset, and the key. Compares as the key's index does ([`key_problem`]).
pub(super) fn delete_statement(table: &str, key: &[String]) -> String {
    let key: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(nth, name)| format!("{} = ?{} COLLATE BINARY", quoted(name), nth + 3))
        .collect();
    format!(
        "DELETE FROM {} WHERE {} AND (stream IS NOT ?1 OR \"offset\" <= ?2)",
        quoted(table),
        key.join(" AND ")
    )
}

/// The statement that inserts a row of which only these are known: the stream, the offset, and the key.
pub(super) fn insert_key_statement(table: &str, key: &[String]) -> String {
    let (mut columns, mut values) = (String::new(), String::new());
    let mut stream = "?1".to_owned();
    for (nth, name) in (3..).zip(key) {
        match name == "stream" {
            true => stream = format!("coalesce(?{nth}, ?1)"),
            false => {
                columns.push_str(&format!(", {}", quoted(name)));
                values.push_str(&format!(", ?{nth}"));
            }
        }
    }
    format!(
        "INSERT INTO {} (stream, \"offset\"{columns}) VALUES ({stream}, ?2{values})",
        quoted(table)
    )
}

/// The statement after which any message of the stream may replace its rows: its offsets begin again.
pub(super) fn forget_statement(table: &str) -> String {
    format!("UPDATE {} SET \"offset\" = -1 WHERE stream = ?1 AND \"offset\" <> -1", quoted(table))
}

/// Why rows of the existing table cannot be replaced by this key, with the remedy; `None` if they can: then
/// exactly these columns are its primary key, or have a unique index that compares bytes.
pub(super) fn key_problem(
    database: &Connection,
    table: &str,
    key: &[String],
) -> rusqlite::Result<Option<String>> {
    let is_key = |columns: &[String]| {
        columns.len() == key.len()
            && key.iter().all(|name| columns.iter().any(|c| c.eq_ignore_ascii_case(name)))
    };
    let listed = |sql: &str, of: &str| -> rusqlite::Result<Vec<String>> {
        database.prepare(sql)?.query_map([of], |row| row.get(0))?.collect()
    };
    // A primary key of one integer has no index.
    let primary = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 AND type = 'INTEGER' COLLATE NOCASE \
                   AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')";
    if is_key(&listed(primary, table)?) {
        return Ok(None);
    }
    let indexes = "SELECT name FROM pragma_index_list(?1, 'main') WHERE \"unique\" AND NOT partial";
    let mut compares_otherwise = false;
    for index in listed(indexes, table)? {
        // An expression has no name.
        let columns = "SELECT coalesce(name, '') FROM pragma_index_xinfo(?1, 'main') WHERE \"key\"";
        if !is_key(&listed(columns, &index)?) {
            continue;
        }
        let binary =
            "SELECT coll FROM pragma_index_xinfo(?1, 'main') WHERE \"key\" AND coll <> 'BINARY'";
        if listed(binary, &index)?.is_empty() {
            return Ok(None);
        }
        compares_otherwise = true;
    }
    let why = match compares_otherwise {
        true => {
            "the unique index over the key takes different values for the same one (a COLLATE other than BINARY)"
        }
        false => "the key has no unique index of exactly its columns",
    };
    let columns: Vec<String> =
        key.iter().map(|name| format!("{} COLLATE BINARY", quoted(name))).collect();
    let index = quoted(&format!("{table}_key"));
    Ok(Some(format!(
        "{why}: CREATE UNIQUE INDEX {index} ON {} ({})",
        quoted(table),
        columns.join(", ")
    )))
}

/// The statement that reads these columns.
pub(super) fn select_statement(table: &str, columns: &[String], rest: &str) -> String {
    let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    format!("SELECT {} FROM {} {rest}", names.join(", "), quoted(table))
}

/// The statement that creates a table in which SQLite does to values of these columns what it does in the
/// existing one. It has no constraints, defaults or further columns.
pub(super) fn create_like(
    database: &Connection,
    table: &str,
    columns: &[String],
    name: &str,
) -> rusqlite::Result<String> {
    let strict =
        "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    let strict: bool = database.query_row(strict, [table], |row| row.get(0))?;
    let mut declared = database.prepare(
        "SELECT type FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2 COLLATE NOCASE",
    )?;
    let mut list = Vec::with_capacity(columns.len());
    for column in columns {
        let declared: String = declared.query_row([table, column], |row| row.get(0))?;
        list.push(format!("{} {declared}", quoted(column)));
    }
    let strict = if strict { " STRICT" } else { "" };
    Ok(format!("CREATE TABLE {} ({}){strict}", quoted(name), list.join(", ")))
}

/// Whether the table exists.
pub(super) fn exists(database: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql =
        "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    database.query_row(sql, [table], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// Reasons why the existing table cannot take rows of these columns; empty if it can.
pub(super) fn misfits<'c>(
    database: &Connection,
    table: &str,
    columns: impl Iterator<Item = (&'c str, ColumnType)>,
) -> rusqlite::Result<Vec<String>> {
    let (kind, strict): (String, bool) = database.query_row(
        "SELECT type, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
        [table],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if kind == "view" {
        return Ok(vec!["it is a view".to_owned()]);
    }
    let mut statement = database.prepare(
        "SELECT name, type, \"notnull\" AND dflt_value IS NULL AND pk = 0, hidden
         FROM pragma_table_xinfo(?1, 'main')",
    )?;
    let found = statement.query_map([table], |row| {
        Ok(Found {
            name: row.get(0)?,
            declared: row.get(1)?,
            demands: row.get(2)?,
            made_up: row.get::<_, i64>(3)? != 0,
        })
    })?;
    let mut found: Vec<Found> = found.collect::<rusqlite::Result<_>>()?;
    let mut wrong = Vec::new();
    for (name, kind) in columns {
        let Some(at) = found.iter().position(|f| f.name.eq_ignore_ascii_case(name)) else {
            wrong.push(format!("the column {name:?} is missing (as {})", declared(kind)));
            continue;
        };
        let column = found.swap_remove(at);
        if column.made_up {
            wrong.push(format!("the column {name:?} is generated, and takes no values"));
        } else if strict && !takes_strictly(&column.declared, kind) {
            wrong.push(format!(
                "the column {name:?} is declared {:?} in a STRICT table, which does not take values of \
                 this kind: declare it {}",
                column.declared,
                declared_strictly(kind)
            ));
        } else if !strict && !keeps(affinity(&column.declared), kind) {
            wrong.push(format!(
                "the column {name:?} is declared {:?}, which changes values of this kind: declare it \
                 {}",
                column.declared,
                declared(kind)
            ));
        }
    }
    wrong.extend(found.iter().filter(|column| column.demands && !column.made_up).map(|column| {
        format!(
            "the column {:?} must not be NULL and has no default, but nothing is written to it",
            column.name
        )
    }));
    Ok(wrong)
}

/// Whether the table may have foreign keys that are checked only at the commit.
pub(super) fn has_deferred_keys(database: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE \
               AND sql LIKE '%DEFERR%'";
    database.query_row(sql, [table], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// The rows of this stream that violate foreign keys, by offset, each with the table that lacks the
/// referenced row. Reads the whole table. Not possible for a table without row ids.
pub(super) fn unmet_keys(
    database: &Connection,
    table: &str,
    stream: &str,
) -> rusqlite::Result<Vec<(Offset, String)>> {
    let sql = format!(
        "SELECT t.\"offset\", c.parent FROM pragma_foreign_key_check(?1, 'main') AS c \
         JOIN main.{} AS t ON t.rowid = c.rowid WHERE t.stream = ?2",
        quoted(table)
    );
    let keyed =
        "SELECT wr = 0 FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
    if !database.query_row(keyed, [table], |row| row.get::<_, bool>(0))? {
        return Ok(Vec::new());
    }
    let mut statement = database.prepare(&sql)?;
    let rows = statement.query_map([table, stream], |row| {
        Ok((Offset(row.get::<_, i64>(0)?.cast_unsigned()), row.get(1)?))
    })?;
    rows.collect()
}

struct Found {
    name: String,
    declared: String,
    /// Must be given a value.
    demands: bool,
    /// Generated, or hidden in a virtual table.
    made_up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_are_as_the_manual_says() {
        for (declared, expected) in [
            ("INT", Affinity::Integer),
            ("bigint", Affinity::Integer),
            ("VARCHAR(10)", Affinity::Text),
            ("CLOB", Affinity::Text),
            ("BLOB", Affinity::Blob),
            ("", Affinity::Blob),
            ("double precision", Affinity::Real),
            ("FLOAT", Affinity::Real),
            ("DECIMAL(10,5)", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
            ("DATETIME", Affinity::Numeric),
            // The manual's own warning: the order of its rules decides.
            ("CHARINT", Affinity::Integer),
            ("FLOATING POINT", Affinity::Integer),
        ] {
            assert_eq!(affinity(declared), expected, "{declared}");
        }
    }

    #[test]
    fn strict_tables_take_what_they_would_not_refuse() {
        use ColumnType::*;
        let kinds = [Text, Json, Timestamp, Integer, Float, Numeric, Boolean, Bytes];
        let database = Connection::open_in_memory().unwrap();
        for kind in kinds {
            let word = declared_strictly(kind);
            let sql = format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {word}) STRICT");
            database.execute_batch(&sql).unwrap();
            let wrong = misfits(&database, "t", [("v", kind)].into_iter()).unwrap();
            assert!(wrong.is_empty(), "{kind:?} {wrong:?}");
        }
        for (word, kind) in
            [("INTEGER", Timestamp), ("TEXT", Bytes), ("BLOB", Text), ("INT", Float)]
        {
            let sql = format!("DROP TABLE t; CREATE TABLE t (v {word}) STRICT");
            database.execute_batch(&sql).unwrap();
            let wrong = misfits(&database, "t", [("v", kind)].into_iter()).unwrap();
            assert!(wrong[0].contains("STRICT"), "{kind:?} {wrong:?}");
        }
    }

    #[test]
    fn what_is_created_fits() {
        let columns = [
            ("stream", ColumnType::Text),
            ("a \"b\"", ColumnType::Numeric),
            ("f", ColumnType::Float),
            ("i", ColumnType::Integer),
            ("yes", ColumnType::Boolean),
            ("j", ColumnType::Json),
            ("t", ColumnType::Timestamp),
            ("b", ColumnType::Bytes),
        ];
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(&create_statement("my \"table", columns.into_iter(), &[])).unwrap();
        assert!(exists(&database, "MY \"table").unwrap());
        assert!(misfits(&database, "my \"table", columns.into_iter()).unwrap().is_empty());
        let insert = insert_statement("my \"table", columns.iter().map(|(name, _)| *name));
        database.prepare(&insert).unwrap();
    }
}
