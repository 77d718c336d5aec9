"""The rows into Parquet by pyarrow, on one core; prints seconds, seconds of processor time, and bytes.

    parquet.py (read|write) ROWS.csv OUT.parquet

`read` counts from the opening of the CSV file, `write` only the writer: its table lies in memory. Neither
counts the start of Python and of pyarrow.
"""

import os
import sys
import time

import pyarrow
import pyarrow.csv
import pyarrow.parquet

NAMES = ["stream", "offset", "timestamp", "message_id", "subject", "application_properties", "body"]

what, rows, out = sys.argv[1:]
pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)


def memory(line):
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) << 10 for text in status if text.startswith(line))


def read():
    return pyarrow.csv.read_csv(
        rows,
        read_options=pyarrow.csv.ReadOptions(column_names=NAMES, use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={
                "offset": pyarrow.int64(),
                "timestamp": pyarrow.timestamp("ms"),
                **{name: pyarrow.string() for name in NAMES[3:]},
            },
            strings_can_be_null=True,
        ),
    )


table = read() if what == "write" else None
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
base = memory("VmRSS")
began, cpu = time.monotonic(), time.process_time()
if table is None:
    table = read()
pyarrow.parquet.write_table(table, out, compression="zstd", compression_level=1)
with open(out, "rb+") as file:
    os.fsync(file.fileno())
print(time.monotonic() - began, time.process_time() - cpu, max(0, memory("VmHWM") - base))
