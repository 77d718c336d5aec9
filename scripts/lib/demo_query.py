"""What landed, by readers that know nothing of Rillway: SQLite's own library, and DuckDB.

    demo_query.py show-analytics DATABASE STREAM     a query, and its answer
    demo_query.py show-archive FOLDER                the same, over the Parquet files
    demo_query.py count-analytics DATABASE STREAM    "COUNT LAST": how many, and the last offset
    demo_query.py count-archive FOLDER               the same; exit code 1 if one comes twice
    demo_query.py count-orders DATABASE              for each partition "STREAM COUNT DISTINCT"
"""

import glob
import sqlite3
import sys


def table(names, rows):
    cells = [[str(name) for name in names]] + [["" if c is None else str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        print("    " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


def show(sql, cursor):
    for line in sql.splitlines():
        print("  " + line)
    table([column[0] for column in cursor.description], cursor.fetchall())


def analytics(path):
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def archive(folder):
    import duckdb

    # Only what partitions hold: the checkpoint beside them begins with an underscore.
    files = f"{folder}/date=*/hour=*/*.parquet"
    return duckdb.connect(), f"read_parquet('{files}', hive_partitioning = true)", glob.glob(files)


def main(what, place, stream=None):
    if what == "show-analytics":
        sql = """SELECT country, count(*) AS purchases, count(DISTINCT user_id) AS users, round(sum(amount), 2) AS revenue
FROM events WHERE event = 'purchase' GROUP BY country ORDER BY revenue DESC"""
        show(sql, analytics(place).execute(sql))
    elif what == "count-analytics":
        sql = "SELECT count(*), max(offset) FROM events WHERE stream = ?"
        print(*analytics(place).execute(sql, [stream]).fetchone())
    elif what == "count-orders":
        sql = 'SELECT stream, count(*), count(DISTINCT "offset") FROM orders GROUP BY stream'
        for row in analytics(place).execute(sql):
            print(*row)
    elif what == "show-archive":
        db, files, paths = archive(place)
        sql = """SELECT date, hour, count(*) AS messages, min("offset") AS first, max("offset") AS last,
       round(avg((body::JSON ->> 'amount')::DOUBLE), 2) AS amount
FROM archive GROUP BY ALL ORDER BY ALL"""
        db.execute(f"CREATE VIEW archive AS SELECT * FROM {files}")
        print(f"  {len(paths)} Parquet files")
        show(sql, db.execute(sql))
    elif what == "count-archive":
        db, files, _ = archive(place)
        sql = f'SELECT count(*), max("offset"), count(DISTINCT "offset") FROM {files}'
        count, last, distinct = db.execute(sql).fetchone()
        print(count, last)
        if distinct != count:
            sys.exit(f"{count - distinct} messages come twice")
    else:
        sys.exit(__doc__)


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(*sys.argv[1:])
