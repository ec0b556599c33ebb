#!/usr/bin/env python3
"""A Delta table by many appends of one row: a small file and a commit each, as programs leave it that write as they go.

    many_commits.py FOLDER COUNT
"""
import json, os, sys

import pyarrow as pa, pyarrow.parquet as pq

root, count = sys.argv[1], int(sys.argv[2])
log = f"{root}/_delta_log"
os.makedirs(log, exist_ok=True)
columns = {"id": ("long", pa.int64()), "name": ("string", pa.string()), "at": ("timestamp_ntz", pa.timestamp("us"))}
schema = pa.schema([(name, kind) for name, (_, kind) in columns.items()])
field = lambda name, kind: {"name": name, "type": kind, "nullable": True, "metadata": {}}
struct = {"type": "struct", "fields": [field(name, kind) for name, (kind, _) in columns.items()]}
EPOCH_MS = 1_700_000_000_000


def commit(version, *actions):
    with open(f"{log}/{version:020}.json", "w") as out:
        out.write("\n".join(map(json.dumps, actions)) + "\n")


commit(
    0,
    {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]}},
    {"metaData": {"id": "6fd7e2a2-97a0-4b4b-9b0b-5f4f1d2c3b4a", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(struct),
                  "partitionColumns": [], "configuration": {}, "createdTime": EPOCH_MS}},
)
for i in range(1, count + 1):
    path, at = f"part-{i:06}.parquet", f"2023-11-14T22:13:20.{i:06}"
    row = {"id": [i], "name": [f"row {i}"], "at": pa.array([EPOCH_MS * 1000 + i], pa.timestamp("us"))}
    pq.write_table(pa.table(row, schema=schema), f"{root}/{path}")
    bounds = {"id": i, "name": f"row {i}", "at": at}
    stats = {"numRecords": 1, "minValues": bounds, "maxValues": bounds, "nullCount": dict.fromkeys(bounds, 0)}
    commit(
        i,
        {"add": {"path": path, "partitionValues": {}, "size": os.path.getsize(f"{root}/{path}"), "modificationTime": EPOCH_MS + i,
                 "dataChange": True, "stats": json.dumps(stats)}},
        {"commitInfo": {"timestamp": EPOCH_MS + i, "operation": "WRITE"}},
    )
