"""Other programs read the store: DuckDB and pyarrow agree with what was written.

    python read.py STORE      STORE: a folder with the stream of tests/lake.rs
"""

import sys

import duckdb
import pyarrow.dataset as ds

store = sys.argv[1]
files = f"read_parquet('{store}/namespace=*/**/*.parquet', hive_partitioning = true)"
q = lambda text: duckdb.sql(text.replace("LOGS", files)).fetchall()

assert q("SELECT count(*) FROM LOGS") == [(4000,)], q("SELECT count(*) FROM LOGS")
assert q("SELECT count(*), min(seq), max(seq) FROM LOGS WHERE rank = 3 AND line LIKE 'step % loss 0.5%'") == [
    (100, 501, 600)
]
assert q("SELECT job, namespace, uid, attempt, node FROM LOGS WHERE rank = 1 LIMIT 1") == [
    ("bert", "ml", "u-1", 1, "gpu-7")
]
# In order, within each rank.
for rank in range(4):
    seqs = [s for (s,) in q(f"SELECT seq FROM LOGS WHERE rank = {rank} ORDER BY seq")]
    assert seqs == list(range(1, 1001)), rank
assert q("SELECT count(*) FROM LOGS WHERE line IS NULL AND raw = '\\xFF\\xFE'::BLOB") == [(4,)]

table = ds.dataset(store, partitioning="hive", exclude_invalid_files=True).to_table(
    filter=(ds.field("rank") == 3) & (ds.field("seq") <= 10), columns=["seq", "line", "time", "rank"]
)
assert table.num_rows == 10 and table["seq"].to_pylist() == list(range(1, 11)), table
assert str(table["time"][0].as_py()).startswith("2026-03-01 09:15:00"), table["time"][0]
# What ran, and why it failed.
q = lambda text: duckdb.sql(text.replace("STORE", store)).fetchall()
assert q("SELECT class, node, rank, exit_code, epoch(ended - started) FROM 'STORE/_attempts/**/*.parquet'") == [
    ("HostOutOfMemory", "gpu-7", 3, 137, 1800)
]
assert q("SELECT cluster, retries, succeeded, manifest->>'$.spec.command[1]' FROM 'STORE/_jobs/**/*.parquet'") == [
    ("east", 1, None, "train.py")
]
jobs = ds.dataset(store + "/_jobs").to_table()
assert jobs["uid"].to_pylist() == ["u-1"], jobs

print("DuckDB", duckdb.__version__, "and pyarrow agree")
