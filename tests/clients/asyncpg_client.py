"""asyncpg: prepared statements in binary, cursors, COPY."""

import asyncio
import datetime
import io
import os

import asyncpg


async def main():
    connection = await asyncpg.connect(os.environ["FLUMEN_PG"])
    row = await connection.fetchrow("select id, name, fare, day, at, ok from raw.people where id = $1", 2)
    expected = (2, "bob", 2.25, datetime.date(2019, 1, 2), datetime.datetime(2019, 1, 2, 11, 30, 0, 500000), False)
    assert tuple(row) == expected, row
    assert await connection.fetchval("select count(*) from raw.people where name = $1 or day > $2", "ann", datetime.date(2019, 1, 1)) == 2
    assert [row["id"] for row in await connection.fetch("select id from raw.people order by id limit $1", 2)] == [1, 2]
    async with connection.transaction():
        ids = [row["id"] async for row in connection.cursor("select id from raw.people order by id", prefetch=2)]
        assert ids == [1, 2, 3], ids
    out = io.BytesIO()
    await connection.copy_from_query("select id, name from raw.people order by id", output=out, format="csv")
    assert out.getvalue() == b"1,ann\n2,bob\n3,\n", out.getvalue()
    await connection.execute("create temporary table t as select cast(null as bigint) as a, cast(null as varchar) as b limit 0")
    await connection.copy_records_to_table("t", records=[(1, "one"), (2, None)], columns=["a", "b"])
    assert [tuple(row) for row in await connection.fetch("select a, b from t order by a")] == [(1, "one"), (2, None)]
    try:
        await connection.fetch("select * from nothing")
        raise AssertionError("it was not refused")
    except asyncpg.UndefinedTableError:
        pass
    # Tables of the lake.
    await connection.execute("create table shop.numbers (n bigint, name text)")
    await connection.executemany("insert into shop.numbers values ($1, $2)", [(n, f"number {n}") for n in range(3)])
    await connection.copy_records_to_table("numbers", schema_name="shop", records=[(3, None)])
    assert await connection.execute("update shop.numbers set name = $1 where n = $2", "three", 3) == "UPDATE 1"
    try:
        async with connection.transaction():
            await connection.execute("delete from shop.numbers")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    rows = await connection.fetch("select n, name from shop.numbers order by n")
    assert [tuple(row) for row in rows] == [(0, "number 0"), (1, "number 1"), (2, "number 2"), (3, "three")], rows
    await connection.execute("drop table shop.numbers")
    await connection.reset()
    await connection.close()
    async with asyncpg.create_pool(os.environ["FLUMEN_PG"], min_size=1, max_size=3) as pool:
        assert await asyncio.gather(*(pool.fetchval("select $1::int + 1", n) for n in range(10))) == list(range(1, 11))


asyncio.run(main())
print("ok")
