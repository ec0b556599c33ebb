"""Writes Delta tables as another program does, for Flumen to read.

    write.py WRITER LAKE      WRITER is deltalake or sail; tables go to LAKE/<writer>/<name>, and the rows that they must have
                              to LAKE/../<name>.parquet
"""

import datetime
import decimal
import os
import sys

import pyarrow
import pyarrow.parquet

UTC = datetime.timezone.utc
TYPES = pyarrow.schema(
    [
        ("id", pyarrow.int64()),
        ("small", pyarrow.int16()),
        ("number", pyarrow.int32()),
        ("ok", pyarrow.bool_()),
        ("ratio", pyarrow.float32()),
        ("dist", pyarrow.float64()),
        ("fare", pyarrow.decimal128(20, 4)),
        ("zone", pyarrow.string()),
        ("raw", pyarrow.binary()),
        ("day", pyarrow.date32()),
        ("at", pyarrow.timestamp("us")),
        ("seen", pyarrow.timestamp("us", "UTC")),
        ("tags", pyarrow.list_(pyarrow.string())),
        ("place", pyarrow.struct([("x", pyarrow.float64()), ("label", pyarrow.string())])),
    ]
)


def row(number):
    if number % 5 == 0:
        return {"id": number}
    moment = datetime.datetime(2019, 1, 1, 0, 0, 0, 123456) + datetime.timedelta(hours=7 * number)
    return {
        "id": number,
        "small": -number,
        "number": number * 1000,
        "ok": number % 2 == 0,
        "ratio": number / 4,
        "dist": number / 8,
        "fare": decimal.Decimal(number * 12345).scaleb(-4),
        "zone": ["Éclair", "", "it's", "a/b c=d"][number % 4],
        "raw": bytes([0, number % 256]),
        "day": moment.date(),
        "at": moment,
        "seen": moment.replace(tzinfo=UTC),
        "tags": ["a", None, "c"][: number % 4],
        "place": {"x": number / 2, "label": None},
    }


def rows(numbers):
    return pyarrow.Table.from_pylist([row(number) for number in numbers], TYPES)


def expect(lake, name, table):
    pyarrow.parquet.write_table(table, os.path.join(lake, "..", f"{name}.parquet"))


def with_deltalake(lake):
    import deltalake

    def write(name, table, **options):
        deltalake.write_deltalake(os.path.join(lake, "deltalake", name), table, **options)

    write("kinds", rows(range(20)))
    expect(lake, "kinds", rows(range(20)))
    # By text with what has to be escaped in a path, and by a day; with null among both.
    write("parted", rows(range(20)), partition_by=["zone", "day"])
    write("parted", rows(range(20, 30)), mode="append")
    # To Delta, an empty text that names a partition is null.
    parted = [{**row(number), "zone": row(number).get("zone") or None} for number in range(30)]
    expect(lake, "parted", pyarrow.Table.from_pylist(parted, TYPES))
    # A log that begins with a checkpoint.
    for number in range(12):
        write("checked", rows([number]), mode="append")
    table = deltalake.DeltaTable(os.path.join(lake, "deltalake", "checked"))
    table.create_checkpoint()
    table.cleanup_metadata()
    write("checked", rows([12]), mode="append")
    expect(lake, "checked", rows(range(13)))
    # Changed in all the ways that it knows.
    write("changed", rows(range(20)), configuration={"delta.enableChangeDataFeed": "true"})
    table = deltalake.DeltaTable(os.path.join(lake, "deltalake", "changed"))
    table.delete("id < 3")
    table.update(updates={"zone": "'new'"}, predicate="id = 4")
    (
        table.merge(rows([6, 40]), "t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_delete()
        .when_not_matched_insert_all()
        .execute()
    )
    table.optimize.compact()
    changed = [row(number) for number in [*range(3, 6), *range(7, 20), 40]]
    changed[1]["zone"] = "new"
    expect(lake, "changed", pyarrow.Table.from_pylist(changed, TYPES))
    # With a condition that its writers keep.
    write("guarded", rows(range(5)))
    table = deltalake.DeltaTable(os.path.join(lake, "deltalake", "guarded"))
    table.alter.add_constraint({"small_id": "id < 100"})
    expect(lake, "guarded", rows(range(5)))


def with_sail(lake):
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start(background=True)
    _, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    session.sql(
        """select id, cast(id as smallint) as small, id % 2 = 0 as ok, cast(id / 8 as double) as dist,
                  cast(id * 1.25 as decimal(20,4)) as fare, if(id % 3 = 0, null, concat('zone ', id % 4)) as zone,
                  timestamp '2019-01-01 10:00:00.123456' as seen, timestamp_ntz '2019-01-01 10:00:00.123456' as at,
                  date '2019-01-01' as day, array(id, null) as tags, named_struct('x', id, 'label', 'a') as place
           from range(20)"""
    ).write.format("delta").partitionBy("zone").save(os.path.join(lake, "sail", "spark"))
    place = os.path.join(lake, "sail", "spark")
    session.read.format("delta").load(place).where("id < 2").write.format("delta").mode("append").save(place)
    rows = session.read.format("delta").load(place).toArrow()
    expect(lake, "spark", rows)
    session.stop()
    server.stop()


if __name__ == "__main__":
    writer, lake = sys.argv[1:]
    os.makedirs(os.path.join(lake, writer), exist_ok=True)
    {"deltalake": with_deltalake, "sail": with_sail}[writer](os.path.abspath(lake))
    # Done: the libraries' threads are not waited for, of which one crashes now and then while the interpreter ends.
    sys.stdout.flush()
    os._exit(0)
