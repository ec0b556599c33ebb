"""psycopg 3: both protocols, parameters, server-side cursors, COPY both ways, pipelines, cancel."""

import datetime
import decimal
import os

import psycopg
from psycopg import sql

dsn = os.environ["FLUMEN_PG"]

with psycopg.connect(dsn) as connection:
    row = connection.execute("select id, name, fare, day, at, ok from raw.people where id = %s", (2,)).fetchone()
    assert row == (2, "bob", 2.25, datetime.date(2019, 1, 2), datetime.datetime(2019, 1, 2, 11, 30, 0, 500000), False), row
    # Parameters of every kind, in both formats.
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute(
                "select %s::int, %s, %s::float, %s::date, %s::bool, %s::numeric(10,2)",
                (7, "it's", 1.5, datetime.date(2020, 2, 29), True, decimal.Decimal("12.30")),
            )
            got = cursor.fetchone()
            assert got == (7, "it's", 1.5, datetime.date(2020, 2, 29), True, decimal.Decimal("12.30")), got
            cursor.execute("select name from raw.people where day = %s and name = %s", (datetime.date(2019, 1, 1), "ann"))
            assert cursor.fetchall() == [("ann",)]
            cursor.execute("select name from raw.people where id = any(%s) order by id", ([1, 2],))
            assert cursor.fetchall() == [("ann",), ("bob",)]
    # A server-side cursor.
    with connection.cursor(name="people") as cursor:
        cursor.itersize = 2
        cursor.execute("select id from raw.people order by id")
        assert [row[0] for row in cursor] == [1, 2, 3]
    # COPY out.
    with connection.cursor().copy("copy (select id, name from raw.people order by id) to stdout") as copy:
        assert list(copy.rows()) == [("1", "ann"), ("2", "bob"), ("3", None)]
    with connection.cursor().copy("copy (select id, name from raw.people order by id) to stdout (format binary)") as copy:
        copy.set_types(["int8", "text"])
        assert list(copy.rows()) == [(1, "ann"), (2, "bob"), (3, None)]
    # A failed statement spoils the block, and a rollback mends it.
    try:
        connection.execute("select nope from raw.people")
        raise AssertionError("it was not refused")
    except psycopg.errors.UndefinedColumn:
        pass
    try:
        connection.execute("select 1")
        raise AssertionError("the block goes on")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    connection.rollback()
    assert connection.execute("select 1").fetchone() == (1,)

with psycopg.connect(dsn, autocommit=True) as connection:
    connection.execute("create table t as select cast(null as bigint) as a, cast(null as varchar) as b, cast(null as date) as c limit 0")
    with connection.cursor().copy("copy t (a, b, c) from stdin") as copy:
        for row in [(1, "one\ttab", datetime.date(2019, 1, 1)), (2, None, None)]:
            copy.write_row(row)
    with connection.cursor().copy("copy t (a, b) from stdin (format binary)") as copy:
        copy.set_types(["int8", "text"])
        copy.write_row((3, "drei"))
    with connection.cursor().copy("copy t from stdin (format csv, header)") as copy:
        copy.write('a,b,c\n4,"x, ""y""",2020-01-01\n')
    rows = connection.execute("select a, b, c from t order by a").fetchall()
    assert rows == [
        (1, "one\ttab", datetime.date(2019, 1, 1)),
        (2, None, None),
        (3, "drei", None),
        (4, 'x, "y"', datetime.date(2020, 1, 1)),
    ], rows
    try:
        with connection.cursor().copy("copy t (a) from stdin") as copy:
            copy.write("5\nfive\n")
        raise AssertionError("it was not refused")
    except psycopg.Error as error:
        assert "line 2, column a" in str(error), error
    assert connection.execute("select count(*) from t").fetchone() == (4,)
    with connection.pipeline():
        one = connection.execute("select 1")
        two = connection.execute("select 2")
        assert (one.fetchone(), two.fetchone()) == ((1,), (2,))
    connection.execute(sql.SQL("set statement_timeout = {}").format(sql.Literal("60s")))
    assert connection.execute("show statement_timeout").fetchone() == ("60000",)
print("ok")
